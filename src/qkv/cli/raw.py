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
Rate = Annotated[int | None, typer.Option(help="Samples a second that every one of --sounds must have; 12000 unless said.")]

Option = str
OPTIONS: dict[str, Option] = {"AsTheyAre": "--bytes", "Pictures": "--images", "Sounds": "--sounds"}  # by their form


def chosen(given: dict[Option, list[str] | None]) -> Option | None:
    """The one option that names bytes, or None. Raises QkvError where there are several."""
    named = [option for option, files in given.items() if files]
    if len(named) > 1:
        raise QkvError(f"bytes are files as they are, pictures or sounds: give one of {' and '.join(named)}")
    return named[0] if named else None


def bytes_of(given: dict[Option, list[str] | None], rate: int | None) -> Any:
    """Bytes as a value, None where no option names any; pictures have the size of the first."""
    from qkv.data.pictures import form_of
    from qkv.spec.data import AsTheyAre, Bytes
    from qkv.spec.data import Sounds as Heard

    option = chosen(given)
    if rate is not None and option != "--sounds":
        raise QkvError("--rate is of --sounds: give both")
    if option is None:
        return None
    files = given[option] or []
    form: Any = AsTheyAre()
    if option == "--images":
        form = form_of(files)
    elif option == "--sounds":
        form = Heard() if rate is None else Heard(rate)
    return Bytes(absolute(files), form)


def absolute(names: list[str]) -> tuple[str, ...]:
    """So that run.toml means the same from any folder."""
    return tuple(str(Path(name).absolute()) for name in names)
