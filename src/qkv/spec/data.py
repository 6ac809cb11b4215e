"""Where text lies and how it is cut into pieces, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError, unknown

KINDS = ("bpe", "unigram", "bytes", "characters", "words")


def _at_least_one(owner: object, place: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise QkvError(f"{type(owner).__name__}.{place} must be a whole number of at least 1, not {number!r}")


def _names(owner: object, place: str, names: object) -> None:
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise QkvError(f"{type(owner).__name__}.{place} must be a tuple of names, at least one, not {names!r}")


@dataclass(frozen=True)
class AtMost:
    """`size` of something, or fewer: entries of a vocabulary (the special ones count) where the text supports no more,
    checkpoints to average where fewer do better."""

    size: int

    def __post_init__(self) -> None:
        _at_least_one(self, "size", self.size)


@dataclass(frozen=True)
class Exactly:
    """`size` of something and no other number: entries of a vocabulary (an error where the text supports fewer), checkpoints."""

    size: int

    def __post_init__(self) -> None:
        _at_least_one(self, "size", self.size)


@dataclass(frozen=True)
class Tokenizer:
    """How text is cut into pieces.

    The kind is one of: "bpe", merges of frequent pairs (Sennrich et al. 2016); "unigram", the most probable pieces (Kudo 2018);
    "bytes", merges of bytes, to which no text is unknown; "characters"; "words", which white space parts, with an entry for the
    end of a line. A joint tokenizer is one for both sides. `extra` are entries that no text is cut into, such as the mask: what a
    model is to learn asks for them.
    """

    kind: str = "bpe"
    vocabulary: AtMost | Exactly = AtMost(10000)
    joint: bool = True
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.extra)) < len(self.extra) or not all(isinstance(name, str) and name for name in self.extra):
            raise QkvError(f"Tokenizer.extra must be different names, not {self.extra!r}")
        if self.kind not in KINDS:
            raise unknown("kind of tokenizer", str(self.kind), KINDS)
        if not isinstance(self.vocabulary, AtMost | Exactly):
            raise QkvError(f"Tokenizer.vocabulary must be AtMost(size) or Exactly(size), not {self.vocabulary!r}")


@dataclass(frozen=True)
class Files:
    """Parallel text in files for each side, where line i of a source file and line i of its target file belong together.

    Several files are read one after the other: the first source file stands beside the first target file.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]

    def __post_init__(self) -> None:
        _names(self, "source", self.source)
        _names(self, "target", self.target)
        if len(self.source) != len(self.target):
            raise QkvError(
                f"{len(self.source)} source file(s) {', '.join(self.source)} but {len(self.target)} target file(s) "
                f"{', '.join(self.target)}: name one target file for each source file, in the same order"
            )


@dataclass(frozen=True)
class Pairs:
    """Parallel text in tables that hold both sides: .tsv or .jsonl, also .gz.

    The two fields name the source and the target: columns in the header line of a .tsv, or, where it has no header, their numbers
    counted from 1 ("1", "2"); keys of the objects of a .jsonl, one object a line. Several tables are read one after the other.
    """

    files: tuple[str, ...]
    fields: tuple[str, str]

    def __post_init__(self) -> None:
        _names(self, "files", self.files)
        _names(self, "fields", self.fields)
        if len(self.fields) != 2 or self.fields[0] == self.fields[1]:
            raise QkvError(f"Pairs.fields must be two different fields, the source and the target, not {self.fields!r}")


@dataclass(frozen=True)
class Whole:
    """Every file is one document, with its line ends."""


@dataclass(frozen=True)
class Lines:
    """Every line that is not empty is a document."""


@dataclass(frozen=True)
class Paragraphs:
    """Documents are parted by empty lines."""


Documents = Whole | Lines | Paragraphs


@dataclass(frozen=True)
class Texts:
    """Text in one language, in plain or compressed files, and what in it is a document: no document sees another."""

    files: tuple[str, ...]
    documents: Documents = Whole()

    def __post_init__(self) -> None:
        _names(self, "files", self.files)


@dataclass(frozen=True)
class AsTheyAre:
    """Every file is one document, byte by byte; a .gz is unpacked."""


@dataclass(frozen=True)
class Pictures:
    """Every picture is a document, all of one size: row by row, pixel by pixel, channel by channel, a byte each (Child et al.
    2019, section 7). `channels` is 1 for grey and 3 for colour."""

    height: int
    width: int
    channels: int = 1

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            _at_least_one(self, name, getattr(self, name))
        if self.channels not in (1, 3):
            raise QkvError(f"Pictures.channels is 1 for grey and 3 for colour, not {self.channels!r}")

    @property
    def size(self) -> int:
        """The bytes of a picture."""
        return self.height * self.width * self.channels


@dataclass(frozen=True)
class Sounds:
    """Every sound is a document, a byte a sample in 8-bit mu-law, all with so many samples a second."""

    rate: int = 12000

    def __post_init__(self) -> None:
        _at_least_one(self, "rate", self.rate)


Form = AsTheyAre | Pictures | Sounds


@dataclass(frozen=True)
class Bytes:
    """Files of any bytes, and what in them is a document: no document sees another. A folder stands for the pictures, or the
    sounds, in it."""

    files: tuple[str, ...]
    form: Form = AsTheyAre()

    def __post_init__(self) -> None:
        _names(self, "files", self.files)


@dataclass(frozen=True)
class Labelled:
    """Texts with a label each, in tables: .tsv or .jsonl, also .gz; the two fields name the text and the label, as in `Pairs`."""

    files: tuple[str, ...]
    fields: tuple[str, str]

    def __post_init__(self) -> None:
        _names(self, "files", self.files)
        _names(self, "fields", self.fields)
        if len(self.fields) != 2 or self.fields[0] == self.fields[1]:
            raise QkvError(f"Labelled.fields must be two different fields, the text and the label, not {self.fields!r}")


@dataclass(frozen=True)
class Stories:
    """Stories with questions and their answers, in the files of bAbI (Weston et al. 2015), also .gz: a text is the statements and
    the question, each a line, in lower case and without punctuation; its label is the answer."""

    files: tuple[str, ...]

    def __post_init__(self) -> None:
        _names(self, "files", self.files)


@dataclass(frozen=True)
class OfRun:
    """The seed of the run."""


@dataclass(frozen=True)
class HeldOut:
    """No validation text was given: this share of the training text is held out for it; of pairs, labelled texts and documents at
    least one, and of a text that is one document its last lines, or its last bytes.

    The seed decides which; runs that differ in theirs alone hold the same out where they name one here.
    """

    share: float = 0.01
    seed: int | OfRun = OfRun()

    def __post_init__(self) -> None:
        if not isinstance(self.seed, OfRun) and (isinstance(self.seed, bool) or self.seed < 0):
            raise QkvError(f"HeldOut.seed is not negative: {self.seed!r}")
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share < 1:
            raise QkvError(f"HeldOut.share must lie between 0 and 1, such as 0.01, not {self.share!r}")
