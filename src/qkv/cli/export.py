"""`qkv export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.error import unknown

ENGINES = ("ctranslate2",)
PAIRS = 100


def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    to: Annotated[str, typer.Option(help="The engine: ctranslate2.")] = "ctranslate2",
) -> None:
    """Write a trained model in another engine's format, and measure that both say the same."""
    from qkv.decode.translate import load
    from qkv.interop import ctranslate2

    if to not in ENGINES:
        raise unknown("engine", to, ENGINES)
    translator = load(run, device="cpu", precision="fp32")
    ctranslate2.export(translator, folder)
    pairs, kind = _pairs(run, translator)
    worst = ctranslate2.parity(translator, folder, pairs)
    print(f"wrote {folder}")
    print(f"largest difference of a log-probability a token, over {len(pairs)} {kind}: {worst:.2e}")


def _pairs(run: Path, translator: Any) -> tuple[list[tuple[list[int], list[int]]], str]:
    """Pairs to compare the engines on: the run's own validation text if it is still there, else random entries."""
    from itertools import islice

    import numpy as np

    from qkv.data.text import read_pairs
    from qkv.error import QkvError
    from qkv.spec.data import Files, HeldOut, Pairs
    from qkv.train.run_folder import RECIPE, read_run

    try:
        described = read_run(run / RECIPE)
        text = described.train if isinstance(described.valid, HeldOut) else described.valid
        if not isinstance(text, Files | Pairs):
            raise QkvError("the run learned from no pairs")
        pairs = [(s, t) for s, t in islice(read_pairs(text), PAIRS) if s.strip() and t.strip()]
        encoded = zip(
            translator.source.encode([s for s, _ in pairs]), translator.target.encode([t for _, t in pairs]), strict=True
        )
        return list(encoded), "sentence pairs"
    except QkvError:
        generator = np.random.default_rng(0)
        entries = [translator.source.size, translator.target.size]
        return [
            tuple(generator.integers(4, n, generator.integers(5, 30)).tolist() for n in entries) for _ in range(PAIRS)
        ], "pairs of random entries"  # type: ignore[misc]
