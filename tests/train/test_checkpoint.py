"""Checkpoints cannot lie: what is not as it was written is known, and what was written before a failure is kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.conftest import Listener, Whole, journal, weights
from torch import Tensor

from qkv.error import QkvError, QkvFailure
from qkv.spec.data import AtMost, Exactly
from qkv.spec.run import Checkpoints, Run
from qkv.store import load_weights, save_weights
from qkv.train import checkpoint as checkpoints
from qkv.train.checkpoint import Checkpoint, Progress
from qkv.train.journal import Journal
from qkv.train.run import train
from qkv.train.run_folder import RECIPE


def made(step: int, owed: bool = False) -> Checkpoint:
    """A small checkpoint whose weights are its step."""
    tensors = {"w": torch.full((64,), float(step)), "b": torch.tensor([step / 3])}
    return Checkpoint(Progress(step=step, owed=owed), tensors, {f"exp_avg/{name}": value / 7 for name, value in tensors.items()})


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints.all_of(run)]


@pytest.fixture
def saved(tmp_path: Path) -> list[Path]:
    """The checkpoints of the steps 4, 8 and 12."""
    return [checkpoints.save(tmp_path, made(step), keep=3, every=4) for step in (4, 8, 12)]


def test_what_is_loaded_is_what_was_saved(saved: list[Path]) -> None:
    found, expected = checkpoints.load(saved[-1]), made(12)
    assert found.progress == expected.progress
    for read, written in ((found.weights, expected.weights), (found.moments, expected.moments)):
        assert read.keys() == written.keys()
        assert all(torch.equal(read[name], written[name]) for name in written)


def test_progress_is_read_to_the_last_bit(tmp_path: Path) -> None:
    progress = Progress(step=3, seconds=0.1 + 0.2, best=float("inf"), unlogged_loss=1 / 3, build={"torch": "2", "threads": 1})
    path = checkpoints.save(tmp_path, replace(made(3), progress=progress), keep=1)
    assert checkpoints.load(path).progress == progress


@pytest.mark.parametrize("name", sorted(checkpoints.CHECKPOINT_FILES))
def test_any_byte_that_is_altered_is_found(saved: list[Path], name: str) -> None:
    file = saved[-1] / name
    whole = bytearray(file.read_bytes())
    for place in (0, len(whole) // 2, len(whole) - 1):
        altered = bytearray(whole)
        altered[place] ^= 1
        file.write_bytes(altered)
        assert name in checkpoints.damage(saved[-1])
    file.write_bytes(whole)
    assert checkpoints.damage(saved[-1]) == ""


@pytest.mark.parametrize("name", sorted(checkpoints.CHECKPOINT_FILES))
def test_a_file_cut_short_or_gone_is_found(saved: list[Path], name: str) -> None:
    file = saved[-1] / name
    file.write_bytes(file.read_bytes()[:-1])
    assert name in checkpoints.damage(saved[-1])
    file.unlink()
    assert f"{name} is missing" in checkpoints.damage(saved[-1])


@pytest.mark.parametrize("manifest", ["", "{}", "[]", "{", '{"model.safetensors": 3}'])
def test_a_manifest_that_says_nothing_vouches_for_nothing(saved: list[Path], manifest: str) -> None:
    (saved[-1] / checkpoints.MANIFEST).write_text(manifest)
    assert checkpoints.damage(saved[-1])


def test_newest_falls_back_to_what_verifies(tmp_path: Path, saved: list[Path]) -> None:
    assert checkpoints.newest(tmp_path) == (saved[2], [])
    (saved[2] / "model.safetensors").write_bytes(b"")
    found, damaged = checkpoints.newest(tmp_path)
    assert found == saved[1]
    assert len(damaged) == 1 and str(saved[2]) in damaged[0]


def test_where_none_verifies_nothing_is_trusted(tmp_path: Path, saved: list[Path]) -> None:
    for path in saved:
        (path / "progress.json").unlink()
    with pytest.raises(QkvError, match="no checkpoint can be trusted") as error:
        checkpoints.newest(tmp_path)
    assert all(str(path) in str(error.value) for path in saved)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path) == (None, [])


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    kept = []
    for step in (4, 8, 12, 16, 17):
        checkpoints.save(tmp_path, made(step), keep=3, every=4)
        kept.append(steps(tmp_path))
    assert kept == [[4], [4, 8], [4, 8, 12], [8, 12, 16], [12, 16, 17]]


def test_a_checkpoint_for_a_signal_displaces_no_other_and_goes_with_the_next(tmp_path: Path) -> None:
    kept = []
    for step, owed in ((4, False), (8, False), (9, True), (10, True), (12, True), (12, False), (16, False)):
        checkpoints.save(tmp_path, made(step, owed), keep=2, every=4)
        kept.append(steps(tmp_path))
    assert kept == [[4], [4, 8], [4, 8, 9], [4, 8, 10], [4, 8, 12], [8, 12], [12, 16]]


def test_damaged_checkpoints_do_not_push_out_sound_ones(tmp_path: Path, saved: list[Path]) -> None:
    (saved[2] / "model.safetensors").write_bytes(b"")
    checkpoints.save(tmp_path, made(9, owed=True), keep=1, every=4)
    assert steps(tmp_path) == [8, 9]
    checkpoints.save(tmp_path, made(12), keep=1, every=4)
    assert steps(tmp_path) == [12] and checkpoints.damage(saved[2]) == ""


def test_a_half_written_folder_is_no_checkpoint_and_is_replaced(tmp_path: Path, saved: list[Path]) -> None:
    half = tmp_path / "checkpoints" / ".writing-step-00000016"
    shutil.copytree(saved[2], half)
    (half / "rubbish").write_text("rubbish")
    assert half not in checkpoints.all_of(tmp_path)
    new = checkpoints.save(tmp_path, made(16), keep=3, every=4)
    assert not half.exists() and not (new / "rubbish").exists()
    assert checkpoints.damage(new) == ""


def test_a_damaged_checkpoint_of_the_same_step_is_written_anew(tmp_path: Path, saved: list[Path]) -> None:
    (saved[2] / "moments.safetensors").write_bytes(b"")
    checkpoints.save(tmp_path, made(12), keep=3, every=4)
    assert checkpoints.damage(saved[2]) == ""


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def weights_on_a_full_disk(path: Path, tensors: dict[str, Tensor]) -> None:
    path.write_bytes(b"half of")
    if path.name == "moments.safetensors":
        full_disk()


@pytest.mark.parametrize(
    ("place", "failing"), [("save_weights", weights_on_a_full_disk), ("os.fsync", full_disk), ("write_manifest", full_disk)]
)
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, saved: list[Path], monkeypatch: pytest.MonkeyPatch, place: str, failing: Callable[..., Any]
) -> None:
    monkeypatch.setattr(f"qkv.train.checkpoint.{place}", failing)
    with pytest.raises(QkvFailure, match=r"step 16 could not be written to .*No space left on device; those before it are kept"):
        checkpoints.save(tmp_path, made(16), keep=3, every=4)
    assert [checkpoints.damage(path) for path in saved] == ["", "", ""]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [path.name for path in saved]


def test_a_disk_that_does_not_keep_what_was_written_is_found_out(
    tmp_path: Path, saved: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = checkpoints.write_manifest

    def forgetful(folder: Path, names: list[str]) -> None:
        true(folder, names)
        (folder / "model.safetensors").write_bytes(b"\0" * 100)

    monkeypatch.setattr(checkpoints, "write_manifest", forgetful)
    with pytest.raises(QkvFailure, match="not to be trusted; older checkpoints are kept"):
        checkpoints.save(tmp_path, made(16), keep=1, every=4)
    assert [checkpoints.damage(path) for path in saved] == ["", "", ""]


def test_a_journal_on_a_full_disk_is_a_failure_and_no_traceback() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    full = Journal(Path("/dev/full"))
    with pytest.raises(QkvFailure, match="/dev/full could not be written: No space left on device"):
        full.write("step", step=1)
    full.close()


def test_weights_that_cannot_be_written_leave_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(QkvFailure, match="could not be written"):
        save_weights(tmp_path / "missing" / "model.safetensors", {"w": torch.zeros(3)})


@pytest.mark.parametrize("content", [b"", b"\x08", b"rubbish" * 100])
def test_weights_that_are_none_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(QkvError, match=f"{path} is missing"):
        load_weights(path)
    path.write_bytes(content)
    with pytest.raises(QkvError, match=f"{path} cannot be read"):
        load_weights(path)


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(12.0).view(3, 4), "b": torch.ones(2)}
    save_weights(tmp_path / "one", tensors)
    save_weights(tmp_path / "other", {name: tensor.t().contiguous().t() for name, tensor in tensors.items()})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


# In a run

FULL = """
    import resource, sys
    from qkv.cli.main import main
    from qkv.train import loop

    rate = loop.learning_rate

    def limited(schedule, step, *more):
        if step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        return rate(schedule, step, *more)

    loop.learning_rate = limited
    main()
