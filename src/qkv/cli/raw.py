"""Options that name bytes instead of text: files as they are, pictures, sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.error import QkvError

Files = Annotated[
    list[str] | None, typer.Option("--bytes", help="Files of any kind, each a document, byte by byte; a .gz is unpacked.")
]
Images = Annotated[
    list[str] | None, typer.Option(help="Pictures of one size: PNG, .npy, MNIST's idx3-ubyte, or a folder of PNGs.")
]
Sounds = Annotated[list[str] | None, typer.Option(help="WAV, 8 or 16 bits, read as 8-bit mu-law; or a folder of them.")]
Rate = Annotated[int, typer.Option(help="Samples a second that every one of --sounds must have.")]
RATE = 12000


def bytes_of(files: list[str] | None, images: list[str] | None, sounds: list[str] | None, rate: int, form: Any = None) -> Any:
    """Bytes as a value, None where no option names any; pictures have the form that is given, or else that of the first."""
    from qkv.spec.data import Bytes
    from qkv.spec.data import Sounds as Heard

    if sum(map(bool, (files, images, sounds))) > 1:
        raise QkvError("bytes are files as they are, pictures or sounds: give one of --bytes, --images and --sounds")
    if files:
        return Bytes(absolute(files))
    if sounds:
        return Bytes(absolute(sounds), Heard(rate))
    if not images:
        return None
    if form is None:
        from qkv.data.pictures import form_of

        form = form_of(images)
    return Bytes(absolute(images), form)


def absolute(names: list[str]) -> tuple[str, ...]:
    """So that run.toml means the same from any folder."""
    return tuple(str(Path(name).absolute()) for name in names)
