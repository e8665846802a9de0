"""Folders of pictures and captions as people have them: transparent, damaged, linked, named twice, of other formats."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import tiny_sd
import torch
from PIL import Image

from toydiff.adapters.images import read_image
from toydiff.adapters.pictures import OTHERS, SUFFIXES, image_folder
from toydiff.adapters.text import Encoded, Prompts, prompt_id
from toydiff.cli import command as cli
from toydiff.problems.stable_diffusion import StableDiffusionProblem

RED = (255, 0, 0)


def pixel(path):
    return [round(v * 255) for v in read_image(path, (16, 16))[:, 8, 8].tolist()]


def rows(folder, *lines):
    (folder / "metadata.jsonl").write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    )


def picture(path, text=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), RED).save(path)
    if text is not None:
        path.with_suffix(".txt").write_text(text)
    return path


# ---- transparent pictures


@pytest.mark.parametrize("hidden", [(0, 0, 0), (240, 30, 10)])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_what_is_transparent_is_white(tmp_path, name, hidden):
    Image.new("RGBA", (16, 16), (*hidden, 0)).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    assert pixel(tmp_path / name) == [255, 255, 255]


def test_every_form_of_transparency(tmp_path):
    file = tmp_path / "a.png"
    Image.new("LA", (16, 16), (0, 0)).save(file)
    assert pixel(file) == [255] * 3
    Image.new("LA", (16, 16), (100, 255)).save(file)
    assert pixel(file) == [100] * 3
    Image.new("RGBA", (16, 16), (*RED, 128)).save(file)
    assert pixel(file) == [255, 127, 127]
    for mode, value in (("RGB", RED), ("L", 7)):
        Image.new(mode, (16, 16), value).save(file, transparency=value)
        assert pixel(file) == [255] * 3
        Image.new(mode, (16, 16), value).save(file, transparency=0 if mode == "L" else (0, 0, 0))
        assert pixel(file) == (list(RED) if mode == "RGB" else [7] * 3)
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, *RED])
    for how, want in ((1, [255] * 3), (0, list(RED)), (bytes([255, 0]), [255] * 3), (bytes([0, 128]), [255, 127, 127])):
        palette.save(file, transparency=how)
        assert pixel(file) == want
    palette.save(tmp_path / "a.gif", transparency=1)
    assert pixel(tmp_path / "a.gif") == [255] * 3
    Image.fromarray(np.full((16, 16), 4660, np.uint16)).save(file)
    assert pixel(file) == [18] * 3
    deep = file.read_bytes()
    clear = b"tRNS" + struct.pack(">H", 4660)
    file.write_bytes(deep[:33] + struct.pack(">I", 2) + clear + struct.pack(">I", zlib.crc32(clear)) + deep[33:])
    assert pixel(file) == [255] * 3


def test_a_picture_without_transparency_has_the_same_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    Image.fromarray(noise).convert("RGBA").save(tmp_path / "b.png")
    want = torch.from_numpy(noise).permute(2, 0, 1).float() / 255
    assert torch.equal(read_image(tmp_path / "a.png", (16, 16)), want)
    assert torch.equal(read_image(tmp_path / "b.png", (16, 16)), want)


# ---- damaged files


def test_damaged_pictures_are_one_line_with_the_files_name(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(file, exif=b"Exif\x00\x00broken")
    with pytest.raises(ValueError, match=r"a.png' cannot be read as an image: not a TIFF file"):
        read_image(file, (16, 16))
    Image.new("RGB", (16, 16)).save(tmp_path / "a.webp", exif=b"Exif\x00\x00broken")
    with pytest.raises(ValueError, match=r"a.webp' cannot be read as an image"):
        read_image(tmp_path / "a.webp", (16, 16))
    good, rng = picture(file).read_bytes(), np.random.default_rng(0)
    text = zlib.compress(b"x" * (2**20 + 1))
    chunk = b"iTXt" + b"k\0\1\0\0\0" + text
    bomb = good[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + good[33:]
    mutated = [bomb, good[:20], b"", good[:33] + b"\0\0\0\0\0\0\0\0" + good[33:]]
    for _ in range(300):
        bytes_ = bytearray(good)
        for i in rng.integers(8, len(good), 3):
            bytes_[i] = rng.integers(0, 256)
        mutated.append(bytes(bytes_))
    said = []
    for content in mutated:
        file.write_bytes(content)
        try:
            read_image(file, (16, 16))
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(line.startswith(f"{str(file)!r} cannot be read as an image: ") and "\n" not in line for line in said)


@pytest.mark.slow
def test_a_damaged_picture_in_the_command(checkpoints, tmp_path, capsys):
    folder = tmp_path / "pictures"
    picture(folder / "a.png", "one")
    picture(folder / "b.png", "two")
    Image.new("RGB", (16, 16)).save(folder / "b.png", exif=b"Exif\x00\x00broken")
    assert (
        cli.main(
            [
                "train",
                "cd",
                "--problem",
                "sd",
                "--model",
                checkpoints["sd"],
                "--data",
                str(folder),
                "--updates",
                "1",
                "--batch",
                "2",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert "b.png' cannot be read as an image" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_several_pictures_in_one_file_are_refused(tmp_path, name):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="it holds 2 pictures"):
        read_image(tmp_path / name, (16, 16))


def test_numbers_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="fractions of an unknown range"):
        read_image(tmp_path / "a.tif", (16, 16))
    Image.fromarray(np.full((16, 16), 2**20, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="more than 16 bits"):
        read_image(tmp_path / "a.tif", (16, 16))


# ---- words that are none


def test_half_a_surrogate_pair_is_named(checkpoints, tmp_path, capsys):
    picture(tmp_path / "a.png")
    rows(tmp_path, '{"file_name": "a.png", "text": "a \\ud83d"}\n')
    with pytest.raises(
        ValueError, match=r"the caption in line 1 of '.*metadata.jsonl' 'a \\ud83d' is no text in UTF-8"
    ):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"the prompt 'a \\udcff' is no text in UTF-8"):
        prompt_id("a \udcff")
    with pytest.raises(ValueError, match=r"the prompt 'a \\udcff' is no text in UTF-8"):
        StableDiffusionProblem(checkpoints["sd"], prompts=["a \udcff"])
    for words in (["--prompt", "a \udcff"], ["--prompt", "a", "--negative-prompt", "b\ud83d"]):
        assert (
            cli.main(
                ["sample", "--problem", "sd", "--model", checkpoints["sd"], *words, "--out", str(tmp_path / "x.png")]
            )
            == 2
        )
        error = capsys.readouterr().err
        assert "is no text in UTF-8" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


# ---- what a folder holds


def test_all_formats_that_are_read(tmp_path):
    for suffix in SUFFIXES:
        try:
            picture(tmp_path / f"a{suffix}")
        except (KeyError, OSError, ValueError):
            assert suffix == ".avif"  # a Pillow without its library
            continue
        assert pixel(tmp_path / f"a{suffix}")[0] > 240
    (tmp_path / "a.txt").write_text("red")
    assert len(image_folder(tmp_path)) >= len(SUFFIXES) - 1


@pytest.mark.parametrize("name", ["b.heic", "b.SVG", "b.psd", "b.tga"])
def test_a_picture_of_another_format_is_refused(tmp_path, name):
    picture(tmp_path / "a.png", "red")
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "._a.png").write_text("a Mac's own")
    assert len(image_folder(tmp_path)) == 1
    (tmp_path / name).write_bytes(b"")
    assert name[1:].lower() in OTHERS.split()
    with pytest.raises(ValueError, match=f"{name}' is of a format that is not read"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [{"file_name": "a.png", "text": "one"}, {"file_name": "b.png", "text": "two"}],
            r"line 2 of .* is of '.*b.png', and there is no such picture",
        ),
        ([{"file_name": "a.png", "text": "one"}, {"file_name": "notes.md", "text": "two"}], "there is no such picture"),
        (
            [{"file_name": "a.png", "text": "one"}, "\n", {"file_name": "./a.png", "text": "two"}],
            r"line 3 of .* is of './a.png', which line 1 of .* has described already",
        ),
        ([{"file_name": "a.png", "text": "one"}, {"file_name": "a.png", "text": "one"}], "has described already"),
        ([{"file_name": "../a.png", "text": "one"}, {"file_name": "a.png", "text": "one"}], "there is no such picture"),
        ([{"file_name": 5, "text": "one"}], "is not like"),
        ([{"file_name": "a\0.png", "text": "one"}], "has no caption"),
        (["[" * 100_000 + "\n"], "is not like"),
    ],
)
def test_rows_that_are_not_used_are_refused(tmp_path, lines, said):
    picture(tmp_path / "a.png")
    (tmp_path / "notes.md").write_text("no picture")
    rows(tmp_path, *lines)
    with pytest.raises(ValueError, match=said):
        image_folder(tmp_path)


def test_two_captions_of_one_picture(tmp_path):
    picture(tmp_path / "a.png", "red")
    rows(tmp_path, {"file_name": "a.png", "text": "red"})
    assert image_folder(tmp_path) == [(tmp_path / "a.png", "red")]
    rows(tmp_path, {"file_name": "a.png", "text": "blue"})
    with pytest.raises(ValueError, match=r"has two captions, one in line 1 of '.*metadata.jsonl' and one in 'a.txt'"):
        image_folder(tmp_path)


def test_captions_in_a_table(tmp_path):
    """metadata.csv, and the column or key "caption", as data sets on the hub have them."""
    for name in ("a", "b", "c"):
        picture(tmp_path / "in" / f"{name}.png")
    rows(tmp_path, {"file_name": "in/c.png", "caption": "third", "text": None})
    table = tmp_path / "metadata.csv"
    table.write_text('file_name,caption,width\r\nin/a.png,"a fox, red\nand ""quick""",8\r\n\r\nin/b.png,,8\r\n')
    assert [text for _, text in image_folder(tmp_path)] == ['a fox, red\nand "quick"', "", "third"]
    for wrong, said in {
        "file_name,words\nin/a.png,x\n": r"'.*metadata.csv' lacks the column text or caption; it has file_name, words",
        "file_name,text,caption\nin/a.png,x,y\n": "line 2 of .* is not like",
        "in/a.png,x\n": "lacks the column file_name; it has in/a.png, x",
        'file_name,text\nin/a.png,"x\n': "line 2 of .* cannot be read as CSV",
        "file_name,text\nin/z.png,x\n": "no caption|there is no such picture",
        "file_name,text\nin/c.png,x\n": "has described already",
    }.items():
        table.write_text(wrong)
        with pytest.raises(ValueError, match=said):
            image_folder(tmp_path)


