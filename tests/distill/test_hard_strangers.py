"""A run is data from a stranger: it names no file outside its folder, switches nothing on, and its damage is a line."""

import copy
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from tiny import TinyMixture

from toydiff import runs
from toydiff.problems import problem
from toydiff.problems.pairs import Recipe, load_pairs, save_pairs
from toydiff.schedules import VP, schedule, schedule_from_config
from toydiff.support.sealed import checksum, write_index
from toydiff.training.checkpoints import read_run, read_tensors, tensor_bytes

FEW = {"updates": 2, "batch": 8}
PIECES = {"name": "piecewise-linear", "edges": [0.0, 0.5, 1.0]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    runs.train("diffusion", TinyMixture(), out=folder, changes=FEW, watch=1).finish()
    return folder


@pytest.fixture
def stranger(whole, tmp_path):
    """stranger(changes, tensors): a copy of the run with other values, sealed as toydiff would."""

    def make(changes=None, tensors=None, about=None):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        index = copy.deepcopy(read_run(whole))
        data = (whole / index["file"]).read_bytes()
        if tensors is not None:
            data = tensor_bytes(tensors(read_tensors(whole / index["file"])))
            index["sha256"] = checksum(data)
        (folder / index["file"]).write_bytes(data)
        index |= changes or {}
        if about is not None:
            index["about"] |= about
        write_index(folder / "run.json", index)
        return folder

    return make


def refused(begin, said):
    with pytest.raises(ValueError, match=said) as caught:
        begin()
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 1000


@pytest.mark.parametrize(
    "name", ["../secret", "/dev/zero", "link", "a/../secret", ".", "", "a\x1b[31mb", 3, None, ["x"]]
)
def test_a_file_outside_the_folder_is_not_read(stranger, tmp_path, name):
    (tmp_path / "secret").write_bytes(b"secret")
    folder = stranger({"file": name, "sha256": checksum(b"secret")})
    if name == "link":
        (folder / "link").symlink_to(tmp_path / "secret")
    refused(lambda: runs.load(folder), "which is not in it|file is")
    refused(
        lambda: runs.train("diffusion", TinyMixture(), out=folder, changes=FEW, watch=1, resume=True).finish(),
        "not in it|file is",
    )


@pytest.mark.parametrize("which", ["run.json", "step-00000002.safetensors"])
@pytest.mark.parametrize("how", ["pipe", "device", "folder", "loop"])
def test_what_is_no_file_is_not_read(stranger, which, how):
    folder = stranger()
    (folder / which).unlink()
    if how == "pipe":
        os.mkfifo(folder / which)
    elif how == "folder":
        (folder / which).mkdir()
    else:
        (folder / which).symlink_to("/dev/zero" if how == "device" else which)
    refused(lambda: runs.load(folder), "it is no file|Is a directory|not in it|Too many|holds no run|symbolic")


WRONG = [
    ({"step": -1}, "step is -1"),
    ({"step": "2"}, "step is '2'"),
    ({"step": 2.5}, "step is 2.5"),
    ({"step": True}, "step is True"),
    ({"step": 10**30}, "step is 1"),
    ({"seconds": -1}, "seconds is -1"),
    ({"seconds": [1]}, "seconds is list of 1"),
    ({"history": {"a": 1}}, "history is no list"),
    ({"history": [[1, "x"]]}, "history is 'x'"),
    ({"turns": "loss"}, "turns is no list"),
    ({"turns": ["\x1b[2J"]}, "turns is"),
    ({"measured": [{"step": 0}]}, "no 'each of measured.distance'|measured"),
    ({"about": 3}, "does not say what was run"),
    ({"sha256": None}, "sha256 is None"),
]
ABOUT = [
    ({"method": "\x1b[31mred"}, "method is"),
    ({"method": 3}, "method is 3"),
    ({"problem": None}, "problem is None"),
    ({"problem": "mixture:\x9bring"}, "problem is"),
    ({"seed": -1}, "seed is -1"),
    ({"sampler": {}}, "sampler.solver"),
    ({"sampler": {"solver": "ddim", "grid": "uniform", "steps": []}}, "no number of steps"),
    ({"sampler": {"solver": "ddim", "grid": "uniform", "steps": [0]}}, "steps is 0"),
    ({"sampler": {"solver": "ddim", "grid": "uniform", "steps": [10**9]}}, "steps is 1000000000"),
    ({"pair_calls": "x"}, "pair_calls is 'x'"),
    ({"denoiser": []}, "denoiser is no object"),
    (
        {"denoiser": {"net": "mlp", "config": {"hidden": 10**9}, "schedule": {"name": "vp"}, "kind": "eps"}},
        "do not fit",
    ),
    ({"denoiser": {"net": "mlp", "config": {"depth": 10**9}, "schedule": {"name": "vp"}, "kind": "eps"}}, "do not fit"),
    ({"denoiser": {"net": "mlp", "config": {"hidden": "16"}, "schedule": {"name": "vp"}, "kind": "eps"}}, "hidden"),
    (
        {
            "denoiser": {
                "net": "mlp",
                "config": {"dim": 2, "hidden": 16, "depth": 1},
                "schedule": {"name": "vp"},
                "kind": 3,
            }
        },
        "kind is 3",
    ),
    (
        {
            "denoiser": {
                "net": "mlp",
                "config": {"dim": 2, "hidden": 16, "depth": 1},
                "schedule": {"name": []},
                "kind": "eps",
            }
        },
        ".",
    ),
    ({"settings": {"cache": "/tmp/elsewhere"}}, "setting 'cache', which is the user's"),
    ({"settings": 3}, "settings is no object"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_an_index_with_wrong_values_is_one_line(stranger, changes, said):
    refused(lambda: runs.load(stranger(changes)), said)


@pytest.mark.parametrize(("about", "said"), ABOUT)
def test_what_a_run_says_of_itself_is_checked(stranger, about, said):
    refused(lambda: runs.load(stranger(about=about)), said)


def test_settings_that_a_problem_does_not_have_are_refused(stranger):
    model = runs.load(stranger(about={"definition": None, "settings": {"a\x1b": 1}}))
    refused(lambda: runs.problem_of(model), "has no settings, got")
    refused(lambda: problem("sd:nowhere", settings={"evil": 1}), "cannot be made of its settings")


def test_a_pipe_of_prompts_is_not_read(stranger, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    model = runs.load(
        stranger(about={"definition": None, "problem": "sd:nowhere", "settings": {"prompts": str(tmp_path / "pipe")}})
    )
    refused(lambda: runs.problem_of(model), "it is no file")


def test_a_run_switches_no_pickles_on(stranger):
    folder = stranger(about={"settings": {"unsafe": True}})
    assert runs.load(folder).about["settings"]["unsafe"] is False
    assert runs.load(folder, unsafe=True).about["settings"]["unsafe"] is True


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, '{"step": NaN}', '{"step": 1e999}', "9" * 10_000, "\udcff", ""],
)
def test_json_that_is_none_is_refused(whole, tmp_path, text):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(lambda: runs.load(folder), "is truncated or is not JSON|format is not")


def test_json_that_is_nested_deep_is_refused(stranger):
    folder = stranger()
    index = json.loads((folder / "run.json").read_text())
    del index["seal"]
    deep = json.dumps(index["about"]["denoiser"]["schedule"])
    for _ in range(400):
        deep = f'{{"name": "piecewise-linear", "base": {deep}, "edges": [0, 1]}}'
    index["about"]["denoiser"]["schedule"] = "HERE"
    (folder / "run.json").write_text(json.dumps(index).replace('"HERE"', deep))
    refused(lambda: runs.load(folder), ".")


def shaped(name, change):
    def tensors(found):
        [key] = [key for key in found if key == name]
        return found | {key: change(found[key])}

    return tensors


def resume(folder):
    runs.train("diffusion", TinyMixture(), out=folder, changes=FEW, watch=1, resume=True).finish()


MOMENT = "optimizer.0.0.exp_avg"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (shaped(MOMENT, lambda t: t[:1]), "has exp_avg of shape"),
        (shaped(MOMENT, lambda t: t.reshape(-1)[:1]), "has exp_avg of shape"),
        (shaped(MOMENT, lambda t: t.new_zeros(())), "has exp_avg of shape"),
        (shaped(MOMENT + "_sq", lambda t: t.new_zeros(1000, 1000)), "has exp_avg_sq of shape"),
        (shaped(MOMENT, lambda t: t.long()), "torch.int64"),
        (shaped(MOMENT, lambda t: t * float("nan")), "not finite"),
        (shaped("optimizer.0.0.step", lambda t: t.expand(3)), "has step of shape"),
        (lambda found: {k: v for k, v in found.items() if k != MOMENT}, "has exp_avg_sq, step of a parameter"),
        (lambda found: found | {"optimizer.0.0.exp\x1b": torch.zeros(1)}, "of a parameter"),
        (lambda found: found | {"optimizer.0.x.exp_avg": torch.zeros(1)}, "does not fit"),
        (lambda found: found | {"optimizer.0.exp_avg": torch.zeros(1)}, "does not fit"),
        (shaped("random", lambda t: t[:10]), "does not fit"),
        (shaped("module.student.net.head.bias", lambda t: t * float("inf")), "not finite"),
        (shaped("module.student.net.head.bias", lambda t: t[:1]), "does not fit"),
    ],
)
def test_moments_of_another_shape_are_refused(stranger, tensors, said):
    refused(lambda: resume(stranger(tensors=tensors)), said)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (shaped("module.watch.best.net.head.bias", lambda t: t * float("nan")), "are not finite"),
        (lambda found: {k: v for k, v in found.items() if k != "module.watch.step"}, "module.watch.step"),
        (shaped("module.watch.step", lambda t: t * float("nan")), "NaN|nan"),
        (shaped("module.watch.step", lambda t: t.expand(3)), "."),
        (lambda found: {k: v for k, v in found.items() if "head" not in k}, "do not fit"),
        (lambda found: {}, "."),
    ],
)
def test_weights_that_are_none_are_refused(stranger, tensors, said):
    refused(lambda: runs.load(stranger(tensors=tensors)), said)


