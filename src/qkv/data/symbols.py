"""The entries of a vocabulary that stand for no text, and what stands around a text that a model is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qkv.error import QkvError

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
PAD, START, END, UNKNOWN = range(4)  # their numbers in every tokenizer that is trained here
MASK = "<mask>"
SENTINELS = tuple(f"<extra_{number}>" for number in range(100))


@dataclass(frozen=True)
class Symbols:
    """Numbers of special entries.

    `before` is what an encoder reads before every text; after it comes the end symbol. `opening` is what a decoder is given
    before it says its first token. `others` are special entries with no part to play here.
    """

    pad: int
    start: int
    end: int
    unknown: int
    masks: tuple[int, ...] = ()
    sentinels: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()
    others: tuple[int, ...] = ()

    @classmethod
    def of(cls, entries: Mapping[str, int]) -> Symbols:
        """Those of a vocabulary of ours: what can be masked is read with a start before it, as BERT and BART do."""
        pad, start, end, unknown = (entries[name] for name in SPECIALS)
        masks = tuple(entries[name] for name in (MASK,) if name in entries)
        sentinels = tuple(entries[name] for name in SENTINELS if name in entries)
        return cls(pad, start, end, unknown, masks, sentinels, (start,) if masks else (), (start,))

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Symbols:
        """The inverse of `plain`."""
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
        return cls(**fields)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def mask(self) -> int:
        """What stands for a hidden token. Raises QkvError where there is no such entry."""
        if not self.masks:
            raise QkvError(
                "the tokenizer has no mask token: this model was not trained to fill in what is hidden (`qkv train fill`)"
            )
        return self.masks[0]

    @property
    def special(self) -> frozenset[int]:
        """All of them."""
        alone = (self.pad, self.start, self.end, self.unknown)
        return frozenset((*alone, *self.masks, *self.sentinels, *self.before, *self.opening, *self.others))

    def read(self, ids: Sequence[int]) -> list[int]:
        """What an encoder reads of a text."""
        return [*self.before, *ids, self.end]


OURS = Symbols(PAD, START, END, UNKNOWN, opening=(START,))
