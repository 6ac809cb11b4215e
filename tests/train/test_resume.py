"""A run that was interrupted ends as if it never had been: the same bytes of the model, the same lines of the journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.train.conftest import Listener, Whole, journal, sentences, weights, write

from qkv.error import QkvError
from qkv.spec.data import Exactly, Files
from qkv.spec.run import Adam, Checkpoints, Cosine, Epochs, Evaluation, Minutes, Patience, Run, Steps
from qkv.train import checkpoint as checkpoints
from qkv.train import run as runs
from qkv.train.loop import Interrupted
from qkv.train.pairs import Translating
from qkv.train.run import train
from qkv.train.run_folder import RECIPE, held, read_run

AtStep = Callable[[int, Callable[[], Any]], None]


class Crash(Exception):
    """What no code of ours knows."""


def crash() -> None:
    raise Crash


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def same(folder: Path, whole: Whole) -> None:
    """The law of this file."""
    assert journal(folder) == journal(whole.folder)
    assert weights(folder) == weights(whole.folder)
    assert [path.name for path in checkpoints.all_of(folder)] == [path.name for path in checkpoints.all_of(whole.folder)]


def resumed(run: Run, folder: Path) -> Listener:
    watch = Listener()
    train(run, folder, watch, resume=True)
    return watch


def test_two_equal_runs_are_equal_to_the_byte(whole: Whole, tmp_path: Path) -> None:
    train(whole.run, tmp_path / "run", Listener())
    same(tmp_path / "run", whole)


def test_another_seed_is_another_model(whole: Whole, tmp_path: Path) -> None:
    train(replace(whole.run, seed=2), tmp_path / "run", Listener())
    assert weights(tmp_path / "run") != weights(whole.folder)


def test_what_run_toml_says_trains_the_same_model(whole: Whole, tmp_path: Path) -> None:
    written = read_run(whole.folder / RECIPE)
    assert written == whole.run
    train(written, tmp_path / "again", Listener())
    same(tmp_path / "again", whole)


# Checkpoints are at 4, 8 and 12; a step begins a new epoch about every fifth batch.
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("step", "gone_on_from"), [(7, 4), (8, 4), (9, 8), (12, 8)])
def test_a_crash_at_any_step_changes_nothing(
    wholes: dict[int, Whole], tmp_path: Path, at_step: AtStep, accumulate: int, step: int, gone_on_from: int
) -> None:
    whole = wholes[accumulate]
    at_step(step, crash)
    with pytest.raises(Crash):
        train(whole.run, tmp_path, Listener())
    watch = resumed(whole.run, tmp_path)
    assert watch.heard(f"going on from step {gone_on_from}")
    same(tmp_path, whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_crash_changes_nothing_but_rounding(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    run = replace(whole.run, device="cuda", precision="fp32")
    train(run, tmp_path / "whole", Listener())
    at_step(7, crash)
    with pytest.raises(Crash):
        train(run, tmp_path / "parts", Listener())
    assert resumed(run, tmp_path / "parts").heard("going on from step 4")
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("parts", "whole"))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4)


def test_a_crash_of_the_watch_changes_nothing(whole: Whole, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        train(whole.run, tmp_path, Listener(on_step=lambda step: crash() if step == 6 else None))
    resumed(whole.run, tmp_path)
    same(tmp_path, whole)


def test_a_crash_before_the_first_checkpoint_starts_over_and_says_so(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    at_step(4, crash)
    with pytest.raises(Crash):
        train(whole.run, tmp_path, Listener())
    assert journal(tmp_path), "there must be something to forget"
    watch = resumed(whole.run, tmp_path)
    assert watch.heard("starting over")
    same(tmp_path, whole)


@pytest.mark.parametrize(("accumulate", "step"), [(1, 2), (1, 3), (1, 8), (1, 10), (1, 12), (2, 6), (2, 7)])
def test_a_signal_saves_and_changes_nothing(
    wholes: dict[int, Whole], tmp_path: Path, at_step: AtStep, accumulate: int, step: int
) -> None:
    whole = wholes[accumulate]
    at_step(step, terminate)
    with pytest.raises(Interrupted) as stop:
        train(whole.run, tmp_path, Listener())
    assert stop.value.number == signal.SIGTERM
    newest = checkpoints.newest(tmp_path)[0]
    assert newest is not None and checkpoints.load(newest).progress.step == step, "no step may be lost to a signal"
    assert resumed(whole.run, tmp_path).heard(f"going on from step {step}")
    same(tmp_path, whole)


def test_many_signals_change_nothing(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    for step in (1, 2, 5, 6, 7, 11):
        at_step(step, terminate)
        with pytest.raises(Interrupted):
            train(whole.run, tmp_path, Listener(), resume=step > 1)
        assert checkpoints.newest(tmp_path)[0] == tmp_path / "checkpoints" / f"step-{step:08d}"
    resumed(whole.run, tmp_path)
    same(tmp_path, whole)


def test_signals_mean_what_they_meant_before_once_training_is_over(whole: Whole, tmp_path: Path, at_step: AtStep) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    at_step(1, terminate)
    with pytest.raises(Interrupted):
        train(whole.run, tmp_path, Listener())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from qkv.train import checkpoint, loop
    from qkv.train.run import train
    from qkv.train.run_folder import read_run

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    class Silent:
        def say(self, line): pass
        def step(self, *told): pass

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    loop.LOG_EVERY = 3
    recipe, folder, where = sys.argv[1:]
    rate, manifest = loop.learning_rate, checkpoint.write_manifest
    if where == "in a step":
        loop.learning_rate = lambda schedule, step, *more: die() if step == 7 else rate(schedule, step, *more)
    else:
        checkpoint.write_manifest = lambda aside, names: die() if "8" in aside.name else manifest(aside, names)
    train(read_run(Path(recipe)), Path(folder), Silent())
"""


