"""Prompts that are read by parts: embeddings made by hand, given to diffusers' pipelines, are the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_sd
import torch

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
WORDS = ["".join("abcdefghijk"[(k * k + 3 * i) % 11] for i in range(5)) for k in range(32)]
LONG = " ".join(WORDS)
"""160 tokens, one a letter: parts of 75, 75 and 10, each of whole words."""
SAME = {"solver": "ddim", "grid": "trailing", "guidance_scale": 3.0, "decode": False, "by_parts": True}


def pieces(text, n):
    """The texts of the parts, which the pipeline reads one by one."""
    words = text.split()
    found = [" ".join(words[i : i + 15]) for i in range(0, len(words), 15)] if len(words) > 15 else [text]
    return found + [""] * (n - len(found))


def embedded(pipe, xl, text, n):
    """(hidden, pooled): each part as the pipeline's own `encode_prompt` has it, side by side. None: no prompt."""
    settings = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    made = [pipe.encode_prompt(one, **settings) for one in pieces(text or "", n)]
    hidden, pooled = torch.cat([one[0] for one in made], 1), made[0][2] if xl else None
    return (hidden * 0, pooled * 0) if xl and text is None else (hidden, pooled)


def theirs(folder, xl, prompt, negative, n, steps=4, guidance_scale=3.0, seed=0):
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    given, none = embedded(pipe, xl, prompt, n), embedded(pipe, xl, negative, n)
    assert given[0].shape[1] == n * 77
    vectors = {"pooled_prompt_embeds": given[1], "negative_pooled_prompt_embeds": none[1]} if xl else {}
    return pipe(
        prompt_embeds=given[0],
        negative_prompt_embeds=none[0],
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **vectors,
    ).images


@pytest.mark.parametrize("kind", ["sd", "xl"])
@pytest.mark.parametrize(
    ("prompt", "negative", "n", "steps"),
    [
        (LONG, None, 3, 1),
        (LONG, None, 3, 20),
        (LONG, "ugly", 3, 4),
        ("a cat", LONG, 3, 4),
        ("a cat", "ugly", 1, 4),
        (" ".join(WORDS[:15]), None, 1, 4),
        (" ".join(WORDS[:16]), "", 2, 4),
    ],
    ids=lambda value: str(value)[:6],
)
def test_the_embeddings_of_the_parts(kind, prompt, negative, n, steps, checkpoints):
    want = theirs(checkpoints[kind], kind == "xl", prompt, negative, n, steps)
    checkpoint = StableDiffusion.load(checkpoints[kind])
    ours = sample_images(checkpoint, prompt, negative_prompt=negative, steps=steps, **SAME)
    assert float((ours.latents - want).abs().max()) < 1e-4
    if n > 1:
        cut = sample_images(checkpoint, prompt, steps=steps, **SAME | {"by_parts": False, "cut": True})
        assert float((ours.latents - cut.latents).abs().max()) > 1e-3


def test_without_guidance_and_beside_shorter_prompts(checkpoints):
    checkpoint, sd = StableDiffusion.load(checkpoints["sd"]), checkpoints["sd"]
    plain = sample_images(checkpoint, LONG, steps=4, **SAME | {"guidance_scale": 1.0})
    assert float((plain.latents - theirs(sd, False, LONG, None, 3, guidance_scale=1.0)).abs().max()) < 1e-4
    prompts, numbers = ["a cat", "a small dog", LONG, " ".join(WORDS[::-1]), "a cat"], [1, 1, 3, 3, 1]
    want = [theirs(sd, False, text, None, n, seed=k) for k, (text, n) in enumerate(zip(prompts, numbers, strict=True))]
    for settings in ({"at_once": 1}, {"at_once": 8}, {"solver": "picard:tolerance=none", "at_once": 3}):
        ours = sample_images(checkpoint, prompts, steps=4, **SAME | settings)
        assert float((ours.latents - torch.cat(want)).abs().max()) < 1e-4
        assert ours.latents.shape[0] == 5


def test_with_sizes_of_sdxl(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["xl"])
    one, other = (
        sample_images(checkpoint, LONG, steps=4, target_size=size, **SAME).latents for size in (None, (64, 64))
    )
    assert float((one - other).abs().max()) > 1e-3


def test_by_the_command(checkpoints, families, tmp_path, capsys):
    words = ["sample", "--problem", "sd", "--prompt", LONG, "--steps", "4", "--guidance-scale", "3"]
    same = ["--model", checkpoints["sd"], "--solver", "ddim", "--grid", "trailing"]
    out = tmp_path / "out.npz"
    assert cli.main([*words, *same, "--prompt-parts", "--out", str(out)]) == 0
    with np.load(out) as made:
        assert np.abs(made["latents"] - theirs(checkpoints["sd"], False, LONG, None, 3).numpy()).max() < 1e-4
        assert json.loads(str(made["settings"]))["prompt_parts"] is True
    capsys.readouterr()
    for model, given, line in (
        (checkpoints["sd"], [], "the prompt has 160 tokens and the text encoder reads 75"),
        (checkpoints["sd"], ["--prompt-parts", "--cut-prompts"], "either cut or read by parts"),
        (families["sd3"], ["--prompt-parts", "--prompt", "a"], "read by parts by SD 1.x, SD 2.x and SDXL only"),
    ):
        assert cli.main([*words, "--model", model, *given, "--out", str(tmp_path / "no.png")]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
