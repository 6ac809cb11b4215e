"""`qkv demo`: a small model learns to say dates in German, in a few minutes, from a corpus that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qkv.cli.console import Watcher
from qkv.error import QkvError

SHOWN = 6


def demo(
    out: Annotated[Path, typer.Option(help="Where the text, the run and its pictures go.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 3.5,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves it to PyTorch.")] = 0,
) -> None:
    """Train a small translator on dates (from Unicode's CLDR), translate dates it has never seen, and draw what it looked at."""
    try:
        from qkv.data import dates
    except ImportError:
        raise QkvError("the demo's text comes from Babel, which is not installed: pip install 'qkv[demo]'") from None
    from qkv import device as machine
    from qkv.decode.translate import load
    from qkv.look import heads
    from qkv.train.evaluate import bleu
    from qkv.train.run import train

    machine.prepare(threads)
    corpus = dates.corpus()
    text, run = out / "text", out / "run"
    if run.exists():
        raise QkvError(f"{run} is there already; give --out another folder, or delete {out}")
    dates.write(corpus, text)
    print(
        f"the text: {len(corpus.train):,} dates in English and German in {text}; the {len(corpus.test)} days of the test "
        f"stand nowhere else"
    )
    with Watcher() as watch:
        train(_run(text, minutes), run, watch)
    translator = load(run)
    sources, targets = ([pair[side] for pair in corpus.test] for side in (0, 1))
    found = [best[0].text for best in translator.translate(sources)]
    print(f"\n{SHOWN} of the {len(sources)} held-out lines, and what the model makes of them:\n")
    for source, best in list(zip(sources, found, strict=True))[:SHOWN]:
        print(f"  {source}\n    -> {best}")
    exact = sum(best == target for best, target in zip(found, targets, strict=True))
    score = bleu(found, targets)
    print(
        f"\nword for word right: {exact} of {len(sources)} ({exact / len(sources):.1%}); BLEU {score.value:.1f} "
        f"({score.signature})"
    )
    heads.draw(heads.kinds(translator, sources[0], found[0]), f"{sources[0]}\n{found[0]}", run / "heads.png")
    print(f"how it learned: {run / 'curves.png'}\nwhere it looked: {run / 'heads.png'}\nyour turn: qkv translate {run}")


def _run(text: Path, minutes: float) -> Any:
    from qkv.spec.data import AtMost, Files, Tokenizer
    from qkv.spec.run import Batching, Checkpoints, Cosine, Evaluation, Minutes, Run

    def files(name: str) -> Files:
        return Files((str((text / f"{name}.en").absolute()),), (str((text / f"{name}.de").absolute()),))

    return Run(
        model="transformer-tiny",
        train=files("train"),
        valid=files("valid"),
        changes=("*.dropout=0.1",),
        tokenizer=Tokenizer("bpe", AtMost(1000)),
        batching=Batching(1024),
        schedule=Cosine(peak=0.003, warmup=200),
        budget=Minutes(minutes),
        evaluation=Evaluation(every=400, sentences=100),
        checkpoints=Checkpoints(every=200, keep=3, average=AtMost(3)),
        precision="fp32",
    )
