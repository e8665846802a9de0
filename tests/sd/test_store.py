"""Rows on disk that only grow: what a killed process leaves, what two processes add, and what is not held in memory."""

import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from toydiff.adapters import text
from toydiff.adapters.store import Store
from toydiff.adapters.text import Encoded, Prompts, prompt_id


def row(key):
    """The row of a key, by which it is known."""
    return {"a": torch.full((2, 3), float(key)), "b": torch.full((4,), -float(key))}


def filled(store, keys):
    rows = [row(key) for key in keys]
    store.add(np.array(keys), {name: torch.stack([one[name] for one in rows]) for name in ("a", "b")})


def check(store, keys):
    places = store.places(np.array(keys))
    assert (places >= 0).all()
    found = store.rows(places)
    for i, key in enumerate(keys):
        assert torch.equal(found["a"][i], row(key)["a"])
        assert torch.equal(found["b"][i], row(key)["b"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_come_back_as_they_were(tmp_path, dtype):
    store, x = Store(tmp_path / "rows"), torch.randn(5, 3, 7).to(dtype)
    assert store.places(np.array([1, 2])).tolist() == [-1, -1]
    store.add(np.arange(5) + 2**62, {"x": x, "y": x.flatten(1)[:, ::2]})
    for one in (store, Store(tmp_path / "rows")):
        places = one.places(np.array([2**62 + 4, 7, 2**62]))
        assert places.tolist() == [4, -1, 0]
        found = one.rows(places[[0, 2, 0]])
        assert torch.equal(found["x"], x[[4, 0, 4]])
        assert torch.equal(found["y"], x.flatten(1)[[4, 0, 4], ::2])
    with pytest.raises(ValueError, match="remove it"):
        store.add(np.array([1]), {"x": x[:1]})


@pytest.mark.parametrize("cut", ["rows", "keys"])
def test_what_was_cut_off_is_added_again(tmp_path, cut):
    """A machine that lost its power may have written one file further than the other."""
    filled(Store(tmp_path / "rows"), [1, 2, 3])
    file = tmp_path / f"rows.{cut}"
    os.truncate(file, file.stat().st_size - 5)
    store = Store(tmp_path / "rows")
    check(store, [1, 2])
    assert store.places(np.array([3])) == [-1]
    filled(store, [3, 4])
    check(Store(tmp_path / "rows"), [1, 2, 3, 4])


def test_what_was_removed_is_not_there(tmp_path):
    """A run's folder, removed in a long session: what was encoded for it is encoded again."""
    store = Store(tmp_path / "run" / "rows")
    filled(store, [1, 2])
    shutil.rmtree(tmp_path / "run")
    assert store.places(np.array([1, 2])).tolist() == [-1, -1]
    (tmp_path / "run").mkdir()
    filled(store, [2, 3])
    for one in (store, Store(tmp_path / "run" / "rows")):
        check(one, [2, 3])


def test_a_damaged_store_is_one_line(tmp_path):
    filled(Store(tmp_path / "rows"), [1])
    for words in ("{", '{"dtype": "float32", "shapes": {"a": [-1]}}', '{"dtype": "int3", "shapes": {"a": [1]}}'):
        (tmp_path / "rows.json").write_text(words)
        with pytest.raises(ValueError, match=r"rows.json' is damaged") as error:
            Store(tmp_path / "rows")
        assert "\n" not in str(error.value)


def _fill_forever(place):
    store = Store(place)
    for key in range(10**6):
        if store.places(np.array([key]))[0] < 0:
            filled(store, [key])


def test_a_killed_process_leaves_whole_rows(tmp_path):
    """kill -9 at ten moments, by two processes at once; each goes on where the others were killed."""
    filled(Store(tmp_path / "rows"), [10**7])
    context, before = multiprocessing.get_context("fork"), 0
    for k in range(5):
        workers = [context.Process(target=_fill_forever, args=(tmp_path / "rows",)) for _ in range(2)]
        for worker in workers:
            worker.start()
        time.sleep(0.15 + 0.013 * k)
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        store = Store(tmp_path / "rows")
        check(store, store._keys.tolist())
        assert len(store) > before
        before = len(store)
    assert len(set(store._keys.tolist())) >= before - 20  # two that encode the same at once may both keep it


# ---- prompts on disk


def encoder(calls):
    def encode(texts):
        calls.append(list(texts or []))
        return Encoded(torch.stack([torch.full((3, 4), len(t) + 0.1) for t in texts or [""]]), None)

    return encode


def test_prompts_are_read_from_their_folder_and_not_encoded_again(tmp_path, monkeypatch):
    calls, like = [], torch.zeros(3, 1)
    words = [("a" * n) for n in range(1, 101)]
    first = Prompts(encoder(calls), lambda text: None)
    labels = first.add([*words, *words], cache=tmp_path, key="k")
    assert sum(map(len, calls)) == 100
    assert labels.tolist() == 2 * [prompt_id(word) for word in words]
    assert not first._rows  # on disk, and there alone
    assert torch.equal(first.rows(labels[[0, 99, 5]], like).hidden[:, 0, 0], torch.tensor([1.1, 100.1, 6.1]))
    second = Prompts(encoder(calls), lambda text: None)
    second.add([*words, "one more"], cache=tmp_path, key="k")
    assert calls[-1] == ["one more"]
    # encoders that are others, or were changed, encode it again
    second.add(words[:3], cache=tmp_path, key="other")
    assert calls[-1] == ["one more"]  # this process has them
    second.forget(all_=True)
    second.add(words[:3], cache=tmp_path, key="other")
    assert calls[-1] == words[:3]
    # what is too long is so whoever kept it
    third = Prompts(encoder(calls), lambda text: "too long" if len(text) > 50 else None)
    with pytest.raises(ValueError, match="too long"):
        third.add(words, cache=tmp_path, key="k")
    third.add(words, cache=tmp_path, key="k", cut=True)


def test_many_prompts_on_disk_are_in_half_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "IN_FULL", 40 * 48)  # 40 prompts; 32 are encoded at once
    words = [("a" * n) for n in range(1, 101)]
    for _ in range(2):
        prompts = Prompts(encoder([]), lambda text: None)
        found = prompts.rows(prompts.add(words, cache=tmp_path, key="k"), torch.zeros(100, 1)).hidden[:, 0, 0]
        want = torch.arange(1, 101) + 0.1
        assert torch.equal(found[:32], want[:32])
        assert torch.equal(found[32:], want[32:].half().float())
