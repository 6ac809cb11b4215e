"""Values to and from JSON and TOML, and changes written as `a.b=c`.

A value is written as itself: `PreNorm(epsilon=1e-6)` is `{"PreNorm": {"epsilon": 1e-06}}`; a tuple is a list.
"""

from __future__ import annotations

import ast
import dataclasses
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from qkv.error import QkvError, unknown
from qkv.spec import (
    cell,
    choice,
    data,
    halt,
    law,
    model,
    objective,
    part,
    pattern,
    pooling,
    position,
    run,
    score,
    search,
    study,
    world,
)

_MODULES = (part, cell, halt, pattern, pooling, choice, position, score, model, data, world, objective, run, search, law, study)
VALUES: dict[str, type] = {
    name: value
    for module in _MODULES
    for name, value in vars(module).items()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}
ROWS = (part.Block, part.Stack, cell.Cell, pattern.PerHead)  # these take their row of parts by position


def to_plain(value: Any) -> Any:
    """A value as dictionaries, lists, numbers and strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {type(value).__name__: fields}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(plain: Any) -> Any:
    """The value that `to_plain` wrote. Raises QkvError for a name or a field that the grammar does not know."""
    if isinstance(plain, list):
        return tuple(from_plain(item) for item in plain)
    if isinstance(plain, dict):
        if len(plain) != 1:
            raise QkvError(f"a value is written as one name with its fields, not as {sorted(plain)}")
        ((name, fields),) = plain.items()
        if not isinstance(fields, dict):
            raise QkvError(f"the fields of {name} must be a table, not {fields!r}")
        return _construct(name, {key: from_plain(item) for key, item in fields.items()})
    return plain


def parse(text: str) -> Any:
    """A value from what stands after `=`: `PreNorm()`, `0.1`, `true`, `[1, 2]`; anything that is none of these is a string."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return text
    return _evaluate(tree, text)


def change(value: Any, setting: str) -> Any:
    """The value with one place changed, as in `decoder.blocks.0.norm=PreNorm()`, or all of a name, as in `*.dropout=0.3`.

    Raises QkvError where there is no such place.
    """
    path, separator, text = setting.partition("=")
    if not separator or not path.strip():
        raise QkvError(f"a change is written as place=value, not {setting!r}")
    steps = path.strip().split(".")
    if steps[0] != "*":
        return _put(value, steps, parse(text.strip()), path, type(value))
    if len(steps) != 2:
        raise QkvError(f"{path}: a star stands before one name, as in *.dropout")
    refused: list[QkvError] = []
    changed, places = _put_everywhere(value, steps[1], parse(text.strip()), path, refused)
    if not places:
        raise refused[0] if refused else QkvError(f"{path}: no place is named {steps[1]!r}")
    return changed


def _put_everywhere(value: Any, name: str, new: Any, whole: str, refused: list[QkvError]) -> tuple[Any, int]:
    """The value with every field of this name that takes such a value changed, and how many there are; a block's norm and an
    embedding's are of two kinds, and a star means those that fit."""
    if isinstance(value, tuple):
        items = [_put_everywhere(item, name, new, whole, refused) for item in value]
        return tuple(item for item, _ in items), sum(count for _, count in items)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value, 0
    fields, places, wanted = {}, 0, get_type_hints(type(value))
    for field in dataclasses.fields(value):
        old, count = getattr(value, field.name), 0
        if field.name != name:
            old, count = _put_everywhere(old, name, new, whole, refused)
        else:
            try:
                old, count = _matched(old, new, whole, wanted[name]), 1
            except QkvError as error:
                refused.append(error)
        fields[field.name] = old
        places += count
    return _construct(type(value).__name__, fields), places


def _put(value: Any, path: list[str], new: Any, whole: str, wanted: Any) -> Any:
    if not path:
        return _matched(value, new, whole, wanted)
    step, rest = path[0], path[1:]
    if isinstance(value, tuple):
        if not step.isdigit() or int(step) >= len(value):
            raise QkvError(f"{whole}: {step!r} is not one of the places 0 to {len(value) - 1}")
        of_items = get_args(wanted)[0]
        return tuple(_put(item, rest, new, whole, of_items) if i == int(step) else item for i, item in enumerate(value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise QkvError(f"{whole}: there is nothing named {step!r} inside {value!r}")
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if step not in fields:
        raise unknown(f"place in {whole!r}: {type(value).__name__} has no", step, fields)
    fields[step] = _put(fields[step], rest, new, whole, get_type_hints(type(value))[step])
    return _construct(type(value).__name__, fields)


def _matched(old: Any, new: Any, whole: str, wanted: Any) -> Any:
    """The new value, if it is of the kind that is wanted there."""
    if not _fits(new, wanted):
        raise QkvError(f"{whole} is {old!r}; {new!r} cannot take its place")
    return float(new) if isinstance(old, float) and isinstance(new, int) else new


def _construct(name: str, fields: dict[str, Any]) -> Any:
    if name not in VALUES:
        raise unknown("value", name, VALUES)
    kind = VALUES[name]
    known = [f.name for f in dataclasses.fields(kind)]
    wanted = get_type_hints(kind)
    for field, value in fields.items():
        if field not in known:
            raise unknown(f"field of {name}", field, known)
        if not _fits(value, wanted[field]):
            raise QkvError(f"{name}.{field} must be {_words(wanted[field])}, not {value!r}")
    try:
        if kind in ROWS:
            row = fields.pop(known[0], ())
            return kind(*row, **fields)
        return kind(**fields)
    except TypeError as error:
        raise QkvError(f"{name} cannot be made of {fields}: {error}") from None


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of the declared kind; a whole number may stand for any number."""
    kinds = get_args(wanted)
    if get_origin(wanted) is UnionType:
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(wanted) is tuple:
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(item, kinds[0]) for item in value)
        return len(value) == len(kinds) and all(_fits(item, kind) for item, kind in zip(value, kinds, strict=True))
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)


def _words(wanted: Any) -> str:
    """A declared kind, in words."""
    kinds = get_args(wanted)
    if get_origin(wanted) is UnionType:
        return " or ".join(map(_words, kinds))
    if get_origin(wanted) is tuple:
        return f"a list, each {_words(kinds[0])}" if kinds[-1] is Ellipsis else f"a list of {len(kinds)}, each {_words(kinds[0])}"
    plain_words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return plain_words.get(wanted) or f"{wanted.__name__}(...)"


def _evaluate(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id="true" | "false" as word):
            return word == "true"
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_evaluate(item, text) for item in items)
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() as op, right=right):
            one, other = _evaluate(left, text), _evaluate(right, text)
            if not isinstance(one, pattern.Joinable) or not isinstance(other, pattern.Joinable):
                raise QkvError(f"{text!r}: & and | join patterns, such as Causal() & Local(64)")
            return one & other if isinstance(op, ast.BitAnd) else one | other
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            if name not in VALUES:
                raise unknown("value", name, VALUES)
            fields: dict[str, Any] = {str(k.arg): _evaluate(k.value, text) for k in keywords}
            known = [f.name for f in dataclasses.fields(VALUES[name])]
            values = [_evaluate(a, text) for a in arguments]
            if VALUES[name] in ROWS:
                fields[known[0]] = tuple(values)
            else:
                if len(values) > len(known) or fields.keys() & set(known[: len(values)]):
                    raise QkvError(f"{text!r}: {name} takes each of these once: {', '.join(known) or 'nothing'}")
                fields |= dict(zip(known, values, strict=False))
            return _construct(name, fields)
        case _:
            return text
