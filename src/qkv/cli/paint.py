"""`qkv generate` for runs that learned from pictures or sounds: a PNG, or a WAV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qkv.cli.use import loaded
from qkv.error import QkvError

NAMES = "prompts ban allow beam groups contrastive draft stop stream only_new output json".split()
ONLY_TEXT = {"prompt": "a prompt"} | {name: f"--{name.replace('_', '-')}" for name in NAMES}


def asked(run: Path, out: Path | None, complete: Path | None, keep: float | None) -> bool:
    """Whether a picture or a sound is to be written. Raises QkvError where it should be and is not, or is and should not be."""
    from qkv.spec.data import Pictures, Sounds
    from qkv.train.run_folder import form_of

    form = form_of(run)
    if isinstance(form, Pictures | Sounds):
        what, suffix = ("pictures", ".png") if isinstance(form, Pictures) else ("sounds", ".wav")
        if out is None or out.suffix.lower() != suffix:
            raise QkvError(f"{run} writes {what}: say where by --out, as a name that ends in {suffix}")
        if not out.parent.is_dir():
            raise QkvError(f"{out} cannot be written: there is no folder {out.parent}")
        if keep is not None and (complete is None or not 0 < keep <= 1):
            raise QkvError("--keep is the share of --complete that is kept, above 0 and at most 1")
        return True
    if out is not None or complete is not None or keep is not None:
        raise QkvError(f"{run} did not learn from pictures or sounds: leave out --out, --complete and --keep")
    return False


def write(options: dict[str, Any]) -> None:
    """Write what the options describe."""
    from qkv.cli.generate import how_of, rules_of, warn_rounded
    from qkv.decode.generate import Writer
    from qkv.decode.load import INT8
    from qkv.spec.data import Pictures
    from qkv.train.run_folder import form_of

    wrong = [said for name, said in ONLY_TEXT.items() if options[name]]
    if wrong:
        raise QkvError(f"{options['run']} writes no text, and {' and '.join(wrong)} would be about some: leave that out")
    writer = Writer(loaded(options["run"], options["device"], options["precision"], options["threads"]))
    form, how, rules = form_of(options["run"]), how_of(options, writer), rules_of(options, writer)
    if options["precision"] == INT8:
        warn_rounded(options["run"], writer)
    if isinstance(form, Pictures):
        _picture(writer, form, how, rules, options)
    else:
        _sound(writer, form, how, rules, options)


def _picture(writer: Any, form: Any, how: Any, rules: list[Any], options: dict[str, Any]) -> None:
    from qkv.data.pictures import grid, only_picture, write_picture
    from qkv.decode.generate import Greedy
    from qkv.decode.paint import paint

    count = 1 if options["count"] is None else options["count"]
    if count < 1 or (count > 1 and isinstance(how, Greedy)):
        raise QkvError(f"--count {count}: at least 1 picture is painted, and by --greedy, which always paints the same, just 1")
    if options["length"] is not None:
        raise QkvError("a picture is as large as those that the run learned from: leave out --length")
    top = None
    if options["complete"] is not None:
        share = 0.5 if options["keep"] is None else options["keep"]
        rows = round(share * form.height)
        if not 0 < rows < form.height:
            raise QkvError(f"--keep {share} is {rows} of the {form.height} rows: at least 1 is kept, and at least 1 painted")
        top = only_picture(str(options["complete"]), form)[:rows]
    write_picture(options["out"], grid(paint(writer, form, how, rules, count=count, top=top)))


def _sound(writer: Any, form: Any, how: Any, rules: list[Any], options: dict[str, Any]) -> None:
    import numpy as np

    from qkv.data.sounds import linear, mu_law, read_sound, write_sound
    from qkv.decode.paint import go_on
    from qkv.train.run_folder import RECIPE, read_run

    if options["count"] not in (None, 1):
        raise QkvError("a WAV holds one sound: leave out --count, and give another --seed for another")
    begun = np.empty(0)
    if options["complete"] is not None:
        begun = read_sound(str(options["complete"]), form.rate)
        begun = begun[: max(1, round((1.0 if options["keep"] is None else options["keep"]) * len(begun)))]
    length = form.rate if options["length"] is None else options["length"]
    context = read_run(options["run"] / RECIPE).longest
    rest = go_on(writer, mu_law(begun), how, rules, length=length, context=context)
    write_sound(options["out"], np.concatenate([begun, linear(rest)]), form.rate)
