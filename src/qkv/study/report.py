"""What came of a comparison: a row for each model, as a table to read, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

from qkv.study.contest import Clock
from qkv.study.member import Ending, Failed, Member, Outcome

NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "bits_per_byte": "bits per byte",
    "bits_per_dimension": "bits per dimension",
    "perplexity": "perplexity",
    "loss": "validation loss",
}
DIGITS = {"bleu": 2, "chrf": 2, "perplexity": 2}


@dataclass(frozen=True)
class Row:
    """One model: its members, seed by seed, how they fared, and by seed the p of the difference from the first model."""

    name: str
    members: tuple[Member, ...]
    endings: tuple[Ending, ...]
    ps: dict[int, float] = field(default_factory=dict)

    @property
    def lived(self) -> list[Outcome]:
        """How those fared that came to something."""
        return [ending for ending in self.endings if isinstance(ending, Outcome)]

    def lived_by_seed(self) -> dict[int, Member]:
        """The members that came to something, by their seed."""
        both = zip(self.members, self.endings, strict=True)
        return {member.run.seed: member for member, ending in both if isinstance(ending, Outcome)}

    @property
    def failures(self) -> str:
        """What went wrong, seed by seed; empty where nothing did."""
        found = [(m.run.seed, e.reason) for m, e in zip(self.members, self.endings, strict=True) if isinstance(e, Failed)]
        return "; ".join(f"seed {seed}: {reason}" for seed, reason in found)

    def flat(self, measures: Sequence[str]) -> dict[str, Any]:
        """The row as numbers: of each measure the mean over seeds, the least and the most."""
        lived = self.lived
        found: dict[str, Any] = {"model": self.name, "seeds": len(lived)}
        for name in measures:
            values = [each.loss if name == "loss" else each.scores[name] for each in lived]
            found[name] = mean(values) if values else None
            found[f"{name}_least"], found[f"{name}_most"] = (min(values), max(values)) if values else (None, None)
        found["p"] = max(self.ps.values(), default=None)
        for name in ("parameters", "parameters_without_embeddings"):
            found[name] = getattr(lived[0], name) if lived else None
        for name in ("steps", "tokens", "flops", "seconds", "tokens_per_second", "peak_memory", "decoding"):
            found[name] = mean(getattr(each, name) for each in lived) if lived else None
        found["failed"] = self.failures
        return found


@dataclass(frozen=True)
class Report:
    """All rows, and how long it took."""

    rows: tuple[Row, ...]
    clock: Clock

    @property
    def measures(self) -> list[str]:
        """What the models are judged by, in the order of the table."""
        scores = [name for row in self.rows for each in row.lived for name in each.scores]
        return [*dict.fromkeys(scores), "loss"]

    def flat(self) -> list[dict[str, Any]]:
        """The rows as numbers."""
        return [row.flat(self.measures) for row in self.rows]

    def csv(self) -> str:
        """The rows with all their digits."""
        rows, text = self.flat(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def json(self) -> str:
        """The rows, every member by itself, and the seconds."""
        members = [
            {"name": row.name, "seed": member.run.seed, **_plain(ending), "p": row.ps.get(member.run.seed)}
            for row in self.rows
            for member, ending in zip(row.members, row.endings, strict=True)
        ]
        return json.dumps({"table": self.flat(), "members": members, "seconds": self.clock.plain()}, indent=1) + "\n"

    def markdown(self) -> str:
        """The table to read, its columns in line."""
        speed = "sentences/s" if "bleu" in self.measures else "tokens/s, written"
        columns: dict[str, Callable[[dict[str, Any]], str]] = {"model": lambda row: row["model"]}
        columns |= {NAMES[name]: lambda row, name=name: _spread(row, name) for name in self.measures}
        columns |= {
            "p": lambda row: "" if row["p"] is None else f"{row['p']:.3f}",
            "parameters": lambda row: _whole(row["parameters"]),
            "FLOPs": lambda row: "" if row["flops"] is None else f"{row['flops']:.3g}",
            "steps": lambda row: _whole(row["steps"]),
            "tokens/s": lambda row: _whole(row["tokens_per_second"]),
            "peak memory": lambda row: "" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:,.0f} MiB",
            speed: lambda row: "" if row["decoding"] is None else f"{row['decoding']:,.1f}",
        }
        rows = self.flat()
        if any(row["failed"] for row in rows):
            columns["failed"] = lambda row: row["failed"].replace("|", "\\|").replace("\n", " ")
        table = [list(columns), *([show(row) for show in columns.values()] for row in rows)]
        return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Cells as a table in Markdown, the first row its head, with columns that are in line as they stand: words to the left,
    numbers to the right."""
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = (cell.rjust(wide[at]) if at else cell.ljust(wide[at]) for at, cell in enumerate(row))
        lines.append(f"| {' | '.join(cells)} |")
    ruled = "|".join("-" * (n + 1) + (":" if at else "-") for at, n in enumerate(wide))
    return "\n".join([lines[0], f"|{ruled}|", *lines[1:]]) + "\n"


def _plain(ending: Ending) -> dict[str, Any]:
    return {"failed": ending.reason} if isinstance(ending, Failed) else {**asdict(ending), "failed": ""}


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _spread(row: dict[str, Any], name: str) -> str:
    """The mean, and the least and the most where there are several seeds."""
    if row[name] is None:
        return ""
    digits = DIGITS.get(name, 4)
    middle, least, most = (f"{row[each]:.{digits}f}" for each in (name, f"{name}_least", f"{name}_most"))
    return middle if row["seeds"] == 1 else f"{middle} ({least} to {most})"
