"""Pictures: every pixel as it is in the file, and every file that is none refused by name."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qkv.data.pictures import GAP, described, form_of, grid, only_picture, read_pictures, write_picture
from qkv.error import QkvError
from qkv.spec.data import Pictures


def drawn(number: int, *shape: int) -> np.ndarray:
    """Pictures of random pixels."""
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def png(path: Path, pixels: np.ndarray, mode: str | None = None) -> str:
    Image.fromarray(pixels, mode).save(path)
    return str(path)


def npy(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


def idx(pictures: np.ndarray) -> bytes:
    """The layout of MNIST: a magic number, the three sizes with their highest byte first, the pixels."""
    return b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in pictures.shape) + pictures.tobytes()


def store(path: Path, raw: bytes) -> str:
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def read(*files: str) -> np.ndarray:
    return np.stack(list(read_pictures(files)))


# What is read


def test_a_png_in_grey_and_one_in_colour_are_their_pixels(tmp_path: Path) -> None:
    grey, colour = drawn(1, 5, 7), drawn(2, 5, 7, 3)
    assert (read(png(tmp_path / "g.png", grey)) == grey[None, :, :, None]).all()
    assert (read(png(tmp_path / "c.png", colour)) == colour[None]).all()
    assert form_of([str(tmp_path / "c.png")]) == Pictures(5, 7, 3)


def test_a_folder_is_its_pngs_by_name_and_nothing_else(tmp_path: Path) -> None:
    pixels = drawn(3, 3, 4, 4)
    for name, picture in zip(("b.png", "a.PNG", "c.png"), pixels, strict=True):
        png(tmp_path / name, picture)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert (read(str(tmp_path))[..., 0] == pixels[[1, 0, 2]]).all()
    (tmp_path / "empty").mkdir()
    with pytest.raises(QkvError, match=r"the folder .*empty holds no file whose name ends in \.png"):
        read(str(tmp_path / "empty"))


@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 4, 5, 1), (6, 4, 5, 3)])
@pytest.mark.parametrize("packed", [False, True])
def test_an_array_of_numpy_is_its_pictures(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    array = drawn(4, *shape)
    path = npy(tmp_path / "a.npy", array)
    if packed:
        path = store(tmp_path / "a.npy.gz", Path(path).read_bytes())
    found = read(path)
    assert found.dtype == np.uint8 and (found == array.reshape(6, 4, 5, -1)).all()


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"])
def test_an_idx_file_is_its_pictures(tmp_path: Path, name: str) -> None:
    pictures = drawn(5, 9, 3, 4)
    assert (read(store(tmp_path / name, idx(pictures)))[..., 0] == pictures).all()


def test_files_of_several_kinds_follow_each_other(tmp_path: Path) -> None:
    array, one, images = drawn(6, 2, 4, 4), drawn(7, 4, 4), drawn(8, 2, 4, 4)
    files = npy(tmp_path / "a.npy", array), png(tmp_path / "b.png", one), store(tmp_path / "c", idx(images))
    assert (read(*files)[..., 0] == np.concatenate([array, one[None], images])).all()


def test_mnist_is_read_whole(data_dir: Path) -> None:
    path = data_dir / "mnist_t10k" / "t10k-images-idx3-ubyte.gz"
    if not path.is_file():
        pytest.skip("needs mnist_t10k in QKV_DATA")
    found = read(str(path))
    assert found.shape == (10_000, 28, 28, 1)
    assert 0.1 < (found / 255).mean() < 0.15, "a tenth of the ink, as is known of it"
    assert (found[:, 0] == 0).mean() > 0.99, "and a margin"


# What is written


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_that_is_written_is_read_again(tmp_path: Path, channels: int) -> None:
    picture = drawn(9, 6, 5, channels)
    write_picture(tmp_path / "p.png", picture)
    assert (only_picture(str(tmp_path / "p.png"), Pictures(6, 5, channels)) == picture).all()
    with pytest.raises(QkvError, match=r"cannot be written: No such file"):
        write_picture(tmp_path / "nowhere" / "p.png", picture)


def test_a_grid_has_every_picture_in_its_place() -> None:
    pictures = [drawn(number, 3, 4, 1) for number in range(5)]
    sheet = grid(pictures)
    assert sheet.shape == (2 * 3 + GAP, 3 * 4 + 2 * GAP, 1)
    for place, picture in enumerate(pictures):
        top, left = place // 3 * (3 + GAP), place % 3 * (4 + GAP)
        assert (sheet[top : top + 3, left : left + 4] == picture).all()
    assert (grid(pictures[:1]) == pictures[0]).all()


# What is refused


def complaint(*files: str, form: Pictures | None = None) -> str:
    with pytest.raises(QkvError) as caught:
        list(read_pictures(files, form))
    return str(caught.value)


def test_pictures_of_another_size_are_named_with_their_number(tmp_path: Path) -> None:
    files = npy(tmp_path / "a.npy", drawn(1, 3, 8, 8)), png(tmp_path / "b.png", drawn(2, 9, 8))
    said = complaint(*files)
    assert "picture 1 of" in said and "b.png is 9 pixels high and 8 wide in grey, but the first, in" in said
    assert "a.npy, is 8 pixels high and 8 wide in grey: all must be of one size" in said
    said = complaint(files[0], form=Pictures(8, 8, 3))
    assert "but the pictures of this run are 8 pixels high and 8 wide in colour" in said
    assert described(Pictures(8, 9, 3)) == "8 pixels high and 9 wide in colour"


def palette(path: Path) -> None:
    Image.fromarray(drawn(1, 4, 4)).convert("P").save(path)


def clear(path: Path) -> None:
    Image.fromarray(drawn(1, 4, 4)).save(path, transparency=3)


def sixteen_in_colour(path: Path) -> None:
    """What the library would read as 8 bits: the header says 16."""
    Image.fromarray(drawn(1, 4, 4, 3)).save(path)
    raw = bytearray(path.read_bytes())
    raw[24] = 16
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: Image.fromarray(drawn(1, 4, 4, 4)).save(path), "has colour with an alpha channel: expected grey or RGB"),
        (lambda path: Image.fromarray(drawn(1, 4, 4, 2)).save(path), "has grey with an alpha channel"),
        (palette, "has colours from a palette"),
        (clear, "has a colour that is transparent"),
        (lambda path: Image.fromarray(drawn(1, 4, 4).astype(np.uint16)).save(path), "has 16 bits a channel: expected 8"),
        (lambda path: Image.fromarray(drawn(1, 4, 4) > 99).save(path), "has 1 bits a channel: expected 8"),
        (sixteen_in_colour, "has 16 bits a channel: expected 8"),
    ],
    ids=["alpha", "grey alpha", "palette", "transparent", "16 bits", "1 bit", "16 bits in colour"],
)
def test_a_png_of_another_kind_is_refused(tmp_path: Path, write: Callable[[Path], None], words: str) -> None:
    write(tmp_path / "p.png")
    said = complaint(str(tmp_path / "p.png"))
    assert "p.png" in said and words in said and "convert it first" in said


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_a_png_is_refused(tmp_path: Path, share: float) -> None:
    raw = Path(png(tmp_path / "p.png", drawn(1, 40, 40))).read_bytes()
    assert "is not a whole PNG" in complaint(store(tmp_path / "p.png", raw[: int(share * len(raw))]))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 4, 4), np.float32), "holds numbers of the kind float32: expected uint8"),
        (np.zeros((2, 4, 4), np.int64), "of the kind int64"),
        (np.zeros((4, 4), np.uint8), "an array of the shape (4, 4): expected pictures as (N, H, W), or as (N, H, W, C)"),
        (np.zeros((2, 4, 4, 4), np.uint8), "of the shape (2, 4, 4, 4)"),
        (np.zeros((2, 1, 4, 4, 3), np.uint8), "of the shape (2, 1, 4, 4, 3)"),
        (np.array([{"a": 1}], dtype=object), "is not a whole array of NumPy"),
    ],
    ids=["float", "long", "one", "alpha", "five", "pickle"],
)
def test_an_array_of_another_kind_is_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert words in complaint(str(tmp_path / "a.npy"))


def test_broken_and_empty_files_are_refused(tmp_path: Path) -> None:
    whole = Path(npy(tmp_path / "a.npy", drawn(1, 3, 4, 4))).read_bytes()
    assert "is not a whole array of NumPy" in complaint(store(tmp_path / "b.npy", whole[:-5]))
    assert "is not a whole array of NumPy" in complaint(store(tmp_path / "b.npy.gz", whole[:-5]))
    images = idx(drawn(1, 3, 4, 4))
    assert "ends after 2 of its 3 pictures" in complaint(store(tmp_path / "i", images[:-1]))
    assert "goes on after its 3 pictures" in complaint(store(tmp_path / "i", images + b"\0"))
    assert "says no size" in complaint(store(tmp_path / "i", images[:9]))
    assert "holds no pictures" in complaint(store(tmp_path / "i", idx(drawn(1, 0, 4, 4))))
    assert "is empty: expected a PNG" in complaint(store(tmp_path / "e.png", b""))
    assert "is no picture that can be read: expected a PNG" in complaint(store(tmp_path / "j.png", b"\xff\xd8\xff\xe0" * 9))
    assert "is no picture that can be read" in complaint(store(tmp_path / "labels", b"\0\0\x08\x01" + b"\0" * 9))
    assert "is not a whole gzip file" in complaint(str((tmp_path / "x.gz").write_bytes(b"abc") and tmp_path / "x.gz"))
    assert "there is no file" in complaint(str(tmp_path / "nowhere.png"))


@pytest.mark.parametrize("kind", ["png", "npy", "idx"])
def test_whatever_became_of_a_file_is_read_or_said(tmp_path: Path, kind: str) -> None:
    array, path, draw = drawn(1, 2, 4, 4), tmp_path / "p", random.Random(1)
    if kind == "png":
        Image.fromarray(array[0]).save(path, "png")
    elif kind == "idx":
        store(path, idx(array))
    else:
        with path.open("wb") as file:
            np.save(file, array)
    raw = path.read_bytes()
    for number in range(len(raw) + 200):
        spoilt = bytearray(raw[: number if number < len(raw) else None])
        if number >= len(raw):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        path.write_bytes(spoilt)
        try:
            read(str(path))
        except QkvError as error:
            assert str(path) in str(error)


def test_a_file_of_several_is_not_the_one_picture(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match="holds more than one picture: name a file with one"):
        only_picture(npy(tmp_path / "a.npy", drawn(1, 3, 4, 4)), Pictures(4, 4))
