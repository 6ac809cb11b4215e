"""Where a model from Hugging Face lies: a folder on this disk, or a name on the hub, which is then downloaded."""

from __future__ import annotations

from pathlib import Path

from qkv.error import QkvError
from qkv.interop.huggingface.library import INSTALL

# what is asked for on the hub: no code, no weights for other frameworks, no pickle where there is something better
WANTED = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "target_vocab.json", "vocab.txt", "merges.txt", "*.spm", "spiece.model"),
    *("model*.safetensors", "model.safetensors.index.json", "target/tokenizer*.json"),
)
PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def located(name: str) -> Path:
    """The folder of that name, or the one into which the model of that name was downloaded. Raises QkvError if there is
    neither."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise QkvError(f"{name} is a file: name the folder that holds the model's config.json")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise QkvError(f"there is no folder {name}")
    return _downloaded(name)


def _downloaded(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise QkvError(f"there is no folder {name}, and to download a model of that name takes: {INSTALL}") from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(WANTED)))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*WANTED, *PICKLED]))
    except Exception as error:  # of the network, of the hub, of the name
        raise QkvError(
            f"there is no folder {name}, and no model of that name can be downloaded from huggingface.co ({_short(error)}): name "
            f"a folder that you have, or try again with a network"
        ) from None
    return folder


def _short(error: Exception) -> str:
    """An error of the hub in one line; its own are long."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
