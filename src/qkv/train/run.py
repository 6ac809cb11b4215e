"""A whole run: from a description to a finished run folder."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from qkv import device as machine
from qkv.data.cache import default_cache
from qkv.data.tokenizer import Tokenizers
from qkv.error import QkvError
from qkv.look import curves
from qkv.papers.catalogue import named
from qkv.spec import plain
from qkv.spec.count import parameters
from qkv.spec.data import Exactly, Stories
from qkv.spec.model import Joint, Model, Sentences, Separate
from qkv.spec.objective import Classify, Delete, Generate, Infill, MaskedWords, Rotate, Spans, Translate
from qkv.spec.run import From, Minutes, Run
from qkv.store import load_spec, load_tokenizers, put_weights, save_spec, save_tokenizers, save_weights
from qkv.train import checkpoint as checkpoints
from qkv.train.journal import Journal, Mirror, read
from qkv.train.loop import Ground, Loop, Watch, begun, said
from qkv.train.run_folder import RECIPE, differences, held, read_run, write_run
from qkv.train.task import Task
from qkv.train.tasks import classifier, labels_of, placed, refuse_misfit, spelled, task_of

WEIGHTS = "model.safetensors"
USED_BY: dict[type, str] = {Translate: "translate", Generate: "generate", MaskedWords: "fill", Classify: "classify"}
USED_BY |= dict.fromkeys((Spans, Infill, Delete, Rotate), "train translate --from")


def train(run: Run, folder: Path, watch: Watch, *, resume: bool = False, mirror: Mirror | None = None) -> None:
    """Train a run into its folder. Raises QkvError for a wrong call, QkvFailure if training fails, Interrupted if a signal
    stopped it."""
    # asked first: what is wrong with the model should be said before the text is read
    unit = describe(run, (8, 8)).embedding.unit
    with held(folder):
        run = _agreed(run, folder, resume)
        task = task_of(run, _tokenizers(run, folder), default_cache(), unit)
        for line in task.report.lines():
            watch.say(line)
        spec = spelled(describe(run, task.report.vocabularies, labels_of(task)), task)
        where = machine.pick(run.device, run.precision)
        model = begun(run, spec)
        _begin(run, folder, spec, task)
        journal = Journal(folder / "journal.jsonl", mirror)
        try:
            loop = Loop(Ground(run, folder, model, task, where), journal, watch)
            watch.say(
                f"{run.model}: {parameters(spec):,} parameters on {where.device}, "
                f"{'bf16' if where.precision.itemsize == 2 else 'fp32'} ({where.why})"
            )
            watch.say(f"{len(loop.plan):,} batches an epoch, {loop.plan.padding:.1%} of their positions padding")
            loop.warn()
            _run(loop, resume)
        finally:
            journal.close()


def describe(run: Run, vocabulary: tuple[int, int], labels: tuple[str, ...] = ("", " ")) -> Model:
    """The model of a run for the sizes of its vocabularies and its labels, with the changes made to it.

    Raises QkvError where that model cannot learn what the run is to teach it.
    """
    if isinstance(run.start, From):
        spec = load_spec(Path(run.start.run))
    else:
        source, target = vocabulary
        spec = placed(run, named(run.model, Joint(source) if run.tokenizer.joint else Separate(source, target)))
    if isinstance(run.objective, Classify):
        spec = classifier(spec, labels, run.objective.pooling)
        if isinstance(run.train, Stories):
            spec = replace(spec, embedding=replace(spec.embedding, unit=Sentences()))
    for setting in run.changes:
        spec = plain.change(spec, setting)
    refuse_misfit(run, spec)
    return spec


def _agreed(run: Run, folder: Path, resume: bool) -> Run:
    """The run of the folder, which must be the run of the call; it may know by now how many steps its minutes are."""
    if not (folder / RECIPE).is_file():
        if any(path.name != ".lock" for path in folder.iterdir()):
            raise QkvError(f"{folder} is not empty and holds no run; give --out another folder")
        return run
    if not resume:
        raise QkvError(f"{folder} holds a run already; go on with it by --resume, or give --out another folder")
    begun = read_run(folder / RECIPE)
    if isinstance(begun.budget, Minutes) and run.budget == Minutes(begun.budget.number):
        run = replace(run, budget=begun.budget)
    changed = differences(begun, run)
    if changed:
        raise QkvError(f"{folder} was begun with other options: {'; '.join(changed)}. A run that goes on keeps its options")
    return run


def _tokenizers(run: Run, folder: Path) -> Tokenizers | None:
    """The run's own tokenizers if it has some already, or those of the run that it starts from."""
    if (folder / "model.json").is_file():
        return Tokenizers(*load_tokenizers(folder, load_spec(folder)))
    if isinstance(run.start, From):
        start = Path(run.start.run)
        return Tokenizers(*load_tokenizers(start, load_spec(start)))
    return None


