"""Runs and pairs by the command: what it refuses before the work, and what it leaves."""

import os
from pathlib import Path

import pytest
from test_cli import run

TINY = ["--updates", 2, "--batch", 16]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", [["pairs", "--n", 10, "--steps", 1], ["train", "diffusion", *TINY]])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(words, capsys):
    assert run(*words, "--problem", "mixture", "--out", "out", "--json", "/dev/full") == 2
    assert "No space left" in capsys.readouterr().err
    assert os.listdir() == []
    assert run(*words, "--problem", "mixture", "--out", "out", "--json", "/dev/null") == 0
    assert Path("out").is_dir()