"""


def test_a_run_whose_disk_fills_up_ends_with_1_and_goes_on_when_there_is_room(
    whole: Whole, tmp_path: Path, python: tuple[list[str], dict[str, str]]
) -> None:
    pytest.importorskip("resource")
    start, environment = python
    call = ["train", "translate", "--recipe", str(whole.folder / RECIPE), "--out", str(tmp_path), "--threads", "1"]
    done = subprocess.run([*start, textwrap.dedent(FULL), *call], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("qkv: ")]
    assert "the checkpoint of step 8 could not be written" in said and "File too large" in said and "are kept" in said
    assert "Traceback" not in done.stderr
    assert steps(tmp_path) == [4] and not list((tmp_path / "checkpoints").glob(".writing*"))
    train(whole.run, tmp_path, Listener(), resume=True)
    assert weights(tmp_path) == weights(whole.folder)


def test_a_run_goes_back_past_damage_with_a_warning(whole: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    (folder / "manifest.json").unlink()
    damaged = folder / "checkpoints" / "step-00000012" / "moments.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    watch = Listener()
    train(whole.run, folder, watch, resume=True)
    assert watch.heard("warning:") and watch.heard("step-00000012") and watch.heard("going on from step 8")
    assert weights(folder) == weights(whole.folder)
    assert journal(folder) == journal(whole.folder)


def test_the_final_model_is_the_mean_of_the_last_checkpoints(tiny: Run, tmp_path: Path) -> None:
    train(replace(tiny, checkpoints=Checkpoints(every=4, keep=3, average=Exactly(2))), tmp_path, Listener())
    paths = checkpoints.all_of(tmp_path)
    assert steps(tmp_path) == [4, 8, 12]
    last = [load_weights(path / "model.safetensors") for path in paths[1:]]
    final = load_weights(tmp_path / "model.safetensors")
    assert final.keys() == last[0].keys()
    for name, tensor in final.items():
        torch.testing.assert_close(tensor, (last[0][name] + last[1][name]) / 2)
        assert not torch.equal(tensor, last[1][name]), name


def test_where_fewer_checkpoints_validate_better_fewer_are_averaged(tiny: Run, tmp_path: Path) -> None:
    losses, averaged = [], []
    for count in (1, 2, 3):
        run = replace(tiny, checkpoints=Checkpoints(every=4, keep=3, average=Exactly(count)))
        train(run, tmp_path / str(count), Listener())
        losses.append(journal(tmp_path / str(count), "final")[0]["loss"])
        averaged.append(weights(tmp_path / str(count)))
    train(replace(tiny, checkpoints=Checkpoints(every=4, keep=3, average=AtMost(3))), tmp_path / "best", Listener())
    (final,) = journal(tmp_path / "best", "final")
    best = losses.index(min(losses))
    assert len(set(losses)) == 3
    assert (final["averaged"], final["loss"]) == (best + 1, losses[best])
    assert weights(tmp_path / "best") == averaged[best]


def test_a_damaged_checkpoint_takes_no_part_in_the_average(whole: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    (folder / "manifest.json").unlink()
    older = folder / "checkpoints" / "step-00000008" / "model.safetensors"
    altered = bytearray(older.read_bytes())
    altered[-1] ^= 64
    older.write_bytes(altered)
    watch = Listener()
    train(whole.run, folder, watch, resume=True)
    assert watch.heard("left out of the average")
    only = load_weights(folder / "checkpoints" / "step-00000012" / "model.safetensors")
    assert all(torch.equal(tensor, only[name]) for name, tensor in load_weights(folder / "model.safetensors").items())


def test_a_checkpoint_holds_no_pickle(whole: Whole) -> None:
    for path in checkpoints.all_of(whole.folder):
        assert {file.name for file in path.iterdir()} == checkpoints.CHECKPOINT_FILES | {checkpoints.MANIFEST}
        json.loads((path / "progress.json").read_text())
        load_weights(path / "moments.safetensors")