@pytest.mark.parametrize("where", ["in a step", "while saving"])
def test_kill_9_changes_nothing(whole: Whole, tmp_path: Path, python: tuple[list[str], dict[str, str]], where: str) -> None:
    start, environment = python
    told = [str(whole.folder / RECIPE), str(tmp_path), where]
    done = subprocess.run([*start, textwrap.dedent(KILLED), *told], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if where == "while saving":
        half = tmp_path / "checkpoints" / ".writing-step-00000008"
        assert half.is_dir()
        assert half not in checkpoints.all_of(tmp_path)
    assert resumed(whole.run, tmp_path).heard("going on from step 4")
    assert not list((tmp_path / "checkpoints").glob(".writing*")), "what was half written is replaced"
    same(tmp_path, whole)


def test_a_finished_run_says_so_and_stays_as_it_is(whole: Whole, tmp_path: Path) -> None:
    train(whole.run, tmp_path, Listener())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert resumed(whole.run, tmp_path).heard("finished")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(whole: Whole, tmp_path: Path) -> None:
    train(whole.run, tmp_path, Listener())
    for path in checkpoints.all_of(tmp_path):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    watch = resumed(whole.run, tmp_path)
    assert watch.heard("finished") and not watch.steps
    same_model = weights(tmp_path) == weights(whole.folder)
    assert same_model and journal(tmp_path) == journal(whole.folder)


@pytest.mark.parametrize("place", ["save_weights", "measure"])
def test_a_crash_after_the_last_step_changes_nothing(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    with monkeypatch.context() as patch:
        if place == "save_weights":
            patch.setattr(runs, "save_weights", lambda path, weights: crash())
        else:
            true = Translating.measure
            patch.setattr(
                Translating,
                "measure",
                lambda self, model: crash() if (tmp_path / "manifest.json").exists() else true(self, model),
            )
        with pytest.raises(Crash):
            train(whole.run, tmp_path, Listener())
    resumed(whole.run, tmp_path)
    same(tmp_path, whole)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("seed", {"seed": 2}),
        ("schedule.peak", {"schedule": Cosine(peak=0.02, warmup=3)}),
        ("optimiser.beta2", {"optimiser": Adam(beta2=0.99)}),
        ("budget", {"budget": Epochs(3)}),
        ("budget.number", {"budget": Steps(24)}),
        ("changes", {"changes": ("width=32",)}),
        ("precision", {"precision": "bf16"}),
    ],
)
def test_a_run_that_goes_on_keeps_its_options(whole: Whole, name: str, changed: dict[str, Any]) -> None:
    with pytest.raises(QkvError, match=rf"begun with other options: {name}: .* before, .* now"):
        train(replace(whole.run, **changed), whole.folder, Listener(), resume=True)


