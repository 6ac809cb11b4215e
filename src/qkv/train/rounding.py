"""What it costs a language model to have its weights rounded to eight bits, measured on a little of its own text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from qkv.data.bytes import read_chunks
from qkv.data.documents import Piece, read_pieces
from qkv.decode.generate import Writer
from qkv.decode.likelihood import Window, surprises
from qkv.error import QkvError
from qkv.spec.data import Bytes, Texts
from qkv.store import load
from qkv.train.evaluate import perplexity
from qkv.train.run_folder import RECIPE, read_run

OPERATIONS = 2e10  # of a pass over the text: at most about a second of one core
FEWEST, MOST = 64, 1024  # tokens
WIDTH = 16  # characters that a token has at most, on average


@dataclass(frozen=True)
class Cost:
    """Perplexity per token in fp32 and in int8, and over how many tokens."""

    fp32: float
    int8: float
    tokens: int

    def __str__(self) -> str:
        change = 100 * (self.int8 / self.fp32 - 1)
        return (
            f"int8 changes the perplexity by {change:+.2f}%, from {self.fp32:.3f} to {self.int8:.3f} over {self.tokens:,} tokens "
            f"of the run's own text"
        )


def cost(run: Path, rounded: Writer) -> Cost | None:
    """What rounding cost the model of a run folder, if the text that it was validated on, or else trained on, is still there."""
    parameters = sum(parameter.numel() for parameter in rounded.model.parameters())
    tokens = int(min(MOST, max(FEWEST, OPERATIONS / (2 * parameters))))
    try:
        described = read_run(run / RECIPE)
        own = described.own_text
        documents = _beginning(own, rounded, tokens) if isinstance(own, Texts | Bytes) else []
    except QkvError:
        return None
    if not documents:
        return None
    context = int(min(rounded.places, described.longest))
    exact = Writer(load(run, "cpu"))
    fp32, int8 = (_perplexity(writer, documents, context) for writer in (exact, rounded))
    return Cost(fp32, int8, sum(map(len, documents)))


def _beginning(where: Texts | Bytes, writer: Writer, tokens: int) -> list[list[int]]:
    """The first documents of a text, or of bytes, so many tokens of them."""
    found: list[list[int]] = []
    for piece in read_chunks(where) if isinstance(where, Bytes) else read_pieces(where):
        if isinstance(piece, Piece):
            ids = writer.tokenizer.encode([piece.text[: WIDTH * tokens]])[0][:tokens]
        else:
            ids = writer.tokenizer.byte_entries[list(piece.raw[:tokens])].tolist()
        found += [ids] if ids else []
        tokens -= len(ids)
        if not tokens:
            break
    return found


@torch.inference_mode()
def _perplexity(writer: Writer, documents: list[list[int]], context: int) -> float:
    """Without the ends of documents, which may have been cut."""
    window = Window(context, max(1, context // 2))
    nats = [surprises(writer.model, ids, writer.symbols, window)[:-1] for ids in documents]
    return perplexity(math.fsum(torch.cat(nats).tolist()) / sum(map(len, nats)))
