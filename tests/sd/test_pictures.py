"""Pictures with captions in tar shards, parquet files and tables; bad ones refused by name, or left out and counted."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from toydiff.adapters.images import read_image
from toydiff.adapters.pictures import pictures
from toydiff.cli import command as cli
from toydiff.problems import problem

SIZE = (16, 16)
RED, BLUE = (250, 0, 0), (0, 0, 250)


def packed(colour, kind="PNG", mode="RGB", **settings):
    """The bytes of a picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (20, 16), colour).convert(mode).save(out, kind, **settings)
    return out.getvalue()


def shard(file, members, cut=None):
    """A tar file of these members, {name: bytes}; cut: its first so many bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    file.write_bytes(file.read_bytes()[:cut])
    return file


def colours(found):
    """[(caption, mean of each channel in bytes)]."""
    return [(text, (read_image(one, SIZE).mean((1, 2)) * 255).round().int().tolist()) for one, text in found]


WHOLE = {
    "a/0.jpg": packed(RED, "JPEG", quality=100),
    "a/0.txt": b"\xef\xbb\xbfred\n",
    "a/0.json": b'{"caption": "not this"}',
    "a/1.PNG": packed(BLUE),
    "a/1.json": b'{"text": "blue", "width": 20}',
    "a/__meta__": b"",
}


def test_tar_shards_by_folder_file_and_pattern(tmp_path):
    shard(tmp_path / "shards" / "000.tar", WHOLE)
    shard(tmp_path / "shards" / "001.tar", {"b.webp": packed(BLUE, "WEBP", lossless=True), "b.txt": b"third"})
    (tmp_path / "shards" / "000.parquet").write_bytes(b"the table of a downloader, not read")
    want = ["red", "blue", "third"]
    for data in ("shards", "shards/{000..001}.tar", "shards/{000,001}.tar", "shards/*.tar"):
        assert [text for _, text in pictures(tmp_path / data)] == want
    found = colours(pictures(tmp_path / "shards" / "000.tar"))
    assert found[1] == ("blue", list(BLUE))
    assert np.allclose(found[0][1], RED, atol=3)
    with pytest.raises(ValueError, match=r"there is no file '.*002.tar', of the pattern"):
        pictures(tmp_path / "shards" / "{000..002}.tar")
    with pytest.raises(
        ValueError, match=r"there is no folder of images at .*002.tar., and no tar shard or parquet file"
    ):
        pictures(tmp_path / "shards" / "002.tar")
    with pytest.raises(ValueError, match="counts from 5 to 1"):
        pictures(tmp_path / "{5..1}.tar")
    (tmp_path / "shards" / "a.png").write_bytes(packed(RED))
    with pytest.raises(ValueError, match=r"holds pictures and '000.tar' too"):
        pictures(tmp_path / "shards")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.jpg": b"x"}, "the sample 'a' in .* has no caption"),
        ({"a.txt": b"x"}, "the sample 'a' in .* has no picture"),
        ({"a.jpg": b"x", "a.png": b"x", "a.txt": b"x"}, "has 2 pictures"),
        ({"a.jpg": b"x", "a.txt": b"\xff\xfe\xff"}, "no text in UTF-8"),
        ({"a.jpg": b"x", "a.json": b"[1]"}, "its .json has no text or caption"),
        ({"a.jpg": b"x", "a.json": b'{"text": "a", "caption": "b"}'}, "or both"),
        ({"a.jpg": b"x", "a.json": b'{"text": "\\ud83d"}'}, "no text in UTF-8"),
        ({"a.jpg": b"x", "a.json": b'{"text": 5}'}, "must be text"),
    ],
)
def test_a_bad_sample_of_a_shard_is_refused_or_left_out(tmp_path, members, said):
    file = shard(tmp_path / "0.tar", WHOLE | members)
    with pytest.raises(ValueError, match=said):
        pictures(file)
    bad = []
    assert [text for _, text in pictures(file, bad)] == ["red", "blue"]
    assert len(bad) == 1
    with pytest.raises(ValueError, match=f"there are no pictures in .*; the first left out: .*{said}"):
        pictures(shard(tmp_path / "1.tar", members), [])


def test_a_shard_that_is_cut_off_or_none(tmp_path):
    members = {f"{i}.{kind}": data for i in range(3) for kind, data in (("png", packed(RED)), ("txt", b"red"))}
    ends = len(shard(tmp_path / "whole.tar", members).read_bytes())
    starts = 512 * 2 * 2  # each member has a header and a block
    for cut, kept in ((starts, 1), (starts + 100, 1), (starts + 600, 1), (starts + 1100, 1), (6 * 1024, 3)):
        file = shard(tmp_path / "cut.tar", members, cut)
        with pytest.raises(ValueError, match=r"is cut off after|has no"):
            pictures(file)
        bad = []
        assert [text for _, text in pictures(file, bad)] == ["red"] * kept
        assert any("is cut off after" in one for one in bad)
    assert ends > 6 * 1024
    for data in (b"", b"no tar file" * 100):
        (tmp_path / "cut.tar").write_bytes(data)
        with pytest.raises(ValueError, match=r"cut.tar' cannot be read as a tar file"):
            pictures(tmp_path / "cut.tar")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "0.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'0.tar.gz' in .* is compressed"):
        pictures(tmp_path / "packed")


def test_parquet_files(tmp_path):
    """As the library datasets writes them, and with plain bytes; each group of rows is read where it is needed."""
    images = [{"bytes": packed(colour), "path": None} for colour in (RED, BLUE, RED)]
    pq.write_table(pa.table({"image": images, "text": ["a", "b", "c"]}), tmp_path / "0.parquet", row_group_size=2)
    pq.write_table(pa.table({"jpg": [packed(BLUE)], "caption": ["d"]}), tmp_path / "1.parquet")
    found = colours(pictures(tmp_path))
    assert found == [("a", list(RED)), ("b", list(BLUE)), ("c", list(RED)), ("d", list(BLUE))]
    for columns, said in {
        "image": "has no columns of captions: it has image",
        "text": "has no columns of pictures: it has text",
        "image text caption": "has 2 columns of captions",
    }.items():
        pq.write_table(pa.table({name: ["x"] for name in columns.split()}), tmp_path / "1.parquet")
        with pytest.raises(ValueError, match=said):
            pictures(tmp_path)
    empty = [{"bytes": None, "path": "gone.png"}, {"bytes": packed(RED), "path": None}]
    pq.write_table(pa.table({"image": empty, "text": ["a", None]}), tmp_path / "1.parquet")
    with pytest.raises(ValueError, match=r"row 1 of '.*1.parquet' has no caption"):
        pictures(tmp_path / "1.parquet")
    [(nothing, _)] = pictures(tmp_path / "1.parquet", [])
    with pytest.raises(ValueError, match=r"1.parquet: row 0' cannot be read as an image"):
        read_image(nothing, SIZE)
    (tmp_path / "1.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"1.parquet' cannot be read as a parquet file"):
        pictures(tmp_path)


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'a.parquet' needs the extra data: pip install 'toydiff\[data\]'"):
        pictures(tmp_path)


def test_a_folder_as_it_comes(tmp_path):
    """Endings in capitals, a table in parquet, and pictures of all modes, one of them turned."""
    turned = Image.Exif()
    turned[0x0112] = 6
    tall = Image.new("RGB", (40, 16), RED)
    tall.paste(BLUE, (20, 0, 40, 16))
    tall.save(tmp_path / "A.JPG", exif=turned, quality=100)
    (tmp_path / "A.TXT").write_text("turned")
    for name, mode in {"b.JPEG": "CMYK", "c.tif": "L"}.items():
        Image.new("RGB", (20, 16), "white").convert(mode).save(tmp_path / name)
    Image.new("RGBA", (20, 16), (0, 0, 0, 0)).save(tmp_path / "d.png")
    names = ["b.JPEG", "c.tif", "d.png"]
    pq.write_table(pa.table({"file_name": names, "caption": ["ink", "grey", "clear"]}), tmp_path / "metadata.parquet")
    found = {text: one for one, text in pictures(tmp_path)}
    assert set(found) == {"turned", "ink", "grey", "clear"}
    for text in ("ink", "grey", "clear"):
        assert float(read_image(found[text], SIZE).min()) > 0.98
    upper, lower = read_image(found["turned"], (40, 16)).split(20, 1)
    assert float(upper[0].mean()) > 0.9 > 0.1 > float(lower[0].mean())
    pq.write_table(pa.table({"file_name": ["z.png"], "caption": ["gone"]}), tmp_path / "metadata.parquet")
    with pytest.raises(ValueError, match="has no caption"):
        pictures(tmp_path)


# ---- bad files


@pytest.fixture
def with_bad(pictures, tmp_path):
    """A folder of eight good pictures, and bad ones: cut off, empty, without a caption, of another format, gone."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file in pictures.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(photo).save(out, "JPEG")
    (folder / "cut.jpg").write_bytes(out.getvalue()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "lone.png").write_bytes(packed(RED))
    (folder / "photo.heic").write_bytes(b"")
    for name in ("cut", "empty", "gone"):
        (folder / f"{name}.txt").write_text("a bad one")
    return folder