def test_a_run_that_goes_on_keeps_its_text(tiny: Run, tmp_path: Path, at_step: AtStep) -> None:
    lines = sentences(60, 3)
    files = Files((write(tmp_path / "a", lines),), (write(tmp_path / "b", lines),))
    run = replace(tiny, train=files)
    at_step(6, crash)
    with pytest.raises(Crash):
        train(run, tmp_path / "run", Listener())
    write(tmp_path / "b", [*lines[:-1], "ka ka ka"])
    with pytest.raises(QkvError, match=r"the training text is not what .* was begun with"):
        resumed(run, tmp_path / "run")
    write(tmp_path / "b", lines)
    assert resumed(run, tmp_path / "run").heard("going on from step 4")


def test_a_folder_with_a_run_in_it_needs_resume(whole: Whole) -> None:
    with pytest.raises(QkvError, match="holds a run already; go on with it by --resume"):
        train(whole.run, whole.folder, Listener())


def test_a_run_that_was_killed_while_it_was_begun_can_be_gone_on_with(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for late in ("save_tokenizers", "save_spec"):
        with monkeypatch.context() as patch:
            patch.setattr(runs, late, lambda *_: crash())
            with pytest.raises(Crash):
                train(whole.run, tmp_path / late, Listener())
        resumed(whole.run, tmp_path / late)
        same(tmp_path / late, whole)


# The lock

HOLDER = """
    import sys, time, filelock
    lock = filelock.FileLock(sys.argv[1])
    lock.acquire()
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_counts_as_long_as_its_process_lives(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        try:
            with pytest.raises(QkvError, match=f"{tmp_path} is in use"), held(tmp_path):
                pass
        finally:
            other.kill()
    assert (tmp_path / ".lock").exists(), "a process that was killed leaves the file behind"
    with held(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(QkvError, match=f"{folder} cannot be written to: "):
            train(whole.run, folder, Listener())


def test_a_folder_with_other_things_in_it_is_left_alone(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(QkvError, match="is not empty and holds no run"):
        train(whole.run, tmp_path, Listener())
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {"thesis.tex"}


# Ends other than a number of steps


def test_minutes_fix_the_number_of_steps_once(tiny: Run, tmp_path: Path) -> None:
    run = replace(tiny, budget=Minutes(0.015), checkpoints=Checkpoints(every=1000, keep=1, average=Exactly(1)))
    run = replace(run, evaluation=Evaluation(every=1000, sentences=0))
    watch = Listener(on_line=lambda line: terminate() if "the run now has" in line else None)
    with pytest.raises(Interrupted):
        train(run, tmp_path, watch)
    (fixed,) = journal(tmp_path, "steps")
    resumed(run, tmp_path)
    (still,) = journal(tmp_path, "steps")
    (final,) = journal(tmp_path, "final")
    assert still == fixed
    assert fixed["step"] < fixed["steps"] == final["step"]


def test_epochs_are_passes_over_the_text(tiny: Run, tmp_path: Path) -> None:
    watch = Listener()
    train(replace(tiny, budget=Epochs(2), evaluation=Evaluation(100, 0)), tmp_path, watch)
    batches = next(int(line.split()[0]) for line in watch.lines if "batches an epoch" in line)
    (final,) = journal(tmp_path, "final")
    assert final["step"] == 2 * batches
    assert journal(tmp_path, "step")[-1]["epoch"] == 1


@pytest.fixture
def impatient(tiny: Run) -> Run:
    """Nothing is learned at a rate of 0: the second and the third evaluation find no better loss than the first."""
    return replace(tiny, schedule=Cosine(peak=0.0), stopping=Patience(2), evaluation=Evaluation(every=3, sentences=0))


def test_a_run_stops_when_its_patience_ends(impatient: Run, tmp_path: Path) -> None:
    watch = Listener()
    train(impatient, tmp_path, watch)
    assert watch.heard("has not improved for 2 evaluations")
    (final,) = journal(tmp_path, "final")
    assert final["step"] == 9


def test_a_run_at_the_end_of_its_patience_makes_no_more_steps(
    impatient: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runs, "finish", lambda loop: crash())
        with pytest.raises(Crash):
            train(impatient, tmp_path, Listener())
    assert resumed(impatient, tmp_path).heard("has not improved for 2 evaluations")
    (final,) = journal(tmp_path, "final")
    assert final["step"] == 9
    assert resumed(impatient, tmp_path).heard("finished")
