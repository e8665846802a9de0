"""A small classifier of digits. Its features serve to compare generated images with real digits."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import shape
from .data import DIGIT_CLASSES, DIGIT_SHAPE

FEATURES = 64


class Classifier(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B, 10)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 9, FEATURES),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, DIGIT_CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """The 64 numbers before the last layer, (B, 64). `ValueError` for images of another shape."""
        if images.shape[1:] != DIGIT_SHAPE:
            raise ValueError(f"digits have shape (B, 1, 28, 28), got {shape(images)}")
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.features(images)))

    @torch.no_grad()
    def features_of(self, images: Tensor, chunk: int = 1000) -> tuple[Tensor, Tensor]:
        """Features (n, 64) and the most probable class (n,) of images, `chunk` images at a time, in evaluation mode."""
        self.eval()
        parts = [(f, self.head(F.relu(f)).argmax(1)) for f in (self.features(x.float()) for x in images.split(chunk))]
        features, classes = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(classes)


def moved(images: Tensor, shift: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
    """Images (B, 1, H, W) shifted, turned and scaled. What comes in from outside is paper, -1.

    shift (B, 2), in half widths of an image; angle (B,), in radians; scale (B,).
    """
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    places = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, places, align_corners=False) - 1
