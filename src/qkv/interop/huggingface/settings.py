"""What a `config.json` says, asked for by name: with the values that stand for what it leaves out, and in the type expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qkv.error import QkvError, unknown
from qkv.interop.fit import Fit
from qkv.spec.part import GELU, Activation, ReLU, SigmoidGELU, Swish, TanhGELU

ACTIVATIONS: dict[str, Activation] = {
    "relu": ReLU(),
    "gelu": GELU(),
    "gelu_new": TanhGELU(),
    "gelu_pytorch_tanh": TanhGELU(),
    "gelu_fast": TanhGELU(),
    "quick_gelu": SigmoidGELU(),
    "silu": Swish(),
    "swish": Swish(),
}


@dataclass(frozen=True)
class Settings:
    """The settings of a model of a kind that we know; what is left out has the value that `transformers` gives it."""

    said: Mapping[str, Any]
    usual: Mapping[str, Any]
    where: Path

    def get(self, name: str) -> Any:
        """A setting of any type; None where nothing is said and nothing is usual."""
        return self.said.get(name, self.usual.get(name))

    def whole(self, name: str) -> int:
        """A whole number of at least 1."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(name, "a whole number of at least 1")
        return value

    def number(self, name: str) -> float:
        """A number of at least 0."""
        value = self.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
            raise self._wrong(name, "a number of at least 0")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; nothing said is false."""
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise self._wrong(name, "true or false")
        return bool(value)

    def activation(self, name: str) -> Activation:
        """An activation by the name that it has there."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "the name of an activation")
        if value not in ACTIVATIONS:
            raise unknown(f"activation of {self.where / 'config.json'} (as {name})", value, ACTIVATIONS)
        return ACTIVATIONS[value]

    def refuse(self, name: str, *known: object) -> None:
        """Raises QkvError where something is said that we do not do; nothing said is always fine."""
        value = self.get(name)
        if value is not None and value not in known:
            only = " or ".join(repr(each) for each in known)
            raise QkvError(
                f"{self.where / 'config.json'} says {name} = {value!r}, which qkv does not do (only {only}): import another model"
            )

    def _wrong(self, name: str, wanted: str) -> QkvError:
        return QkvError(
            f"{self.where / 'config.json'} says {name} = {self.get(name)!r}, which should be {wanted}: download the folder again"
        )


def activation_name(fit: Fit, activation: Activation) -> str:
    """What `transformers` calls an activation. Raises QkvError where it has none like it."""
    return fit.activation(activation, {value: name for name, value in reversed(ACTIVATIONS.items())})
