"""The command on Stable Diffusion checkpoints, in this process: what it writes, what it says, and one line for what is
wrong.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from toydiff.adapters import tiny
from toydiff.adapters.checkpoint import UNFILTERED, StableDiffusion
from toydiff.adapters.images import as_bytes
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def command(capsys):
    def run(*args):
        code = cli.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def fine(command):
    def run(*args):
        code, out, err = command(*args)
        assert (code, err) == (0, ""), err
        return out

    return run


@pytest.fixture
def refused(command):
    """The one line of a refusal, with exit code 2."""

    def run(*args):
        code, out, err = command(*args)
        assert (code, out) == (2, "")
        assert err.startswith("toydiff: error: ")
        assert err.count("\n") == 1
        return err

    return run


def test_a_sheet_of_images_with_its_settings(fine, checkpoints, tmp_path):
    sd, out = checkpoints["sd"], tmp_path / "sheet.png"
    said = fine(
        "sample",
        "--problem",
        "sd",
        "--model",
        sd,
        "--prompt",
        "a cat",
        "--prompt",
        "a dog",
        "--n",
        3,
        "--steps",
        4,
        "--solver",
        "unipc2",
        "--grid",
        "trailing",
        "--seed",
        7,
        "--guidance-scale",
        2,
        "--out",
        out,
    )
    assert UNFILTERED in said
    assert "6 images of 2 prompts by unipc2, 4 steps: 8 network calls each (NFE), 4 rounds" in said
    sheet = Image.open(out)
    assert sheet.size == (3 * 16 + 2 * 4, 2 * 16 + 4)
    settings = json.loads(sheet.text["toydiff"])
    assert settings["prompts"] == ["a cat", "a dog"]
    assert (settings["seed"], settings["solver"], settings["safety"]) == (7, "unipc2", UNFILTERED)
    made = sample_images(
        StableDiffusion.load(sd),
        ["a cat", "a dog"],
        each=3,
        steps=4,
        solver="unipc2",
        grid="trailing",
        seed=7,
        guidance_scale=2.0,
    )
    pixels = np.asarray(sheet)
    assert np.abs(pixels[20:36, 40:56].astype(int) - as_bytes(made.images)[5]).max() <= 1
    # the settings in the picture make it again
    fine(
        "sample",
        "--problem",
        f"sd:{sd}",
        "--prompt",
        settings["prompts"][0],
        "--prompt",
        settings["prompts"][1],
        "--n",
        settings["n"],
        "--steps",
        settings["steps"],
        "--solver",
        settings["solver"],
        "--grid",
        settings["grid"],
        "--seed",
        settings["seed"],
        "--guidance-scale",
        settings["guidance_scale"],
        "--out",
        tmp_path / "again.png",
    )
    assert np.abs(np.asarray(Image.open(tmp_path / "again.png")).astype(int) - pixels).max() <= 1


@pytest.mark.slow
def test_arrays_json_and_parallel_sampling(fine, checkpoints, tmp_path):
    arguments = (
        "sample",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd-v"],
        "--prompt",
        "a cat",
        "--negative-prompt",
        "ugly",
        "--size",
        "16x24",
        "--steps",
        "6",
        "--grid",
        "uniform",
    )
    rows = {}
    for solver in ("ddim", "picard:tolerance=none"):
        rows[solver] = json.loads(
            fine(*arguments, "--solver", solver, "--at-once", 2, "--json", "-", "--out", tmp_path / f"{solver[:4]}.npz")
        )
    walk, swept = (np.load(tmp_path / f"{name}.npz") for name in ("ddim", "pica"))
    assert walk["images"].shape == (1, 16, 24, 3)
    assert walk["latents"].shape == (1, 4, 8, 12)
    assert np.abs(walk["latents"] - swept["latents"]).max() < 1e-4
    assert rows["ddim"]["rounds"] == 6
    assert rows["picard:tolerance=none"]["nfe"] > 12
    assert json.loads(str(walk["settings"]))["negative_prompt"] == "ugly"


@pytest.mark.slow
def test_train_sample_evaluate_and_export(fine, refused, checkpoints, pictures, tmp_path):
    run = tmp_path / "run"
    said = fine(
        "train",
        "pcm",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--data",
        pictures,
        "--rank",
        4,
        "--updates",
        2,
        "--batch",
        4,
        "--accumulate",
        2,
        "--gradient-checkpointing",
        "--mixed-precision",
        "bf16",
        "--set",
        "warmup=0",
        "--out",
        run,
    )
    assert "pcm on sd:" in said
    assert "2 updates" in said
    assert (run / "cache").is_dir()
    assert "finished already" in fine(
        "train",
        "pcm",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--data",
        pictures,
        "--rank",
        4,
        "--updates",
        2,
        "--batch",
        4,
        "--accumulate",
        2,
        "--gradient-checkpointing",
        "--mixed-precision",
        "bf16",
        "--set",
        "warmup=0",
        "--out",
        run,
        "--resume",
    )
    assert "has accumulate = 2" in refused(
        "train",
        "pcm",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--data",
        pictures,
        "--rank",
        4,
        "--updates",
        2,
        "--batch",
        4,
        "--gradient-checkpointing",
        "--set",
        "warmup=0",
        "--out",
        run,
        "--resume",
    )
    row = json.loads(fine("sample", run, "--prompt", "a cat", "--json", "-", "--out", tmp_path / "a.png"))
    assert (row["solver"], row["steps"], row["nfe"], row["guidance_scale"]) == ("ddim", 4, 4, 1.0)
    rows = json.loads(fine("evaluate", run, "--steps", "2,4", "--n", 4, "--json", "-"))
    assert [r["steps"] for r in rows] == [2, 4]
    exported = json.loads(fine("export", run, "--out", tmp_path / "student", "--json", "-"))
    assert exported["what"] == "lora"
    assert exported["scheduler"] == "DDIMScheduler"
    assert (tmp_path / "student" / "pytorch_lora_weights.safetensors").exists()
    assert exported["code"] in (tmp_path / "student" / "README.md").read_text()
    fine(
        "sample",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--lora",
        tmp_path / "student",
        "--prompt",
        "a cat",
        "--solver",
        "ddim",
        "--steps",
        4,
        "--guidance-scale",
        1,
        "--out",
        tmp_path / "b.png",
    )
    a, b = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("a.png", "b.png"))
    assert np.abs(a - b).max() <= 1
    assert "is not empty" in refused("export", run, "--out", tmp_path / "student")
    assert "a run knows its own checkpoint" in refused(
        "sample", run, "--model", checkpoints["sd"], "--prompt", "a", "--out", tmp_path / "c.png"
    )
    assert "at least one --prompt" in refused("sample", run, "--out", tmp_path / "c.png")
    assert "--label is for classes" in refused(
        "sample", run, "--label", 1, "--prompt", "a", "--out", tmp_path / "c.png"
    )


@pytest.mark.slow
def test_pairs_and_a_method_that_needs_them(fine, checkpoints, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    common = ("--problem", "sd", "--model", checkpoints["sd"], "--prompts", tmp_path / "prompts.txt")
    said = fine("pairs", *common, "--n", 6, "--steps", 3, "--at-once", 4, "--out", tmp_path / "pairs")
    assert "6 pairs of sd:" in said
    assert "6 network calls each" in said  # guided, since nothing else was said
    fine(
        "train",
        "rectified-flow",
        *common,
        "--pairs",
        tmp_path / "pairs",
        "--rank",
        2,
        "--updates",
        1,
        "--batch",
        2,
        "--out",
        tmp_path / "flow",
    )
    fine(
        "train",
        "cd",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--data",
        tmp_path / "pairs",
        "--rank",
        2,
        "--updates",
        1,
        "--batch",
        2,
        "--out",
        tmp_path / "cd",
    )
    assert fine("sample", tmp_path / "flow", "--prompt", "a cat", "--out", tmp_path / "a.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--problem", "sd", "--prompt", "a"], "needs --model"),
        (["--problem", "sd", "--model", "nowhere", "--prompt", "a"], "there is no checkpoint at 'nowhere'"),
        (["--problem", "sd:x", "--model", "y", "--prompt", "a"], "named twice"),
        (["--problem", "sd", "--model", "SD"], "at least one --prompt"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--size", "17"], "multiples of 2"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--size", "8x8x8"], "one number, or height x width"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a" * 99], "the prompt has 99 tokens"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--dtype", "float16"], "float16 is too slow"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--device", "cuda"], "no device 'cuda'"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--lora", "nowhere"], "there is no LoRA at 'nowhere'"),
        (["--problem", "sd", "--model", "SD", "--prompt", "a", "--label", "1"], "--label is for classes"),
        (
            ["--problem", "sd", "--model", "SD", "--prompt", "a", "--mixture", "ring"],
            "--mixture is for sampling a mixture",
        ),
        (["--problem", "sd", "--model", "SD", "--promt", "a"], "did you mean '--prompt'"),
        (["--problem", "digits"], "--problem is for sampling a Stable Diffusion checkpoint"),
        (["--prompt", "a"], "--prompt is for Stable Diffusion checkpoints"),
        (["--model", "SD"], "--model is for Stable Diffusion checkpoints"),
        (["digits-teacher", "--prompt", "a"], "--prompt is for Stable Diffusion checkpoints"),
        (["--device", "cpu"], "--device is for trained models and checkpoints"),
    ],
)
def test_bad_words_of_sample(refused, checkpoints, tmp_path, arguments, line):
    arguments = [checkpoints["sd"] if word == "SD" else word for word in arguments]
    assert line in refused("sample", *arguments, "--out", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["cd", "--problem", "sd", "--model", "SD"], "this method trains on data"),
        (["cd", "--problem", "sd", "--model", "SD", "--data", "nowhere"], "there is no folder of images at 'nowhere'"),
        (["vsd", "--problem", "sd", "--model", "SD", "--prompts", "nowhere"], "'nowhere' cannot be read"),
        (["vsd", "--problem", "sd", "--model", "SD", "--dtype", "float16"], "gradients underflow in float16"),
        (["vsd", "--problem", "sd", "--model", "SD", "--mixed-precision", "fp16"], "gradients underflow in fp16"),
        (["vsd", "--problem", "sd", "--model", "SD", "--mixed-precision", "fp8"], "unknown mixed precision 'fp8'"),
        (["vsd", "--problem", "sd", "--model", "SD", "--set", "rnk=4"], "did you mean 'rank'"),
        (["vsd", "--problem", "sd", "--model", "SD", "--accumulate", "3"], "cannot be accumulated in 3 equal parts"),
        (
            ["vsd", "--problem", "mixture", "--data", "x"],
            "--data is for Stable Diffusion checkpoints, and mixture is none",
        ),
        (["vsd", "--problem", "sd", "--model", "SD", "--watch", "2"], "nothing to compare samples"),
        (["rectified-flow", "--problem", "sd", "--model", "SD", "--pairs", "nowhere"], "no set of pairs at 'nowhere'"),
    ],
)
def test_bad_words_of_train(refused, checkpoints, tmp_path, monkeypatch, arguments, line):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    arguments = [checkpoints["sd"] if word == "SD" else word for word in arguments]
    assert line in refused("train", *arguments, "--batch", 4, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_an_empty_name_is_not_the_current_folder(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["config", "lora", "unet", "vae", "motion-adapter", "preview", "preview-dir", "image", "mask"]
    for command, names in ((["sample", "--prompt", "a"], options), (["train", "cd"], ["data", "prompts", "cache"])):
        for name in names:
            words = [*command, "--problem", "sd", "--model", "x", f"--{name}", "", "--out", "out.png"]
            assert f"--{name}: must name a file or a folder, got ''" in refused(*words)
    words = ["sample", "--problem", "sd", "--model", "x", "--prompt", "a", "--out", "out.png", "--lora", ":0.8"]
    assert "':0.8' has no path" in refused(*words)
    assert not list(tmp_path.iterdir())


def test_tiny_checkpoints_are_written_whole_or_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, line in (
        ([""], "FOLDER must name a folder, got ''"),
        (["a", "sdd"], "unknown kind of checkpoint 'sdd' (did you mean 'sd'?)"),
        (["a", "sd", "b"], "unrecognized arguments: b"),
        ([], "required: FOLDER"),
    ):
        assert tiny.main(words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert line in said
    with pytest.raises(SystemExit, match="0"):
        tiny.main(["--help"])
    said = capsys.readouterr().out
    assert all(kind in said for kind in (*tiny.KINDS, tiny.CLIPS))
    with monkeypatch.context() as broken:
        broken.setattr(tiny.StableDiffusionPipeline, "save_pretrained", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny.main(["a"])
    assert not list(tmp_path.iterdir())
    assert tiny.main(["a"]) == tiny.main(["a", "sd-v"]) == 0  # what is there is replaced
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def _interrupted(self, folder):
    self.unet.save_pretrained(f"{folder}/unet")
    raise KeyboardInterrupt


def test_export_of_something_else(refused, tmp_path):
    assert "only students of Stable Diffusion checkpoints" in refused("export", "digits-cd", "--out", tmp_path / "new")
    assert "unknown run or bundled weights" in refused("export", "digit-cd", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_out_of_memory_says_what_to_lower(command, checkpoints, tmp_path, monkeypatch, error):
    def full(*args, **settings):
        raise error

    monkeypatch.setattr("toydiff.adapters.sampling.solve", full)
    code, out, err = command(
        "sample", "--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a", "--out", tmp_path / "a.png"
    )
    assert (code, out) == (1, "")
    assert "out of memory; lower --batch" in err
    assert "--at-once, --dtype float16" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_runtime_error_is_not_hidden(checkpoints, tmp_path, monkeypatch):
    def broken(*args, **settings):
        raise RuntimeError("a fault of the library")

    monkeypatch.setattr("toydiff.adapters.sampling.solve", broken)
    with pytest.raises(RuntimeError, match="a fault of the library"):
        cli.main(
            [
                "sample",
                "--problem",
                "sd",
                "--model",
                checkpoints["sd"],
                "--prompt",
                "a",
                "--out",
                str(tmp_path / "a.png"),
            ]
        )


def test_the_methods_say_what_they_need(fine):
    found = json.loads(fine("methods", "--json", "-"))
    data = {row["id"]: row["data"] for row in found["methods"]}
    assert not data["vsd"]
    assert data["cd"]
    of_checkpoints = [row["knobs"]["sd"] for row in found["methods"] if "sd" in row["knobs"]]
    assert len(of_checkpoints) > 20
    assert all(knobs["batch"] == 16 for knobs in of_checkpoints)
    assert {row["name"] for row in found["problems"]} >= {"sd"}