def test_a_model_of_other_samples_than_its_problem_is_refused(stranger):
    model = runs.load(stranger(about={"definition": None, "problem": "digits"}))
    refused(lambda: runs.evaluate(model, runs.problem_of(model), n=10), "another's")


@pytest.mark.parametrize("name", ["../x", "/dev/zero", "a/b", "link", 3])
def test_pairs_name_no_file_outside_their_folder(tmp_path, name):
    on = TinyMixture()
    save_pairs(on, on.teacher, Recipe(n=4, steps=1), tmp_path / "pairs", teacher_name="own")
    index = json.loads((tmp_path / "pairs" / "pairs.json").read_text())
    del index["seal"]
    (tmp_path / "x").write_bytes((tmp_path / "pairs" / "pairs-00000.safetensors").read_bytes())
    Path(tmp_path / "pairs" / "link").symlink_to(tmp_path / "x")
    [sha256] = index["files"].values()
    index["files"] = {str(name): sha256} if name != 3 else [3]
    write_index(tmp_path / "pairs" / "pairs.json", index)
    refused(lambda: load_pairs(tmp_path / "pairs"), "not in it|damaged")


def test_a_module_that_came_with_a_run_is_not_imported(stranger, tmp_path, monkeypatch):
    (tmp_path / "came_along.py").write_text("open('it-ran', 'w').close()\nfrom toydiff import VP as Mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    config = {"name": "import", "path": "came_along:Mine", "settings": {}}
    for read in (lambda: schedule_from_config(config), lambda: schedule_from_config(PIECES | {"base": config})):
        with pytest.raises(ValueError, match=r"not in the current folder: import it first, or set PYTHONPATH"):
            read()
    assert not (tmp_path / "it-ran").exists()
    schedule("came_along:Mine")  # the user names it
    assert (tmp_path / "it-ran").exists()
    assert repr(schedule_from_config(config)) == repr(VP())
