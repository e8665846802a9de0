"""CLIP score and FID with tiny networks, beside transformers' own processor and model, and the formula by scipy."""

import json
import shutil

import numpy as np
import pytest
import scipy.linalg
import tiny_sd
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip import CLIPImageProcessorPil

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.images import as_bytes, read_image
from toydiff.adapters.pictures import image_folder
from toydiff.adapters.sampling import sample_images
from toydiff.adapters.scores import error_of_mean
from toydiff.cli import command as cli

CROP = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a tiny CLIP model, as published ones are."""
    folder = tmp_path_factory.mktemp("clip")
    words = tiny_sd.tokenizer(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    end = len(words) - 1
    texts = small | {"vocab_size": len(words), "eos_token_id": end, "bos_token_id": end - 1}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=texts, vision_config=small | {"image_size": 24, "patch_size": 8}, projection_dim=6)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(**CROP).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


class Inception(torch.nn.Module):
    """Features of bytes, as NVIDIA's file makes them."""

    def forward(self, images: torch.Tensor, return_features: bool = False):
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)
        return pooled if return_features else pooled[:, :1]


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "inception.pt"
    torch.jit.script(Inception()).save(file)
    return str(file)


@pytest.fixture
def data(pictures, tmp_path):
    """Pictures of one's own: some tests break one."""
    return shutil.copytree(pictures, tmp_path / "data")


def run(capsys, *words, fails=False):
    """The row that `toydiff score` prints, or its line of complaint."""
    code = cli.main(["score", *map(str, words), "--json", "-"])
    said = capsys.readouterr()
    assert code == (2 if fails else 0), said.err
    if fails:
        assert said.err.count("\n") == 1
        return said.err
    return json.loads(said.out)