def _begin(run: Run, folder: Path, spec: Model, task: Task) -> None:
    """Write down what the run is, or see that its text is still what it was."""
    note = folder / "text.json"
    texts = task.fingerprints
    if note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        changed = [name for name in texts if before.get(name) != texts[name]]
        if changed:
            raise QkvError(
                f"the {' and '.join(changed)} text is not what {folder} was begun with; a run that goes on keeps its text"
            )
    if (folder / "model.json").is_file():
        return  # nothing is written a second time: a disk that is full by now would leave less than there was
    write_run(folder, run)  # first: a folder that holds it can be gone on with
    note.write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
    save_tokenizers(folder, *task.tokenizers)
    save_spec(folder, spec)


def _run(loop: Loop, resume: bool) -> None:
    folder, watch = loop.ground.folder, loop.watch
    if resume and finished(folder):
        watch.say("this run is finished; there is nothing to go on with")
        return
    found, damaged = checkpoints.newest(folder) if resume else (None, [])
    for problem in damaged:
        watch.say(f"warning: {problem}; going back to the checkpoint before it")
    if found:
        loop.restore(checkpoints.load(found))
        watch.say(f"going on from step {loop.progress.step:,}")
    elif resume:
        loop.journal.cut(0)
        watch.say("no checkpoint was written before the run stopped: starting over")
    why = loop.finish()
    watch.say(f"done: {why}")
    finish(loop)


def finished(folder: Path) -> bool:
    """Whether a run has come to its very end, where its final model was measured."""
    return (folder / checkpoints.MANIFEST).is_file() and any(line["kind"] == "final" for line in read(folder / "journal.jsonl"))


def finish(loop: Loop) -> None:
    """Average the last checkpoints into the final model, measure it, and draw the curves."""
    folder = loop.ground.folder
    weights, averaged = _averaged(loop)
    aside = folder / f".writing-{WEIGHTS}"
    save_weights(aside, weights)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.rename(folder / WEIGHTS)
    checkpoints.write_manifest(
        folder, ["model.json", RECIPE, WEIGHTS, *sorted(path.name for path in folder.glob("*tokenizer*.json"))]
    )
    put_weights(loop.model, weights, folder)
    fields = loop.ground.task.measure(loop.model)
    loop.journal.write("final", step=loop.progress.step, averaged=averaged, seconds=round(loop.progress.seconds, 2), **fields)
    of = "the last checkpoint" if averaged == 1 else f"the average of the last {averaged} checkpoints"
    loop.watch.say(f"{of}: {said(fields)}")
    curves.draw(read(folder / "journal.jsonl"), folder / "curves.png", f"{loop.run.model}, {folder.name}")
    verb = USED_BY[type(loop.run.objective)]
    loop.watch.say(f"the run is in {folder}: `qkv {verb} {folder}` uses it, {folder / 'curves.png'} shows how it learned")


def _averaged(loop: Loop) -> tuple[dict[str, Tensor], int]:
    """The weights of the finished model, and of how many checkpoints they are the average."""
    how, paths = loop.run.checkpoints.average, []
    for path in checkpoints.all_of(loop.ground.folder)[-how.size :]:
        problem = checkpoints.damage(path)
        if problem:
            loop.watch.say(f"warning: {problem}; it is left out of the average")
        else:
            paths.append(path)
    if isinstance(how, Exactly):
        *_, weights = checkpoints.averages(paths)
        return weights, len(paths)
    found, least = ({}, 0), math.inf
    for count, weights in enumerate(checkpoints.averages(paths), 1):
        put_weights(loop.model, weights, loop.ground.folder)
        loss = loop.ground.task.validation_loss(loop.model)
        if not found[1] or loss < least:
            found, least = (weights, count), loss
    return found
