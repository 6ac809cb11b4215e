"""Hugging Face's `transformers`, where it is installed, and quiet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qkv.error import QkvError

INSTALL = "pip install 'qkv[huggingface]'"


def library() -> Any:
    """The module `transformers`. Raises QkvError with the command that installs it."""
    try:
        import transformers
    except ImportError:
        raise QkvError(f"transformers is not installed: {INSTALL}") from None
    return transformers


@contextmanager
def quiet() -> Iterator[Any]:
    """`transformers` without its bars and its advice, which is for those who call it themselves."""
    transformers = library()
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that another package would do something else yet
            yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer that `transformers` makes of a folder; it runs no code out of it. Raises QkvError if it makes none."""
    with quiet() as transformers:
        try:
            return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except ImportError as error:
            raise QkvError(f"the tokenizer in {folder} needs something that is not installed: {INSTALL} ({error})") from None
        except Exception as error:  # whatever its many readers raise
            raise QkvError(f"transformers cannot read the tokenizer in {folder}: {error}") from None


def model_of(folder: Path, kind: str) -> Any:
    """The model that `transformers` makes of a folder, in fp32; it runs no code out of it. Raises QkvError if it makes none."""
    import torch

    with quiet() as transformers:
        try:
            made = getattr(transformers, kind).from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever its many readers raise
            raise QkvError(f"transformers cannot read the model in {folder}: {error}") from None
    return made.eval()
