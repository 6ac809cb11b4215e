"""Bytes written on by a language model of bytes: pictures of a known size, and sounds as long as one likes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from qkv.decode.generate import Greedy, Order, Page, Sample, Writer, key_of
from qkv.decode.sample import Ban, Rule
from qkv.error import QkvError
from qkv.spec.data import Pictures

BATCH = 32  # pictures that are painted beside each other

Levels = UInt8[np.ndarray, " _"]  # of any length, each of its own


def paint(
    writer: Writer,
    form: Pictures,
    how: Greedy | Sample = Sample(),
    rules: Sequence[Rule] = (),
    *,
    count: int = 1,
    top: UInt8[np.ndarray, "K W C"] | None = None,
) -> list[UInt8[np.ndarray, "H W C"]]:
    """So many pictures of a form, each with dice of its own; their first rows are those that are given, as they are.

    Raises QkvError for rows of another size, and where the model has no places for a picture.
    """
    if form.size > writer.places:
        raise QkvError(f"a picture of {form.size:,} bytes is more than the {writer.places} places that the model knows")
    if top is None:
        top = np.empty((0, form.width, form.channels), np.uint8)
    if top.shape[1:] != (form.width, form.channels) or len(top) >= form.height:
        raise QkvError(
            f"rows to be kept have the shape {top.shape}: expected fewer than {form.height} rows of {form.width} pixels with "
            f"{form.channels} channel(s)"
        )
    begun = top.flatten()
    shape = (form.height, form.width, form.channels)
    written: list[Levels] = []
    for first in range(0, count, BATCH):
        copies = range(first, min(first + BATCH, count))
        written += _written(writer, begun, how, [_without(writer, end=True), *rules], copies, form.size - len(begun), form.size)
    return [np.concatenate([begun, rest]).reshape(shape) for rest in written]


def go_on(
    writer: Writer,
    begun: Levels,
    how: Greedy | Sample = Sample(),
    rules: Sequence[Rule] = (),
    *,
    length: int,
    context: int = 1024,
) -> Levels:
    """What follows some bytes, none at all or as many as one likes: so many bytes, or fewer where the model ends by itself.

    Where the context is full, the later half of it is read anew as the beginning of another, as in training, where long documents
    are cut into rows.
    """
    (rest,) = _written(writer, begun, how, [_without(writer, end=False), *rules], range(1), length, context)
    return rest


def _without(writer: Writer, end: bool) -> Ban:
    """No entry but those of bytes, and of the end unless it is banned, too."""
    allowed = {*writer.tokenizer.byte_entries.tolist(), *(() if end else (writer.symbols.end,))}
    return Ban(tuple(entry for entry in range(writer.tokenizer.size) if entry not in allowed))


def _written(
    writer: Writer, begun: Levels, how: Greedy | Sample, rules: Sequence[Rule], copies: range, length: int, context: int
) -> list[Levels]:
    """What is written after the same bytes by each copy, up to its end."""
    entries, end, order = writer.tokenizer.byte_entries, writer.symbols.end, Order(how, tuple(rules), length, ())
    context = int(min(context, writer.places))
    rows = [[writer.symbols.start, *entries[begun].tolist()] for _ in copies]
    first, keys = len(rows[0]), [key_of(0, copy) for copy in copies]
    page, room, ended = None, 0, False
    while len(rows[0]) < first + length and not ended:
        if page is None or room == 0:
            seen = [row if len(row) <= context and page is None else row[-max(1, context // 2) :] for row in rows]
            page, room = Page(writer, seen, keys, order, len(rows[0]) - first), context - len(seen[0]) + 1
        for row, token in zip(rows, page.next(), strict=True):
            row.append(token)
        room -= 1
        ended = all(end in row[-1:] for row in rows)
    values = np.zeros(writer.tokenizer.size, np.uint8)
    values[entries] = np.arange(256)
    return [values[_until(row[first:], end)] for row in rows]


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
