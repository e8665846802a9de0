"""Each cell of the table of what works with which family: it works on a tiny checkpoint, or is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import sd3_file
import tiny_families
import tiny_sd
import torch
from PIL import Image
from safetensors.torch import save_file
from what_works import FEATURES, columns

from toydiff import runs
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.export import export
from toydiff.adapters.families import FAMILIES, family_of
from toydiff.adapters.preview import Preview
from toydiff.adapters.sampling import sample_images
from toydiff.adapters.summary import summary
from toydiff.problems import problem

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
FEW = {"updates": 1, "batch": 2, "warmup": 0}


@pytest.fixture(scope="module")
def folders(checkpoints, families, animatediff):
    return checkpoints | families | {"animatediff": animatediff}


class Subject:
    """A checkpoint, and what the checks need of it."""

    def __init__(self, folder, pictures, out):
        self.folder, self.pictures, self.out = folder, pictures, out
        clips = (Path(folder) / "motion_adapter").exists()
        self.frames = {"frames": 4} if clips else {}
        self.size = 64 if (Path(folder) / "transformer").exists() else 16

    def made(self, **settings):
        """Latents that are finite, of a changed setting."""
        found = {"steps": 2, "size": self.size, "decode": False, "guidance_scale": 2.0} | self.frames | settings
        parts = found.pop("parts", {})
        latents = sample_images(StableDiffusion.load(self.folder, **parts), "a cat", **found).latents
        assert bool(torch.isfinite(latents).all())
        return latents

    def trained(self, method, **settings):
        how = {"data": str(self.pictures), "rank": 2, "size": self.size} | self.frames | settings
        on = problem(f"sd:{self.folder}", settings=how)
        return runs.train(method, on, changes=FEW, out=self.out / "run", watch=0).finish()

    def exported(self, model):
        return export(model.denoiser, model.about, self.out / "student")


def sampled(on):
    for solver in ("dpm++2m", "heun", "lcm", "guarded"):
        on.made(solver=solver)


def in_parallel(on):
    walk = on.made(solver="ddim", steps=4)
    assert torch.allclose(on.made(solver="picard:tolerance=none", steps=4), walk, atol=1e-4)


def spacing(on):
    on.made(solver="ddim", grid="trailing")


def shifted(on):
    on.made(solver="ddim", grid="shifted")


def from_image(on):
    image = torch.rand(3, on.size, on.size, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(on.made(image=image, strength=0.5), on.made())


def inpainted(on):
    image, mask = torch.rand(3, on.size, on.size), torch.zeros(1, on.size, on.size)
    mask[:, : on.size // 2] = 1
    on.made(solver="ddim", image=image, mask=mask)


def negative(on):
    assert not torch.equal(on.made(negative_prompt="ugly"), on.made())


def parts(on):
    long = "a cat on a mat " * 30
    checkpoint = StableDiffusion.load(on.folder)
    made = {"steps": 1, "size": on.size, "decode": False, "guidance_scale": 1.0} | on.frames
    assert not torch.equal(
        sample_images(checkpoint, long, by_parts=True, **made).latents,
        sample_images(checkpoint, long, cut=True, **made).latents,
    )


def sizes(on):
    on.made(original_size=(64, 64), crops_coords_top_left=(0, 8), target_size=(32, 32))


def switched(on):
    checkpoint = StableDiffusion.load(on.folder)
    made = {"steps": 1, "size": on.size, "guidance_scale": 1.0} | on.frames
    whole = sample_images(checkpoint, "a cat", **made).images
    checkpoint.switch_vae(slicing=True, tiling=True)
    assert (sample_images(checkpoint, "a cat", **made).images - whole).abs().max() <= 1 / 255  # one tile


def previewed(on):
    """The last prediction is where the walk ends, and its picture what the small VAE makes of that."""
    checkpoint = StableDiffusion.load(on.folder)
    preview = Preview(checkpoint, tiny_families.taesd(checkpoint, on.out / "taesd"), on.out / "steps")
    made = {"steps": 2, "size": on.size, "solver": "ddim", "decode": False, "guidance_scale": 1.0} | on.frames
    latents = sample_images(checkpoint, "a cat", each=2, at_once=2, callback=preview, **made).latents
    rows, columns = (2, on.frames["frames"]) if on.frames else (1, 2)
    if on.frames:
        latents = latents.transpose(1, 2).flatten(0, 1)
    shift, factor = checkpoint.family.moments(preview.vae, latents)
    with torch.no_grad():
        want = (preview.vae.decode(latents * factor + shift).sample / 2 + 0.5).clamp(0, 1)
    names = sorted(path.name for path in (on.out / "steps").iterdir())
    assert names == ["000-0000.png", "000-0001.png"]
    pixels = torch.from_numpy(np.array(Image.open(on.out / "steps" / names[-1]))).permute(2, 0, 1) / 255
    side, apart = on.size, on.size + 4
    assert pixels.shape[1:] == (rows * apart - 4, columns * apart - 4)
    for k, image in enumerate(want):
        y, x = apart * (k // columns), apart * (k % columns)
        assert (pixels[:, y : y + side, x : x + side] - image).abs().max() <= 1 / 255 + 1e-6


def frames(on):
    assert on.made(frames=3).shape[2] == 3


def rescaled(on):
    on.made(guidance_rescale=0.7, guidance_interval=(0.2, 0.8))


def another_vae(on):
    on.made(parts={"vae": f"{on.folder}/vae"})


def another_network(on):
    on.made(parts={"unet": on.folder})


def single(on):
    file, folder = on.out / "one.safetensors", on.folder
    if "StableDiffusion3" in (Path(folder) / "model_index.json").read_text():
        folder = sd3_file.save(on.out / "folder")
        sd3_file.single_file(folder, file)
    elif (Path(folder) / "unet").exists():
        tiny_sd.single_file(folder, file)
    else:
        save_file({"x": torch.zeros(1)}, file)
    StableDiffusion.load(file, config=folder, local_only=True)


def lora(on):
    made = on.exported(on.trained("cd"))
    assert made.what == "lora"
    on.made(parts={"lora": [str(made.folder)]})


def whole(on):
    made = on.exported(on.trained("cd", trained="full"))
    on.made(parts={"unet": str(made.folder)})


def guided(on):
    assert on.trained("lcm").denoiser.scale_conditioned


def guided_export(on):
    on.exported(on.trained("lcm"))


def doctor(on):
    assert summary(on.folder)["family"]


def test_every_family_has_a_column(folders):
    """One that is new gets its title as a column by itself, and has to have a tiny checkpoint of its class's name."""
    lost = [kind for kind in columns() if kind not in folders]
    assert not lost, f"no tiny checkpoint is called {lost}: name those of its family in what_works.KINDS_OF"
    found = {json.loads((Path(folders[kind]) / "model_index.json").read_text())["_class_name"] for kind in columns()}
    assert {family_of(name) for name in found} == set(FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", columns())
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.check)
def test_it_works_or_is_refused(folders, pictures, moving, tmp_path, feature, kind):
    data = moving if kind == "animatediff" else pictures
    on, check = Subject(folders[kind], data, tmp_path), globals()[feature.check]
    if kind in feature.untested:
        pytest.skip("the table says that it is not tested")
    if kind not in feature.refused:
        check(on)
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check(on)
    assert feature.refused[kind] in str(error.value)
    assert "\n" not in str(error.value)
