"""A tokenizer of ours as files that `transformers` reads with its generic fast class, with the same numbers for the same text.

Tokenizers from there find special entries in text; ours do not, and do not there, either, unless there is one that people are to
write, the mask or a sentinel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from qkv.data.tokenizer import Tokenizer
from qkv.interop.huggingface.config import TOKENIZER, write_json
from qkv.interop.huggingface.tokenizer import FAST, NEVER, SPLIT

GENERIC = "PreTrainedTokenizerFast"


def write_tokenizer(folder: Path, tokenizer: Tokenizer, places: int | None, writes: bool) -> None:
    """Write tokenizer.json and tokenizer_config.json; a model that only writes is given what opens a text, and others what
    frames it."""
    symbols = tokenizer.symbols
    wrapped = tokenizers.Tokenizer.from_str(tokenizer.masking.to_str())
    names = {
        number: name for number in sorted(symbols.special) if not (name := str(wrapped.id_to_token(number))).startswith(NEVER)
    }
    known = {token.content for token in wrapped.get_added_tokens_decoder().values()}
    wrapped.add_special_tokens([AddedToken(name, normalized=False) for name in names.values() if name not in known])
    before, after = (symbols.opening, ()) if writes else (symbols.before, (symbols.end,))
    around = [(str(wrapped.id_to_token(number)), number) for number in (*before, *after)]
    wrapped.post_processor = processors.TemplateProcessing(
        single=[*(name for name, _ in around[: len(before)]), "$A", *(name for name, _ in around[len(before) :])],
        special_tokens=list(dict.fromkeys(around)),
    )
    wrapped.save(str(folder / FAST))
    split = not known and not symbols.masks and not symbols.sentinels
    write_json(folder / TOKENIZER, _config(tokenizer, names, places, writes) | ({SPLIT: True} if split else {}))


def _config(tokenizer: Tokenizer, names: dict[int, str], places: int | None, writes: bool) -> dict[str, Any]:
    symbols = tokenizer.symbols
    roles = {"bos": symbols.start, "eos": symbols.end, "pad": symbols.pad, "unk": symbols.unknown}
    roles |= {"mask": symbols.masks[0]} if symbols.masks else {}
    roles |= {"cls": symbols.before[0], "sep": symbols.end} if symbols.before else {}
    played = {f"{role}_token": names[number] for role, number in roles.items() if number in names}
    return {
        "tokenizer_class": GENERIC,
        **played,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "padding_side": "left" if writes else "right",
        **({"model_max_length": places} if places is not None else {}),
    }
