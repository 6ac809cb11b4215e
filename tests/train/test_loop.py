"""What training does at each step, and what it says of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.conftest import Listener, Whole, journal, sentences, weights, write
from torch.nn import functional

from qkv import device as machine
from qkv.attention.sight import Plain
from qkv.data.corpus import default_cache, prepare
from qkv.data.symbols import END, START
from qkv.error import QkvError, QkvFailure
from qkv.look import curves
from qkv.spec import plain
from qkv.spec.data import Files
from qkv.spec.run import Batching, Clip, Cosine, Evaluation, Noam, NoClip, Run, Steps
from qkv.store import load, load_spec, load_tokenizers, load_weights
from qkv.train import checkpoint as checkpoints
from qkv.train.evaluate import bleu, perplexity, refuse_unknown
from qkv.train.journal import Journal, read
from qkv.train.loop import Ground, Loop, begun
from qkv.train.pairs import Translating
from qkv.train.run import describe, train
from qkv.train.run_folder import read_run, write_run
from qkv.train.schedule import learning_rate

AtStep = Callable[[int, Callable[[], Any]], None]
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def looped(tmp_path: Path) -> Callable[[Run], Loop]:
    """A run in progress, before its first step."""

    def make(run: Run) -> Loop:
        prepared = prepare(run.train, run.valid, run.tokenizer, seed=run.seed, longest=run.longest, cache=default_cache())
        model = begun(run, describe(run, prepared.report.vocabularies))
        ground = Ground(run, tmp_path, model, Translating(run, prepared), machine.pick("cpu", "fp32"))
        return Loop(ground, Journal(tmp_path / "journal.jsonl"), Listener())

    return make


@pytest.fixture
def copying(tiny: Run, tmp_path: Path) -> Run:
    """A task that is quickly learned: the target is the source."""
    lines = sentences(60, 1)
    files = Files((write(tmp_path / "copy.a", lines),), (write(tmp_path / "copy.b", lines),))
    changes = tuple(place for place in tiny.changes if "dropout" not in place)
    return replace(
        tiny,
        train=files,
        valid=files,
        changes=(*changes, "width=32"),
        budget=Steps(40),
        evaluation=Evaluation(10, 0),
        smoothing=0.0,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls(copying: Run, tmp_path: Path, precision: str) -> None:
    train(replace(copying, precision=precision), tmp_path / "run", Listener())
    losses = [line["loss"] for line in journal(tmp_path / "run", "step")]
    entries = load_spec(tmp_path / "run").vocabulary.source
    assert losses[-1] < 0.9 * losses[0] and losses[-1] < math.log(entries), "no better than to guess"
    checks = [line["loss"] for line in journal(tmp_path / "run", "evaluation")]
    assert checks[-1] < checks[0]
    assert {tensor.dtype for tensor in load_weights(tmp_path / "run" / "model.safetensors").values()} == {torch.float32}


def test_a_step_over_two_batches_has_the_gradient_of_their_tokens_together(tiny: Run, looped: Callable[[Run], Loop]) -> None:
    still = replace(tiny, changes=("width=16", *(f"{side}.depth=1" for side in ("encoder", "decoder"))))
    still = replace(
        still, changes=(*still.changes, *(f"{p}.dropout=0.0" for p in ("embedding", "encoder.blocks.0", "decoder.blocks.0")))
    )
    loop = looped(still)
    one, two = loop._next_batch(), loop._next_batch()
    assert one.tokens != two.tokens, "the weights would not matter"
    gradients = []
    for batches in ([one], [two], [one, two]):
        loop._gradients(batches, sum(batch.tokens for batch in batches), 1)
        gradients.append([p.grad for p in loop.model.parameters() if p.grad is not None])
    share = one.tokens / (one.tokens + two.tokens)
    for first, second, both in zip(*gradients, strict=True):
        torch.testing.assert_close(both, share * first + (1 - share) * second, rtol=1e-4, atol=1e-6)


def norms(loop: Loop) -> list[float]:
    """The norm of all gradients together at each of three steps, as the optimiser meets them."""
    found = []

    def look(*_: object) -> None:
        gradients = [p.grad.norm() for p in loop.model.parameters() if p.grad is not None]
        found.append(torch.stack(gradients).norm().item())

    loop.adam.register_step_pre_hook(look)
    for _ in range(3):
        loop.step()
    return found


def test_clip_holds_the_norm_of_the_gradient(tiny: Run, looped: Callable[[Run], Loop]) -> None:
    assert min(norms(looped(replace(tiny, clip=NoClip())))) > 0.02
    assert max(norms(looped(replace(tiny, clip=Clip(0.01))))) == pytest.approx(0.01, rel=1e-3)


def test_noam_is_equation_3() -> None:
    for step in (1, 10, 99, 100, 101, 5000):
        expected = 2.0 * 512**-0.5 * min(step**-0.5, step * 100**-1.5)
        assert learning_rate(Noam(warmup=100, factor=2.0), step, 10**6, 512) == pytest.approx(expected)
    rates = [learning_rate(Noam(warmup=100), step, 1000, 512) for step in range(1, 300)]
    assert rates.index(max(rates)) == 99, "it peaks where the warm-up ends"


def test_cosine_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    schedule = Cosine(peak=0.5, warmup=10, last=0.1)
    rates = {step: learning_rate(schedule, step, 110, 512) for step in range(1, 111)}
    assert rates[1] == pytest.approx(0.05) and rates[5] == pytest.approx(0.25) and rates[10] == pytest.approx(0.5)
    assert rates[60] == pytest.approx((0.5 + 0.05) / 2) and rates[110] == pytest.approx(0.05)
    falling = [rates[step] for step in range(10, 111)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("schedule", [Noam(warmup=5), Cosine(peak=0.01, warmup=3)])
def test_the_journal_has_the_rates_that_were_used(tiny: Run, tmp_path: Path, schedule: Noam | Cosine) -> None:
    train(replace(tiny, schedule=schedule, budget=Steps(6)), tmp_path, Listener())
    lines = journal(tmp_path, "step")
    assert [line["step"] for line in lines] == [3, 6]
    assert [line["rate"] for line in lines] == [learning_rate(schedule, step, 6, 16) for step in (3, 6)]


def test_the_journal_is_an_account_of_the_run(whole: Whole) -> None:
    kinds = [(line["kind"], line["step"]) for line in journal(whole.folder)]
    steps = [(kind, step) for step in (3, 6, 9, 12) for kind in ("step", "evaluation")]
    assert kinds == [*steps, ("final", 12)]
    tokens = [line["tokens"] for line in journal(whole.folder, "step")]
    assert tokens == sorted(tokens) and len(set(tokens)) == 4


def test_the_validation_loss_is_that_of_each_token_unsmoothed(tiny: Run, looped: Callable[[Run], Loop]) -> None:
    loop = looped(tiny)
    total, count = 0.0, 0
    corpus = loop.ground.task.prepared.valid
    for source, target in (corpus[i] for i in range(len(corpus))):
        read = torch.tensor([[*source.tolist(), END]])
        truth = torch.tensor([*target.tolist(), END])
        given = torch.tensor([[START, *target.tolist()]])
        total += functional.cross_entropy(loop.model(read, Plain(), given)[0], truth, reduction="sum").item()
        count += len(truth)
    for tokens in (1, 100, 10_000):
        run = replace(tiny, batching=replace(tiny.batching, tokens=tokens))
        measured = Translating(run, loop.ground.task.prepared).validation_loss(loop.model)
        assert measured == pytest.approx(total / count, rel=1e-5)


def test_the_final_line_measures_the_averaged_model(whole: Whole) -> None:
    run = whole.run
    prepared = prepare(run.train, run.valid, run.tokenizer, seed=1, longest=run.longest, cache=default_cache())
    (final,) = journal(whole.folder, "final")
    assert final["averaged"] == 2
    measured = Translating(run, prepared).validation_loss(load(whole.folder).model)
    assert final["loss"] == pytest.approx(measured, rel=1e-6)
    assert final["perplexity"] == pytest.approx(math.exp(measured), rel=1e-6)


def test_evaluation_scores_greedy_translations_if_asked(tiny: Run, tmp_path: Path) -> None:
    how = Evaluation(every=2, sentences=1, tokenise="none")
    train(replace(tiny, budget=Steps(2), evaluation=how), tmp_path, Listener())
    assert [("bleu" in line) for line in journal(tmp_path)] == [line["kind"] != "step" for line in journal(tmp_path)]


def test_an_unknown_tokenisation_is_refused_before_the_first_step(tiny: Run, tmp_path: Path) -> None:
    with pytest.raises(QkvError, match="unknown tokenisation of sacreBLEU '13b': did you mean '13a'"):
        train(replace(tiny, evaluation=Evaluation(tokenise="13b")), tmp_path, Listener())
    assert not (tmp_path / "journal.jsonl").exists()
    refuse_unknown("13a")


def test_bleu_of_the_references_themselves_is_100() -> None:
    lines = ["a dog runs over the field", "two men sit on a bench"]
    assert bleu(lines, lines).value == pytest.approx(100)
    assert "tok:13a" in bleu(lines, lines).signature
    assert perplexity(0.0) == 1.0 and perplexity(1e6) == math.inf


# Numbers that are none


def test_a_loss_that_is_not_a_number_names_its_step_and_batch(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    at_step(5, lambda: 1e38)
    with pytest.raises(QkvFailure, match=r"the loss of step 6 is not a number \(epoch \d+, batch \d+ of \d+\)"):
        train(whole.run, tmp_path, Listener())
    assert checkpoints.newest(tmp_path)[0] == tmp_path / "checkpoints" / "step-00000004"
    train(whole.run, tmp_path, Listener(), resume=True)
    assert weights(tmp_path) == weights(whole.folder), "what was kept must be sound"


def test_weights_that_are_not_numbers_are_never_saved(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    at_step(4, lambda: math.inf)
    with pytest.raises(QkvFailure, match=r"after step 4 .* is not made of numbers"):
        train(whole.run, tmp_path, Listener())
    assert checkpoints.all_of(tmp_path) == []


def test_a_run_that_ends_in_what_is_not_a_number_fails(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    at_step(12, lambda: 1e38)
    with pytest.raises(QkvFailure, match="the validation loss of step 12 is not a number"):
        train(whole.run, tmp_path, Listener())
    assert not (tmp_path / "model.safetensors").exists()


# The folder


def test_a_run_is_a_folder_of_these(whole: Whole) -> None:
    names = {path.name for path in whole.folder.iterdir()} - {".lock"}
    expected = "model.json run.toml text.json tokenizer.json model.safetensors manifest.json journal.jsonl curves.png checkpoints"
    assert names == set(expected.split())


def test_a_tokenizer_for_each_side_is_kept_and_found_again(tiny: Run, tmp_path: Path) -> None:
    run = replace(tiny, tokenizer=replace(tiny.tokenizer, joint=False), budget=Steps(2))
    train(run, tmp_path, Listener())
    assert {path.name for path in tmp_path.glob("*tokenizer.json")} == {"source-tokenizer.json", "target-tokenizer.json"}
    source, target = load_tokenizers(tmp_path, load_spec(tmp_path))
    assert source.decode(source.encode(["ka lo"])[0]) == "ka lo"
    assert target.decode(target.encode(["KA LO"])[0]) == "KA LO"
    train(run, tmp_path, Listener(), resume=True)


def test_the_curves_of_a_run_are_a_picture(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    curves.draw(read(whole.folder / "journal.jsonl"), tmp_path / "curves.png", "a run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_journal_that_was_cut_off_loses_only_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written = Journal(path)
    written.write("step", step=1)
    length = written.length
    written.write("step", step=2)
    written.close()
    path.write_bytes(path.read_bytes()[:-5])
    assert read(path) == [{"kind": "step", "step": 1}]
    again = Journal(path)
    again.cut(length)
    again.write("step", step=3)
    again.close()
    assert [line["step"] for line in read(path)] == [1, 3]


def test_without_a_journal_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(QkvError, match="nothing was trained in this folder yet"):
        read(tmp_path / "journal.jsonl")


def test_tensorboard_has_the_numbers_of_the_journal(tiny: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from qkv.train.tensorboard import Board

    mirror = Board(tmp_path / "tensorboard")
    train(replace(tiny, budget=Steps(6)), tmp_path, Listener(), mirror=mirror)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for kind in ("step", "evaluation", "final"):
        mirrored = [(event.step, event.value) for event in events.Scalars(f"{kind}/loss")]
        written = [(line["step"], line["loss"]) for line in journal(tmp_path, kind)]
        assert [step for step, _ in mirrored] == [step for step, _ in written] and written
        assert [value for _, value in mirrored] == pytest.approx([value for _, value in written], rel=1e-6)


# Recipes


def test_a_run_is_read_as_it_was_written(tiny: Run, tmp_path: Path) -> None:
    run = replace(tiny, clip=Clip(0.5), batching=Batching(100, 3), schedule=Noam(7, 0.5), evaluation=Evaluation(tokenise="none"))
    write_run(tmp_path, run)
    assert read_run(tmp_path / "run.toml") == run


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_describes_a_run_of_a_model_that_we_know(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QKV_DATA", "SHAKESPEARE"):
        monkeypatch.setenv(name, "/data")
    run = read_run(path)
    spec = describe(run, (run.tokenizer.vocabulary.size, run.tokenizer.vocabulary.size))
    assert plain.from_plain(plain.to_plain(spec)) == spec


def test_a_recipe_takes_names_from_the_environment(tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, replace(tiny, train=Files(("$QKV_HERE/a",), ("${QKV_HERE}/b",))))
    monkeypatch.setenv("QKV_HERE", "/data")
    assert read_run(tmp_path / "run.toml").train == Files(("/data/a",), ("/data/b",))
    monkeypatch.delenv("QKV_HERE")
    with pytest.raises(QkvError, match=r"names '\$QKV_HERE/a', but that variable is not set"):
        read_run(tmp_path / "run.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[Run", "is no TOML file"),
        ("[Noam]\nwarmup = 3", "describes no run"),
        ("[Run]\nmodle = 'x'", "did you mean 'model'"),
        ("[Run]\nmodel = 'x'", "missing .*argument: 'train'"),
        ("[Run]\nmodel = 'x'\n[Run.train.Flies]", "did you mean 'Files'"),
        ("", "a value is written as one name"),
    ],
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(QkvError, match=words):
        read_run(tmp_path / "r.toml")
