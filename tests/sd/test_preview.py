"""A picture after each step: the prediction of diffusers' scheduler, decoded by its AutoencoderTiny, is the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_families
import tiny_sd
import torch
from PIL import Image

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.preview import Preview
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
PROMPTS = tiny_sd.PROMPTS


def small(channels=4):
    """TAESD, tiny."""
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=channels,
    )


@pytest.fixture(scope="module")
def taesd(tmp_path_factory):
    tiny_sd.silent()
    torch.manual_seed(7)
    place = tmp_path_factory.mktemp("taesd")
    small().save_pretrained(place)
    return place


@pytest.fixture
def words(checkpoints, taesd, tmp_path):
    found = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--steps", "4", "--solver", "ddim"]
    found += ["--grid", "trailing", "--guidance-scale", "3", "--out", str(tmp_path / "out.png")]
    return found + [word for text in PROMPTS for word in ("--prompt", text)]


def theirs(folder, taesd, monkeypatch):
    """The pictures of the predictions of their scheduler, (steps, images, H, W, 3) in [0, 1]."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    vae, made, step = diffusers.AutoencoderTiny.from_pretrained(taesd), [], pipe.scheduler.step

    def recorded(model_output, timestep, sample, **settings):
        out = step(model_output, timestep, sample, **settings | {"return_dict": True})
        decoded = vae.decode(out.pred_original_sample / vae.config.scaling_factor).sample
        made.append(pipe.image_processor.postprocess(decoded.detach(), output_type="np"))
        return (out.prev_sample,)

    monkeypatch.setattr(pipe.scheduler, "step", recorded)
    rng = [torch.Generator().manual_seed(seed) for seed in range(3)]
    pipe(PROMPTS, num_inference_steps=4, generator=rng, output_type="latent", guidance_scale=3.0)
    return np.stack(made)


def test_pictures_of_the_predictions(words, checkpoints, taesd, tmp_path, monkeypatch):
    want, steps = theirs(checkpoints["sd"], taesd, monkeypatch), tmp_path / "made" / "steps"
    given = ["--preview", str(taesd), "--preview-dir", str(steps), "--at-once", "2"]
    assert cli.main([*words, *given]) == 0
    names = sorted(path.name for path in steps.iterdir())
    assert names == [f"{batch:03d}-{i:04d}.png" for batch in (0, 1) for i in range(4)]
    for name in names:
        picture = Image.open(steps / name)
        about = json.loads(picture.text["toydiff"])
        batch, i = about["batch"], about["step"]
        assert name == f"{batch:03d}-{i:04d}.png"
        assert about["t"] == pytest.approx(1 - i / 4)
        pixels = np.asarray(picture) / 255
        for k, image in enumerate(want[i][2 * batch : 2 * batch + 2]):
            assert np.abs(pixels[:, 20 * k : 20 * k + 16] - image).max() <= 1 / 255 + 1e-6
    plain = np.asarray(Image.open(tmp_path / "out.png"))
    assert cli.main([*words, "--at-once", "2"]) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), plain)  # a preview changes nothing


def test_on_a_flow(families, tmp_path):
    checkpoint = StableDiffusion.load(families["sd3"])
    seen = Preview(checkpoint, tiny_families.taesd(checkpoint, tmp_path / "taesd3"), tmp_path / "steps")
    made = sample_images(
        checkpoint, "a cat", steps=2, solver="ddim", grid="shifted", guidance_scale=1.0, decode=False, callback=seen
    )
    with torch.no_grad():  # the last prediction is where the walk ends
        want = seen.vae.decode(made.latents).sample
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "steps" / "000-0001.png"))) / 255
    assert float((pixels.permute(2, 0, 1) - (want[0] / 2 + 0.5).clamp(0, 1)).abs().max()) <= 1 / 255


def test_what_is_refused(words, checkpoints, taesd, tmp_path, capsys):
    small(16).save_pretrained(tmp_path / "of-sd3")
    tiny_sd.tiny.vae().save_pretrained(tmp_path / "kl")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    (tmp_path / "file").write_text("")
    steps = ["--preview-dir", str(tmp_path / "steps")]
    for given, line in (
        (["--preview", str(taesd)], "give both, or neither"),
        (steps, "give both, or neither"),
        (["--preview", "nowhere", *steps], "there is no VAE at"),
        (["--preview", str(tmp_path / "of-sd3"), *steps], "the channels of its latents is 16, not 4"),
        (["--preview", str(tmp_path / "kl"), *steps], "a preview is made by an AutoencoderTiny, and"),
        (["--preview", str(taesd), "--preview-dir", str(tmp_path / "full")], "is not empty; choose another one"),
        (["--preview", str(taesd), "--preview-dir", str(tmp_path / "file")], "it is a file"),
        (["--preview", str(taesd), *steps, "--solver", "picard"], "take a sequential solver"),
    ):
        assert cli.main([*words, *given]) == 2, given
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
        assert not (tmp_path / "steps").exists()
        assert not (tmp_path / "out.png").exists()


def test_a_taesd_knows_no_mean_of_latents(checkpoints, taesd, tmp_path):
    folder = tiny_sd.save(tmp_path / "model", "xl")
    file = tmp_path / "model" / "vae" / "config.json"
    moments = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]}
    file.write_text(json.dumps(json.loads(file.read_text()) | moments))
    for load in (
        lambda: StableDiffusion.load(folder, vae=taesd),
        lambda: Preview(StableDiffusion.load(folder), taesd, tmp_path / "steps"),
    ):
        with pytest.raises(ValueError, match="whose VAE has a mean of its latents") as error:
            load()
        assert "\n" not in str(error.value)