def train(checkpoint, data, out, *more):
    words = ["train", "diffusion", "--problem", "sd", "--model", checkpoint, "--data", str(data), "--rank", "2"]
    return cli.main([*words, "--updates", "1", "--batch", "2", "--out", str(out), *more])


def test_bad_pictures_are_refused_by_name_or_counted(checkpoints, with_bad, pictures, tmp_path, capsys):
    for name in ("photo.heic", "lone.png", "gone.txt", "cut.jpg", "empty.png"):
        assert train(checkpoints["sd"], with_bad, tmp_path / "run") == 2
        error = capsys.readouterr().err.strip().split("\n")[-1]
        assert name in error
        if name == "photo.heic":
            assert train(checkpoints["sd"], with_bad, tmp_path / "skipped", "--skip-bad", "--json", "-") == 0
            assert json.loads(capsys.readouterr().out)["skipped"] == 5
            again = train(checkpoints["sd"], with_bad, tmp_path / "again", "--skip-bad")
            assert again == 0
            assert "left out: 5 bad items; the first: the picture" in capsys.readouterr().out
        (with_bad / name).unlink()
        if name in ("cut.jpg", "empty.png"):
            (with_bad / name).with_suffix(".txt").unlink()
    settings = {"rank": 2, "cache": tmp_path / "skipped" / "cache"}
    a, b = (
        problem(f"sd:{checkpoints['sd']}", settings=settings | {"data": str(data)}) for data in (with_bad, pictures)
    )
    assert torch.equal(a.data(8, 0)[0], b.data(8, 0)[0])
    for data in (with_bad, tmp_path / "nothing.png"):
        for file in with_bad.iterdir():
            file.write_bytes(b"")
        assert train(checkpoints["sd"], data, tmp_path / "none", "--skip-bad") == 2
        assert capsys.readouterr().err.strip().count("\n") == 0
    assert not (tmp_path / "none" / "run.json").exists()
    words = [
        "train",
        "vsd",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--skip-bad",
        "--out",
        str(tmp_path / "x"),
    ]
    assert cli.main(words) == 2
    assert "bad pictures can be skipped where there are pictures (--data)" in capsys.readouterr().err


def test_training_from_shards(checkpoints, tmp_path, capsys):
    members = {f"{i}.{kind}": data for i in range(3) for kind, data in (("png", packed(RED)), ("txt", b"red"))}
    shard(tmp_path / "0.tar", members)
    assert train(checkpoints["sd"], tmp_path / "{0..0}.tar", tmp_path / "run") == 0
    assert cli.main(["evaluate", str(tmp_path / "run"), "--steps", "1", "--n", "4"]) == 0
    capsys.readouterr()
