"""What goes wrong, said to the person who can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QkvError(Exception):
    """A mistake in the call or its input: what was given, what was expected, what to do. The command line shows the message
    and exits with 2."""


class QkvFailure(QkvError):
    """Something failed that the call was not to blame for, such as a loss that is not a number. The command line exits with 1."""


def unknown(kind: str, given: str, known: Iterable[str]) -> QkvError:
    """The error for a name that nobody knows, with the nearest known name."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return QkvError(f"unknown {kind} {given!r}: {hint}")
