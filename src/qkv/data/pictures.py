"""Pictures as arrays of bytes, (H, W, C), C = 1 for grey and 3 for colour: from PNG, from arrays of NumPy and from the idx files
of MNIST, told apart by how they begin; and to PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from qkv.data.text import opened
from qkv.error import QkvError
from qkv.spec.data import Pictures

PNG, NPY, IDX = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", b"\0\0\x08\x03"  # what files begin with
KINDS = "a PNG, an array of NumPy (.npy) or MNIST's images (idx3-ubyte)"
GREY, COLOUR = 0, 2  # kinds of pixel that a PNG names in its header
OTHER_PIXELS = {3: "colours from a palette", 4: "grey with an alpha channel", 6: "colour with an alpha channel"}
GAP, BETWEEN = 2, 128  # pixels between the pictures of a grid, and how bright they are

Picture = UInt8[np.ndarray, "H W C"]


def read_pictures(files: Sequence[str], form: Pictures | None = None) -> Iterator[Picture]:
    """All pictures of some files, in their order, each of the form that is given, or else of that of the first.

    Raises QkvError, with the file and the number of the picture in it, where one is of another size, has an alpha channel, or is
    not of 8 bits; and for a file that is broken, or holds none.
    """
    first = ""
    for path in picture_files(files):
        number = 0
        for picture in _of_file(path):
            number += 1
            found = Pictures(*picture.shape)
            if form is None:
                form, first = found, f"the first, in {path}, is"
            if found != form:
                wanted = f"{first or 'the pictures of this run are'} {described(form)}"
                raise QkvError(f"picture {number} of {path} is {described(found)}, but {wanted}: all must be of one size")
            yield picture
        if not number:
            raise QkvError(f"{path} holds no pictures")


def form_of(files: Sequence[str]) -> Pictures:
    """The size of the first picture, which all must have."""
    return Pictures(*next(read_pictures(files)).shape)


def only_picture(path: str, form: Pictures) -> Picture:
    """The picture of a file that holds one."""
    found = read_pictures([path], form)
    picture = next(found)
    if next(found, None) is not None:
        raise QkvError(f"{path} holds more than one picture: name a file with one")
    return picture


def picture_files(files: Sequence[str]) -> Iterator[str]:
    """The files that are meant: a folder stands for the PNGs in it, by name."""
    return in_folders(files, ".png")


def in_folders(files: Sequence[str], suffix: str) -> Iterator[str]:
    """The same files, but that a folder is replaced by those files in it whose names end so, in the order of their names."""
    for name in files:
        if not Path(name).is_dir():
            yield name
            continue
        found = sorted(str(path) for path in Path(name).iterdir() if path.suffix.lower() == suffix)
        if not found:
            raise QkvError(f"the folder {name} holds no file whose name ends in {suffix}")
        yield from found


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG. Raises QkvError where that is not possible."""
    try:
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(path, "png")
    except OSError as error:
        raise QkvError(f"{path} cannot be written: {error.strerror or error}") from None


def grid(pictures: Sequence[Picture]) -> UInt8[np.ndarray, "Y X C"]:
    """Pictures of one size beside and below each other, with a little between them; one alone is itself."""
    height, width, channels = pictures[0].shape
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), BETWEEN, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (height + GAP), place % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def described(form: Pictures) -> str:
    """A size in words."""
    return f"{form.height} pixels high and {form.width} wide in {'grey' if form.channels == 1 else 'colour'}"


def _of_file(path: str) -> Iterator[Picture]:
    with opened(path) as stream:
        start = stream.peek(len(PNG))
        if start.startswith(PNG):
            yield _png(path, stream.read())
        elif start.startswith(NPY):
            yield from _npy(path, stream)
        elif start.startswith(IDX):
            yield from _idx(path, stream)
        elif not start:
            raise QkvError(f"{path} is empty: expected {KINDS}")
        else:
            raise QkvError(f"{path} is no picture that can be read: expected {KINDS}; convert it first")


def _png(path: str, raw: bytes) -> Picture:
    # the header itself: the library turns 16 bits into 8 without a word
    bits, pixels = (raw[24], raw[25]) if len(raw) > 25 else (8, GREY)
    if pixels in OTHER_PIXELS:
        raise QkvError(f"{path} has {OTHER_PIXELS[pixels]}: expected grey or RGB; convert it first")
    if bits != 8:
        raise QkvError(f"{path} has {bits} bits a channel: expected 8; convert it first")
    try:
        with Image.open(io.BytesIO(raw), formats=["PNG"]) as image:
            image.load()
            clear = "transparency" in image.info
            found = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise QkvError(f"{path} is not a whole PNG ({error}): fetch or write it again") from None
    if clear:
        raise QkvError(f"{path} has a colour that is transparent: expected grey or RGB without; convert it first")
    return found.reshape(*found.shape[:2], -1)


def _npy(path: str, stream: io.BufferedReader) -> Iterator[Picture]:
    try:
        if path.lower().endswith(".gz"):
            found = np.load(io.BytesIO(stream.read()), allow_pickle=False)
        else:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:  # the header is read as Python
        raise QkvError(f"{path} is not a whole array of NumPy ({error}): write it again") from None
    if found.dtype != np.uint8:
        raise QkvError(f"{path} holds numbers of the kind {found.dtype}: expected uint8, from 0 to 255")
    whole = found[..., None] if found.ndim == 3 else found
    if whole.ndim != 4 or whole.shape[3] not in (1, 3) or 0 in whole.shape[1:]:
        raise QkvError(
            f"{path} holds an array of the shape {found.shape}: expected pictures as (N, H, W), or as (N, H, W, C) with 1 "
            f"channel for grey or 3 for colour"
        )
    for picture in whole:
        yield np.array(picture)


def _idx(path: str, stream: io.BufferedReader) -> Iterator[Picture]:
    header = stream.read(16)
    number, height, width = (int.from_bytes(header[start : start + 4]) for start in (4, 8, 12))
    size = height * width
    if len(header) < 16 or size == 0:
        raise QkvError(f"{path} begins like MNIST's images, but says no size: fetch it again")
    for index in range(number):
        raw = stream.read(size)
        if len(raw) < size:
            raise QkvError(f"{path} ends after {index:,} of its {number:,} pictures: fetch it again")
        yield np.frombuffer(raw, np.uint8).reshape(height, width, 1)
    if stream.read(1):
        raise QkvError(f"{path} goes on after its {number:,} pictures: fetch it again")