def pooled(found):
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def by_hand(images, texts, real, clip):
    """Both figures by transformers and scipy, of images (n, 3, H, W)."""
    model = CLIPModel.from_pretrained(clip)
    prepare = CLIPProcessor(CLIPImageProcessorPil(**CROP), CLIPTokenizer.from_pretrained(clip))
    pixels = [Image.fromarray(one) for one in as_bytes(images)]
    given = prepare(text=texts, images=pixels, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model(**given)
        scores = (100 * found.logits_per_image / model.logit_scale.exp()).diagonal()
    made, true = (
        Inception()(torch.from_numpy(as_bytes(x)).permute(0, 3, 1, 2), True).double().numpy() for x in (images, real)
    )
    root = scipy.linalg.sqrtm(np.cov(made.T) @ np.cov(true.T)).real
    fid = np.square(made.mean(0) - true.mean(0)).sum() + np.trace(np.cov(made.T) + np.cov(true.T) - 2 * root)
    return scores, fid


def test_both_figures_are_those_by_hand(checkpoints, pictures, clip, inception, tmp_path, capsys, monkeypatch):
    words = ["--problem", "sd", "--model", checkpoints["sd"], "--data", pictures, "--clip", clip]
    words += ["--features", inception, "--steps", 2, "--guidance-scale", 2, "--seed", 5, "--out", tmp_path / "kept"]
    row = run(capsys, *words, "--unsafe-weights", "--n", 20, "--at-once", 3)
    found = image_folder(pictures)
    texts = [found[k % 8][1] for k in range(20)]
    settings = {"solver": row["solver"], "grid": row["grid"], "steps": 2, "guidance_scale": 2.0, "seed": 5}
    made = sample_images(StableDiffusion.load(checkpoints["sd"]), texts, **settings)
    real = torch.stack([read_image(path, (16, 16)) for path, _ in found])
    scores, fid = by_hand(made.images, texts, real, clip)
    assert row["clip_score"] == pytest.approx(float(scores.mean()), abs=1e-3)
    said = sorted(set(texts))
    rest = np.array(
        [sum(float(s - scores.mean()) for s, text in zip(scores, texts, strict=True) if text == one) for one in said]
    )
    error = (len(said) / (len(said) - 1) * np.square(rest).sum()) ** 0.5 / 20  # over captions, not images
    assert row["clip_score_error"] == pytest.approx(error, rel=1e-3)
    assert row["captions"] == len(said)
    assert row["fid"] == pytest.approx(fid, rel=1e-4)
    assert (row["n"], row["nfe"], row["real"]) == (20, made.trajectory.nfe, 8)
    # what was measured is not made again: after an interruption, for fewer, and for more
    calls = []
    monkeypatch.setattr(
        "toydiff.adapters.sampling.sample_images", lambda *a, **s: calls.append(a[1]) or sample_images(*a, **s)
    )
    assert run(capsys, *words, "--unsafe-weights", "--n", 20)["fid"] == row["fid"]
    assert not calls
    more = run(capsys, *words, "--unsafe-weights", "--n", 22)
    assert sum(map(len, calls)) == 2
    assert more["fid"] != row["fid"]
    run(capsys, *words[:-4], "--seed", 6, *words[-2:], "--unsafe-weights", "--n", 2)
    assert sum(map(len, calls)) == 4


def test_the_error_is_over_captions():
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    alone = [str(k) for k in range(40)]
    assert error_of_mean(values, alone) == pytest.approx(float(values.std()) / 40**0.5)
    pairs = [text for text in alone for _ in range(2)]
    assert error_of_mean(values.repeat_interleave(2), pairs) == pytest.approx(error_of_mean(values, alone))
    assert error_of_mean(values, ["one"] * 40) is None


def test_an_interrupted_measurement_goes_on(checkpoints, clip, tmp_path, capsys, monkeypatch):
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    words = ["--problem", "sd", "--model", checkpoints["sd"], "--prompts", tmp_path / "p.txt", "--clip", clip]
    words += ["--steps", 1, "--at-once", 2, "--n", 6]
    whole = run(capsys, *words, "--out", tmp_path / "whole")
    calls = []

    def once(*args, **settings):
        calls.append(args[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample_images(*args, **settings)

    monkeypatch.setattr("toydiff.adapters.sampling.sample_images", once)
    words += ["--out", tmp_path / "parts"]
    assert cli.main(["score", *map(str, words)]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert run(capsys, *words)["clip_score"] == pytest.approx(whole["clip_score"], abs=1e-4)
    assert len(calls) == 4  # two of them before the interruption


def test_clip_makes_features_too_and_a_student_is_measured(checkpoints, pictures, clip, tmp_path, capsys):
    words = ["train", "diffusion", "--problem", "sd", "--model", checkpoints["sd"], "--data", str(pictures), "--rank"]
    assert cli.main([*words, "2", "--updates", "1", "--batch", "2", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    row = run(
        capsys, tmp_path / "run", "--data", pictures, "--features", clip, "--steps", 2, "--out", tmp_path / "kept"
    )
    assert row["fid"] > 0
    assert row["clip_score"] is None
    assert row["n"] == 8


def test_what_is_refused(checkpoints, data, clip, inception, tmp_path, capsys):
    on = ["--problem", "sd", "--model", checkpoints["sd"], "--out", tmp_path / "kept"]
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "empty.txt").write_text("\n")
    prompts = ["--prompts", tmp_path / "p.txt"]
    for words, said in (
        ([*on[:-1], "", *prompts, "--clip", clip], "--out must name a folder"),
        ([*on, *prompts], "name the network to measure with"),
        ([*on, "--clip", clip], "give --data, pictures with captions, or --prompts"),
        ([*on, *prompts, "--features", clip], "FID compares with real images"),
        ([*on, *prompts, "--clip", clip, "--skip-bad"], "bad pictures can be skipped"),
        ([*on, "--prompts", tmp_path / "empty.txt", "--clip", clip], "has none; one a line"),
        ([*on, *prompts, "--clip", tmp_path], "there is no CLIP model at"),
        ([*on, *prompts, "--clip", inception], "there is no CLIP model at"),
        ([*on, *prompts, "--clip", f"{checkpoints['sd']}/text_encoder"], "a model of the type 'clip_text_model'"),
        ([*on, "--data", data, "--features", inception], "TorchScript, which can run code"),
        ([*on, "--data", data, "--features", tmp_path / "p.txt", "--unsafe-weights"], "p.txt' cannot be read"),
        ([*on, "--data", data, "--features", tmp_path / "gone"], "there is no file of TorchScript"),
        ([*on, "--data", data, "--features", clip, "--n", 1], "n must be"),
        (["--out", tmp_path / "kept", *prompts, "--clip", clip], "give a run or a checkpoint"),
        (["gone", "--out", tmp_path / "kept", *prompts, "--clip", clip], "unknown run"),
        (["--problem", "digits", "--out", tmp_path / "kept", *prompts, "--clip", clip], "is for Stable Diffusion"),
    ):
        line = run(capsys, *words, fails=True)
        assert said in line
    (data / "0.png").write_bytes(b"")
    words = [*on, "--data", data, "--features", clip, "--steps", 1]
    assert "0.png' cannot be read as an image" in run(capsys, *words, fails=True)
    assert run(capsys, *words, "--skip-bad")["skipped"] == 1
