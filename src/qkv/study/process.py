"""A process for each member: what it remembers is its own, and what befalls it befalls nobody else.

`python -m qkv.study.process` is that process. It reads a member from its input, says how it goes on its output, a line of JSON
each, and stops, with all saved, when its input ends: then nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

from qkv import device as machine
from qkv.error import QkvError
from qkv.study.member import Ending, Failed, Member, bring_up, outcome_of
from qkv.train.loop import Interrupted, Silent, Watch

SAY, STEP, FAILED = "say", "step", "failed"


def brought_up(member: Member, watch: Watch) -> Ending:
    """How a member fares in a process of its own. Raises Interrupted after it is saved, if a signal came."""
    with tempfile.TemporaryFile() as errors:
        # in a session of its own, so that Ctrl-C reaches it by us alone
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        with process, _forwarded(process) as came:
            with contextlib.suppress(BrokenPipeError):  # it has died already: why is found out below
                process.stdin.write(json.dumps(member.written()).encode() + b"\n")
                process.stdin.flush()
            reason = _heard(process.stdout, watch)
            code = process.wait()
        if came:
            raise Interrupted(came[0])
        found = outcome_of(member.folder)
        return found if found is not None and not code else Failed(reason or _last_words(code, errors))


def brought_up_elsewhere(member: Member) -> Ending:
    """The same on a machine of a cluster, which has nobody to tell how it goes."""
    return brought_up(member, Silent())


def _heard(output: IO[bytes], watch: Watch) -> str:
    """Pass on what a process says; why it failed, where it knows that itself."""
    reason = ""
    for line in output:
        kind, *what = json.loads(line)
        if kind == STEP:
            watch.step(*what)
        elif kind == SAY:
            watch.say(*what)
        else:
            (reason,) = what
    return reason


def _last_words(code: int, errors: IO[bytes]) -> str:
    """Why a process ended that could not say so itself."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}{': it may have needed more memory than there is' if code == -9 else ''}"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"its process ended with code {code}")


@contextlib.contextmanager
def _forwarded(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Signals that ask us to stop are passed on to a process, and noted; outside, they do what they did before."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # of a cluster's worker, where none arrive
        yield came
        return

    def pass_on(number: int, _: Any) -> None:
        came.append(number)
        process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Told:
    """A Watch that tells another process; of what is said it tells the warnings."""

    def __init__(self, channel: IO[str]) -> None:
        self._channel = channel

    def say(self, line: str) -> None:
        if line.startswith("warning"):
            self.tell(SAY, line)

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float, seconds_left: float) -> None:
        self.tell(STEP, step, steps, loss, tokens_per_second, seconds_left)

    def tell(self, kind: str, *what: object) -> None:
        """A line, at once."""
        with contextlib.suppress(OSError):  # nobody listens any more: the end of our input says what to do about that
            print(json.dumps([kind, *what]), file=self._channel, flush=True)


def _stop_with_input() -> None:
    """Ask this process to stop when its input ends."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Bring up the member that comes in; exit code 1 where it fails."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no line of ours
    told = _Told(channel)
    member = Member.read(json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_stop_with_input, daemon=True).start()
    machine.prepare(member.threads)
    try:
        bring_up(member, told)
    except Interrupted as stop:
        told.tell(FAILED, f"a signal stopped it ({signal.Signals(stop.number).name}); all that it had learned is saved")
        sys.exit(1)
    except QkvError as error:
        told.tell(FAILED, str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
