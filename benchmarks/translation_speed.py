"""Translation speed against CTranslate2: the same weights and precision, beam 4, the same threads, each side at its best batch
size.

python benchmarks/translation_speed.py --run RUN --source F --target F       in bulk, a trained model, both at equal BLEU
python benchmarks/translation_speed.py --base                                one sentence at a time, a random transformer-base,
24 tokens forced; either with --precision int8, too
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import ctranslate2
import torch
from measure import Results, Worker, in_turns, summary
from tokenizers import Tokenizer as Raw
from tokenizers import models

import qkv
from qkv import device
from qkv.data.symbols import END, SPECIALS
from qkv.data.text import read_lines
from qkv.data.tokenizer import Tokenizer
from qkv.decode.rule import Beam
from qkv.decode.translate import Translator, search_all
from qkv.interop import ctranslate2 as interop
from qkv.model.transformer import pack, quantise
from qkv.papers.catalogue import named
from qkv.spec.model import Joint
from qkv.store import Stored
from qkv.train.evaluate import bleu

MOST = 100  # tokens of a translation, for both
PENALTY = 0.6  # ours, of GNMT: ((5 + length) / 6) ** 0.6
THEIR_PENALTY = 0.43  # CTranslate2 divides by length ** p: with this p the two prefer the same lengths at 13 tokens
THEIR_NAME = {"fp32": "float32", "int8": "int8"}
TRIALS = 5  # of each size; a single one would choose by the noise of the machine
LARGE = 2**31  # positions, more than a sentence has
OURS = (4096, 8192, 16384, 32768)
THEIRS = (16, 32, 64, 128, 256)  # sentences; each with all threads on one batch, and with as many batches as threads


@dataclass(frozen=True)
class Job:
    """What a side is to do: all sentences in batches of a size, or one at a time; `forced` tokens for each if it is not 0."""

    sources: list[list[int]]
    batch: int = 0
    forced: int = 0
    prune: float = math.inf  # of ours: nats
    beside: bool = False  # of CTranslate2: several batches beside each other, each with one thread


def ours(model: Path | int, threads: int, precision: str) -> Callable[[Job], tuple[float, list[list[int]]]]:
    """Our side."""
    device.prepare(threads)
    translator = random_base(model) if isinstance(model, int) else qkv.load(model, device="cpu", precision=precision)
    if isinstance(model, int):  # `load` does this by itself
        (quantise if precision == "int8" else pack)(translator.model)

    def work(job: Job) -> tuple[float, list[list[int]]]:
        rule = Beam(4, PENALTY, least=job.forced, most=job.forced or MOST, prune=job.prune)
        sources = [[*ids, END] for ids in job.sources]
        found: list[list[int]] = []
        for part in [sources] if job.batch else [[one] for one in sources]:
            done = {
                i: best[0]
                for batch in search_all(translator.model, part, translator.symbols, rule, 1, job.batch or LARGE)
                for i, best in batch.items()
            }
            found += [list(done[i].tokens) for i in range(len(part))]
        return float(len(found) if job.batch else sum(map(len, found))), found

    return work


def theirs(model: Path | int, threads: int, precision: str) -> Callable[[Job], tuple[float, list[list[int]]]]:
    """CTranslate2, with the same weights."""
    translator = random_base(model) if isinstance(model, int) else qkv.load(model, device="cpu", precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        interop.export(translator, Path(folder) / "exported")
        path, how = str(Path(folder) / "exported"), {"device": "cpu", "compute_type": THEIR_NAME[precision]}
        together = ctranslate2.Translator(path, inter_threads=1, intra_threads=threads, **how)
        beside = ctranslate2.Translator(path, inter_threads=threads, intra_threads=1, **how)
    entries = translator.source.entries()
    numbers = {entry: i for i, entry in enumerate(translator.target.entries())}
    translator.model.to("meta")

    def work(job: Job) -> tuple[float, list[list[int]]]:
        engine = beside if job.beside else together
        options: dict[str, Any] = {"beam_size": 4, "length_penalty": THEIR_PENALTY, "max_decoding_length": job.forced or MOST}
        if job.forced:
            options["min_decoding_length"] = job.forced
        order = sorted(range(len(job.sources)), key=lambda i: -len(job.sources[i]))
        read = [[entries[i] for i in job.sources[place]] for place in order]
        if job.batch:
            answers = engine.translate_batch(read, max_batch_size=job.batch, **options)
        else:
            answers = [engine.translate_batch([one], **options)[0] for one in read]
        found: list[list[int]] = [[] for _ in job.sources]
        for place, answer in zip(order, answers, strict=True):
            found[place] = [numbers[token] for token in answer.hypotheses[0]]
        return float(len(found) if job.batch else sum(map(len, found))), found

    return work


def random_base(vocabulary: int) -> Translator:
    """A transformer-base that has learned nothing."""
    entries = {entry: i for i, entry in enumerate([*SPECIALS, *(f"w{i}" for i in range(vocabulary - len(SPECIALS)))])}
    tokenizer = Tokenizer(Raw(models.WordLevel(entries, unk_token="<unk>")))
    return Translator(Stored(qkv.build(named("transformer-base", Joint(vocabulary))).eval(), tokenizer, tokenizer))


def both(model: Path | int, threads: int, precision: str) -> dict[str, Worker]:
    """Each side in a process of its own."""
    return {name: Worker(side, model, threads, precision) for name, side in (("qkv", ours), ("ctranslate2", theirs))}


def contest(sides: dict[str, Worker], jobs: dict[str, Job], rounds: int) -> dict[str, Any]:
    """Both sides in turns."""
    return summary(in_turns({name: (sides[name], jobs[name]) for name in sides}, rounds), "qkv", "ctranslate2")


def bulk(
    sides: dict[str, Worker], translator: Translator, lines: list[str], targets: list[str], rounds: int, prune: float
) -> dict[str, Any]:
    """Sentences per second, each side at its best batch size, and the BLEU of both."""
    sources = translator.source.encode(lines)
    tried = {
        "qkv": [Job(sources, size, prune=prune) for size in OURS],
        "ctranslate2": [Job(sources, size, beside=beside) for size in THEIRS for beside in (False, True)],
    }
    best: dict[str, Job] = {}
    for name, jobs in tried.items():
        speeds = in_turns({str(i): (sides[name], job) for i, job in enumerate(jobs)}, TRIALS)
        best[name] = jobs[int(max(speeds, key=lambda i: median(speeds[i])))]
    result = contest(sides, best, rounds)
    found = {name: sides[name].do(best[name])[1] for name in sides}
    scores = {
        name: round(bleu([translator.target.decode(ids) for ids in found[name]], targets, "none").value, 2) for name in sides
    }
    settings = {name: {"batch": job.batch, "beside": job.beside} for name, job in best.items()}
    return {**result, "unit": "sentences/s", "best": settings, "bleu": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--precision", choices=list(THEIR_NAME), default="fp32", help="of both sides")
    parser.add_argument("--prune", type=float, default=0.0, help="nats, of our search in bulk; 0 drops no hypothesis")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/translation_speed.jsonl"))
    options = parser.parse_args()
    results = Results(options.results)
    settings = {
        "beam": 4,
        "precision": options.precision,
        "threads": options.threads,
        "most": MOST,
        "ctranslate2": ctranslate2.__version__,
    }
    if options.base:
        sides = both(33288, options.threads, options.precision)
        sources = torch.randint(4, 33288, (8, 24), generator=torch.Generator().manual_seed(0)).tolist()
        job = Job(sources, forced=24)
        what = {"job": "one at a time, random transformer-base, 24 tokens forced, tokens/s", **settings}
        results.measure(what, lambda: contest(sides, dict.fromkeys(sides, job), options.rounds))
    if options.run:
        sides = both(options.run, options.threads, options.precision)
        translator = qkv.load(options.run, device="cpu", precision="fp32")
        lines, targets = list(read_lines(options.source)), list(read_lines(options.target))
        what = {"job": f"in bulk, {options.run.name}, {len(lines)} sentences", **settings}
        what |= {"prune": options.prune} if options.prune else {}
        prune = options.prune or math.inf
        results.measure(what, lambda: bulk(sides, translator, lines, targets, options.rounds, prune))
        few = Job(translator.source.encode(lines[:100]))
        what = {"job": f"one at a time, {options.run.name}, tokens/s", **settings}
        results.measure(what, lambda: contest(sides, dict.fromkeys(sides, few), options.rounds))


if __name__ == "__main__":
    main()
