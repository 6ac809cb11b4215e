"""Text into batches. Nothing re-exported here imports torch: batches, which are tensors, are in `qkv.data.batch`."""

from qkv.data.corpus import Corpus, Prepared, Side, default_cache, prepare
from qkv.data.report import Kept, Left, Report
from qkv.data.text import fingerprint, read_lines, read_pairs
from qkv.data.tokenizer import Tokenizer, Tokenizers, train_tokenizers

__all__ = [
    "Corpus",
    "Kept",
    "Left",
    "Prepared",
    "Report",
    "Side",
    "Tokenizer",
    "Tokenizers",
    "default_cache",
    "fingerprint",
    "prepare",
    "read_lines",
    "read_pairs",
    "train_tokenizers",
]
