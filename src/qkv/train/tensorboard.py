"""The journal's numbers as TensorBoard events."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from qkv.error import QkvError


class Board:
    """Mirrors every line of the journal that has a step."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise QkvError("TensorBoard is not installed: pip install 'qkv[tensorboard]'") from None
        # made with the first line: the folder of a run must be empty until the run is begun
        self._writer = cache(lambda: SummaryWriter(str(folder)))

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if name != "step" and isinstance(value, int | float):
                self._writer().add_scalar(f"{kind}/{name}", value, fields["step"])
        self._writer().flush()
