"""SwiftBrush (arXiv 2312.05239, algorithm 1; slide 18 of the deck): VSD's gradient for a one-step generator, no data at
all.

    1  x = g_theta(z, c),  z ~ N(0, sigma_1^2 I),  c a prompt
    2  t ~ U(0.02, 0.98),  x_t = alpha_t x + sigma_t eps
    3  delta = w(t) (eps_psi(x_t, t, c) - eps_phi(x_t, t, c)),  w = sigma^2,  phi a LoRA on the frozen psi
    4  loss = |x - sg(x - delta)|^2/2
    then, `ratio` times (the paper: once),
    5  phi: diffusion training on x = sg g_theta(z), z fresh (`diffusion_loss`)

theta are the generator's weights, psi the teacher's, phi the fake model's; sg(y) is y without a gradient. Lines 1 to 4
are `vsd_loss`. The original guides both scores by 4.5, drops a tenth of the prompts for that, and weighs the LoRA's
loss by alpha^2. Slide 18 shows none of this. Here the teacher alone is guided.
"""

from dataclasses import dataclass

from ..solvers.registry import SKY
from .base import Card, Sampler
from .vsd import VSDKnobs, vsd


@dataclass(frozen=True)
class SwiftBrushKnobs(VSDKnobs):
    """Those of VSD, with other defaults:"""

    weight: str = "sigma2"
    """w(t), as in the original code."""
    rank: int = 16
    """The rank of the fake model's LoRA on the teacher; 0 for a full copy."""
    ratio: int = 1
    """Updates of the fake model for each update of the generator."""


CARD = Card(
    id="swiftbrush",
    title="SwiftBrush",
    paper="arXiv 2312.05239, alg. 1",
    deck="slide 18, algorithm 1",
    equation="the same, phi a LoRA on the teacher, w = sigma^2",
    needs="teacher",
    data=False,
    train=vsd,
    knobs=SwiftBrushKnobs,
    sampler=Sampler("lcm", steps=(1,)),
    evaluations=20,
    color=SKY,
    marker="P",
    dash="dot",
    recipes={  # a LoRA has few numbers to train, each of which may move more
        "points": {"batch": 512, "lr": 5e-4, "updates": 1000, "ema": 0.99, "ratio": 3},
        "images": {"batch": 64, "lr": 1e-4, "updates": 300, "ema": 0.98, "warmup": 20, "lr_fake": 1e-3, "ratio": 2},
        "latents": {
            "batch": 16,
            "lr": 1e-4,
            "updates": 2000,
            "ema": 0.99,
            "warmup": 50,
            "lr_fake": 1e-3,
            "ratio": 1,
            "guidance_scale": 4.5,
            "rank": 64,
        },
    },
)
