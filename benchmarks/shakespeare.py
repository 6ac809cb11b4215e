"""Tiny Shakespeare by characters: the loss on the last tenth of the text of a model that was trained on the rest.

    python benchmarks/shakespeare.py --text input.txt --recipe shakespeare-2000-steps --out RUN

Trains by the recipe, or goes on where an earlier call was interrupted, and writes the loss of the finished model: nats per
character over the whole validation text in rows of the recipe's length, so that the characters of a row see none of the row
before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import Results

from qkv.train.journal import read

SHARE = 0.9


def train(text: str, recipe: str, out: Path, threads: int) -> dict[str, Any]:
    """The loss of the finished run, and how it got there."""
    whole = Path(text).read_text(encoding="utf-8")
    cut = int(SHARE * len(whole))
    parts = out.with_name(f"{out.name}-text")
    parts.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", whole[:cut]), ("valid", whole[cut:])):
        (parts / f"{name}.txt").write_text(part, encoding="utf-8")
    command = [sys.executable, "-m", "qkv", "train", "generate", "--recipe", recipe, "--out", str(out), "--threads", str(threads)]
    command += ["--resume"] if out.is_dir() else []
    subprocess.run(command, check=True, env={**os.environ, "SHAKESPEARE": str(parts)})
    journal = read(out / "journal.jsonl")
    final = next(line for line in reversed(journal) if line["kind"] == "final")
    return {
        "loss": round(final["loss"], 4),
        "bits_per_byte": round(final["bits_per_byte"], 4),
        "steps": final["step"],
        "minutes": round(final["seconds"] / 60, 1),
        "by_minutes": [(round(e["seconds"] / 60, 1), round(e["loss"], 4)) for e in journal if e["kind"] == "evaluation"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/shakespeare.jsonl"))
    options = parser.parse_args()
    what = {"recipe": options.recipe, "threads": options.threads}
    Results(options.results).measure(what, lambda: train(options.text, options.recipe, options.out, options.threads))


if __name__ == "__main__":
    main()
