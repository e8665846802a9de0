"""A callback is given the predictions that diffusers' own scheduler makes."""

import diffusers
import pytest
import tiny_sd
import torch

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def test_a_callback_sees_the_predictions_of_diffusers(checkpoints, monkeypatch):
    tiny_sd.silent()
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(checkpoints["sd"])
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    want, step = [], pipe.scheduler.step

    def recorded(model_output, timestep, sample, **settings):
        made = step(model_output, timestep, sample, **settings | {"return_dict": True})
        want.append((len(want), (int(timestep) + 1) / 1000, made.pred_original_sample))
        return (made.prev_sample,)

    monkeypatch.setattr(pipe.scheduler, "step", recorded)
    rng = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    pipe(tiny_sd.PROMPTS[:2], num_inference_steps=4, generator=rng, output_type="latent", guidance_scale=3.0)

    sd = StableDiffusion.load(checkpoints["sd"])
    settings = {"steps": 4, "solver": "ddim", "grid": "trailing", "guidance_scale": 3.0, "decode": False}
    for batch in (2, 1):  # one after the other, the second image is the last four calls
        seen = []
        settings["callback"] = lambda *step, seen=seen: seen.append(step)
        sample_images(sd, tiny_sd.PROMPTS[:2], at_once=batch, **settings)
        assert len(seen) == 8 // batch
        for (i, t, x0), (j, u, x0_of_theirs) in zip(seen[-4:], want, strict=True):
            assert (i, t) == (j, pytest.approx(u))
            assert float((x0 - x0_of_theirs[-batch:]).abs().max()) < 1e-4


def test_a_parallel_sampler_calls_nothing_back(checkpoints):
    sd = StableDiffusion.load(checkpoints["sd"])
    with pytest.raises(ValueError, match="a callback is called after each sequential step, and Picard") as error:
        sample_images(sd, "a cat", steps=3, solver="picard", guidance_scale=1.0, decode=False, callback=print)
    assert "\n" not in str(error.value)
