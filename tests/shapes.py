"""Shapes are checked in the first calls of each test alone: to check one takes longer than most calls of a small model
themselves, and a loop that runs a thousand times is not better checked at its last turn than at its first."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import beartype

CALLS = int(os.environ.get("QKV_SHAPES", "500"))  # of each test; with 0 nothing is checked
_left = CALLS


def begin() -> None:
    """Another test begins."""
    global _left
    _left = CALLS
    jaxtyping.config.update("jaxtyping_disable", _left <= 0)


def first_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """A type checker for jaxtyping, which is switched off as soon as a test has made so many calls."""
    check = beartype(function)

    @wraps(check)
    def counted(*arguments: Any, **named: Any) -> Any:
        global _left
        _left -= 1
        if _left <= 0:
            jaxtyping.config.update("jaxtyping_disable", True)
        return check(*arguments, **named)

    return counted
