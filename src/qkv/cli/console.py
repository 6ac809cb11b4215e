"""What a command says on standard error while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `qkv --help` does not wait for it
    from rich.progress import Progress, TaskID

PLAIN_EVERY = 15.0  # seconds between plain lines


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class Watcher:
    """Says lines, and shows how far a training is."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last = 0.0

    def __enter__(self) -> Watcher:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=self._console
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        text = f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s, {duration(seconds_left)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, total=steps or None, description=text)
        elif time.monotonic() - self._last > PLAIN_EVERY or step == steps:
            self._last = time.monotonic()
            self.say(f"step {step:,}{f' of {steps:,}' if steps else ''}: {text}")


def hush() -> None:
    """Whoever read our output has seen enough; what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(line: str) -> None:
    """A line on standard error."""
    print(f"qkv: {line}", file=sys.stderr)