def test_links_are_followed_once(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    picture(outside / "b.png")
    rows(outside, {"file_name": "b.png", "text": "linked"})
    picture(folder / "a.png", "here")
    os.symlink(outside, folder / "link")
    os.symlink(outside, folder / "second")
    os.symlink(folder, folder / "round")
    assert image_folder(folder) == [(folder / "a.png", "here"), (folder / "link" / "b.png", "linked")]
    # as in the hub's cache: two names of one file are two pictures, each with its caption
    blob = picture(tmp_path / "blobs" / "x.png")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("one", "two"):
        os.symlink(blob, snapshot / f"{name}.png")
    rows(snapshot, *({"file_name": f"{name}.png", "text": name} for name in ("one", "two")))
    assert [text for _, text in image_folder(snapshot)] == ["one", "two"]
    os.symlink(tmp_path / "gone.png", folder / "c.png")
    with pytest.raises(ValueError, match=r"c.png' is a link that leads nowhere"):
        image_folder(folder)


def test_the_problem_refuses_them_too(checkpoints, tmp_path):
    tiny_sd.silent()
    picture(tmp_path / "a.png", "red")
    picture(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png' has no caption"):
        StableDiffusionProblem(checkpoints["sd"], data=tmp_path)


# ---- large pictures, and captions without pictures


def test_a_large_picture_prints_nothing_and_a_bomb_is_one_line(tmp_path, monkeypatch, recwarn):
    file = picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # the picture has 256
    assert read_image(file, (16, 16)).shape == (3, 16, 16)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a.png' cannot be read as an image: Image size \(256 pixels\) exceeds limit"):
        read_image(file, (16, 16))


def test_a_caption_without_its_picture(tmp_path):
    picture(tmp_path / "a.png", "one")
    (tmp_path / "b.txt").write_text("two")
    with pytest.raises(ValueError, match=r"there is no picture of the caption '.*b.txt'"):
        image_folder(tmp_path)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "c.txt").write_text("no captions here")
    assert len(image_folder(tmp_path)) == 1


# ---- what is kept of prompts


def test_kept_prompts_follow_their_labels_encoders_and_mode():
    weight = torch.nn.Parameter(torch.ones(2, 3))
    prompts = Prompts(
        lambda texts: Encoded((weight.detach() * len((texts or [""])[0])).expand(1, 2, 3), None),
        lambda text: None,
        lambda: (id(weight), weight._version),
    )
    x = torch.zeros(1, 4)
    with torch.inference_mode():
        labels = prompts.add(["a"])
        assert prompts.rows(labels, x).hidden.unique() == 1
        labels.copy_(prompts.add(["four"]))
        assert prompts.rows(labels, x).hidden.unique() == 4
    labels = prompts.add(["four"])
    (prompts.rows(labels, x).hidden @ torch.ones(3, requires_grad=True)).sum().backward()
    labels.data.copy_(prompts.add(["a"]))
    assert prompts.rows(labels, x).hidden.unique() == 1
    with torch.no_grad():
        weight.mul_(2)
    assert prompts.rows(prompts.add(["a"]), x).hidden.unique() == 2
    weight = torch.nn.Parameter(torch.full((2, 3), 5.0))
    assert prompts.rows(prompts.add(["a"]), x).hidden.unique() == 5
