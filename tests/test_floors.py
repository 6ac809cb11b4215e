"""The floors of the house: an import may only go down. The imports are read, never run; an arrow that runs up is named."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "src" / "qkv"

FACE = "qkv"  # the face of the whole house, and `python -m qkv`: the roof, which nobody inside may import
FLOORS = {
    FACE: 9,
    "cli": 8,
    "study": 7,
    "evolve": 7,
    "train": 6,
    "serve": 6,
    "decode": 5,
    "look": 5,
    "interop": 5,
    "store": 4,
    "model": 3,
    "attention": 2,
    "papers": 2,
    "data": 2,
    "spec": 1,
    "device": 1,
    "error": 0,
}
WALLS = {  # who never imports whom, although the floors would allow it or would only say it less clearly
    "decode": {"train"},
    "papers": {"model"},
    "attention": {"model"},
}
SPEC_MAY = {"spec", "error"}
SPEC_NEVER = {"torch", "numpy"}
NAMELESS = {"utils", "util", "common", "helpers", "helper", "base"}


@dataclass(frozen=True)
class Arrow:
    """One import: the module that imports, the line, and what is imported by its full name."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"

    @property
    def start(self) -> str:
        """The room from which the arrow starts."""
        return room(self.module)

    @property
    def end(self) -> str | None:
        """The room in which the arrow ends; None outside the house."""
        return room(self.target) if self.target.split(".")[0] == "qkv" else None


def room(name: str) -> str:
    """The room of a full name: `model` for `qkv.model.cell`, and the face itself for `qkv`."""
    parts = name.split(".")
    return FACE if len(parts) == 1 or parts[1].startswith("__") else parts[1]


def arrows(source: str, module: str, face: bool = False) -> Iterator[Arrow]:
    """All imports of a module, wherever they stand: in functions, under TYPE_CHECKING, relative, or by `import_module("...")`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Arrow(module, node.lineno, alias.name)
            case ast.ImportFrom(names=names):
                for alias in names:
                    yield Arrow(module, node.lineno, f"{_origin(node, module, face)}.{alias.name}".lstrip("."))
            case ast.Call(args=[ast.Constant(value=str(target)), *_]) if _called(node.func) in {"import_module", "__import__"}:
                yield Arrow(module, node.lineno, target)
            case _:
                pass


def _origin(node: ast.ImportFrom, module: str, face: bool) -> str:
    """The full name of the module after `from`."""
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    package = parts[: len(parts) - node.level + (1 if face else 0)]
    return ".".join([*package, *([node.module] if node.module else [])])


def _called(function: ast.expr) -> str:
    """The last name of what is called: `import_module` for `importlib.import_module`."""
    return ast.unparse(function).split(".")[-1]


def uphill(found: Iterable[Arrow]) -> list[str]:
    """What is wrong with the imports by the floors alone: arrows that run up, and rooms that have no floor."""
    wrong = []
    for arrow in found:
        if arrow.end is None or arrow.start == arrow.end:
            continue
        strange = [name for name in (arrow.start, arrow.end) if name not in FLOORS]
        if strange:
            wrong.append(f"{arrow}: {strange[0]} has no floor; give it one in FLOORS")
        elif FLOORS[arrow.start] < FLOORS[arrow.end]:
            wrong.append(f"{arrow}: up from floor {FLOORS[arrow.start]} ({arrow.start}) to {FLOORS[arrow.end]} ({arrow.end})")
    return wrong


def through_walls(found: Iterable[Arrow]) -> list[str]:
    """The imports that go through a wall."""
    wrong = []
    for arrow in found:
        outside = arrow.target.split(".")[0]
        if arrow.end in WALLS.get(arrow.start, set()):
            wrong.append(f"{arrow}: {arrow.start} never imports {arrow.end}")
        elif arrow.start == "spec" and (outside in SPEC_NEVER or (arrow.end is not None and arrow.end not in SPEC_MAY)):
            wrong.append(f"{arrow}: spec imports only spec and error, and neither torch nor numpy")
    return wrong


def circle(found: Iterable[Arrow]) -> str | None:
    """A circle of rooms on one floor that import each other, by name; None where there is none."""
    graph: dict[str, set[str]] = {}
    for arrow in found:
        if arrow.end and arrow.start != arrow.end and FLOORS.get(arrow.start) == FLOORS.get(arrow.end):
            graph.setdefault(arrow.start, set()).add(arrow.end)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None


def more_than_a_face(source: str, module: str) -> list[str]:
    """What stands in a face that does not belong there: anything but its docstring, imports and `__all__`."""
    wrong = []
    for index, node in enumerate(ast.parse(source).body):
        match node:
            case ast.Import() | ast.ImportFrom():
                continue
            case ast.Expr(value=ast.Constant(value=str())) if index == 0:
                continue
            case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AnnAssign(target=ast.Name(id="__all__")):
                continue
            case ast.If(body=body, orelse=[]) if _called(node.test) == "TYPE_CHECKING" and all(_is_import(line) for line in body):
                continue
            case _ if module == FACE and _is_lazy(node):
                continue
            case _:
                wrong.append(f"{module}:{node.lineno} {ast.unparse(node).splitlines()[0]}: a face only re-exports")
    return wrong


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_lazy(node: ast.stmt) -> bool:
    """Whether a statement is part of a lazy face: `__getattr__`, `__dir__`, or a private table of where each name lives."""
    match node:
        case ast.FunctionDef(name="__getattr__" | "__dir__"):
            return True
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as table)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as table)
        ):
            return name.startswith("_") and all(isinstance(part, ast.Constant) for part in (*table.keys, *table.values))
        case _:
            return False


# The house as it stands


def files() -> list[Path]:
    """Every module of the house."""
    return sorted(HOUSE.rglob("*.py"))


def named(path: Path) -> str:
    """The full name of a module, by its path."""
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def standing() -> tuple[Arrow, ...]:
    """All imports of the house."""
    return tuple(
        arrow
        for path in files()
        for arrow in arrows(path.read_text(encoding="utf-8"), named(path), face=path.name == "__init__.py")
    )


def test_there_is_a_house() -> None:
    assert files(), f"no modules in {HOUSE}"


def test_imports_go_down() -> None:
    wrong = uphill(standing())
    assert not wrong, "\n".join(wrong)


def test_walls_stand() -> None:
    wrong = through_walls(standing())
    assert not wrong, "\n".join(wrong)


def test_no_circles_on_a_floor() -> None:
    found = circle(standing())
    assert found is None, f"rooms of one floor import each other in a circle: {found}"


def test_names_are_honest() -> None:
    rooms = {part for path in files() for part in path.relative_to(HOUSE).with_suffix("").parts}
    assert not rooms & NAMELESS, f"these names say nothing: {sorted(rooms & NAMELESS)}"


def test_faces_only_re_export() -> None:
    faces = [path for path in files() if path.name == "__init__.py"]
    wrong = [line for path in faces for line in more_than_a_face(path.read_text(encoding="utf-8"), named(path))]
    assert not wrong, "\n".join(wrong)


# The checker itself, on made-up source text

UPWARD = {
    "plain": ("import qkv.train.loop", "qkv.decode.beam"),
    "from": ("from qkv.train import loop", "qkv.decode.beam"),
    "from the house": ("from qkv import train", "qkv.decode.beam"),
    "the face itself": ("import qkv", "qkv.decode.beam"),
    "relative": ("from ..train.loop import fit", "qkv.decode.beam"),
    "relative to the house": ("from .. import train", "qkv.decode.beam"),
    "in a function": ("def f():\n    from qkv.cli import main", "qkv.decode.beam"),
    "for types only": ("if TYPE_CHECKING:\n    from qkv.store import load", "qkv.model.cell"),
    "by name": ("import importlib\nimportlib.import_module('qkv.model')", "qkv.data.text"),
    "without a floor": ("import qkv.attic", "qkv.cli.main"),
    "from a single file": ("from . import model", "qkv.device"),
}


@pytest.mark.parametrize(("source", "module"), UPWARD.values(), ids=UPWARD.keys())
def test_an_upward_arrow_is_caught(source: str, module: str) -> None:
    (wrong,) = uphill(arrows(source, module))
    assert wrong.startswith(f"{module}:")


def test_a_face_counts_its_dots_from_itself() -> None:
    assert [arrow.target for arrow in arrows("from .beam import Beam", "qkv.decode", face=True)] == ["qkv.decode.beam.Beam"]
    assert [arrow.target for arrow in arrows("from ..train import x", "qkv.decode", face=True)] == ["qkv.train.x"]
    assert [arrow.target for arrow in arrows("from .spec import x", "qkv", face=True)] == ["qkv.spec.x"]


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import torch\nfrom qkv.model import cell\nfrom . import step\nfrom .step import go", "qkv.decode.beam"),
        ("from qkv.error import QkvError", "qkv.spec.model"),
        ("from .spec import x\nimport qkv.cli.main", "qkv"),
    ],
)
def test_a_downward_arrow_is_not(source: str, module: str) -> None:
    assert not uphill(arrows(source, module, face=module == FACE))
    assert not through_walls(arrows(source, module, face=module == FACE))


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from qkv.train import loop", "qkv.decode.beam"),
        ("from qkv.model import build", "qkv.papers.universal"),
        ("from ..model import build", "qkv.attention.call"),
        ("import torch.nn", "qkv.spec.model"),
        ("if TYPE_CHECKING:\n    import numpy as np", "qkv.spec.model"),
        ("import qkv.device", "qkv.spec.model"),
    ],
)
def test_a_hole_in_a_wall_is_caught(source: str, module: str) -> None:
    assert len(through_walls(arrows(source, module))) == 1


def test_a_circle_is_caught_by_name() -> None:
    one_way = [*arrows("import qkv.look.heads", "qkv.decode.beam"), *arrows("import qkv.look", "qkv.interop.export")]
    assert circle(one_way) is None
    found = circle([*one_way, *arrows("import qkv.decode", "qkv.look.heads")])
    assert found is not None and "look" in found and "decode" in found


@pytest.mark.parametrize(
    "line", ["x = 1", "def f(): ...", "print('hello')", "torch.set_num_threads(1)", "for x in y: ...", "_A = {'x': f()}"]
)
def test_a_busy_face_is_caught(line: str) -> None:
    quiet = '"""A face."""\nfrom .beam import Beam\n__all__ = ["Beam"]\n'
    assert not more_than_a_face(quiet, "qkv.decode")
    assert len(more_than_a_face(quiet + line, "qkv.decode")) == 1
    assert len(more_than_a_face(quiet + line, "qkv")) == 1


def test_only_the_face_of_the_house_is_lazy() -> None:
    lazy = "_HOMES = {'load': 'qkv.store'}\ndef __getattr__(name: str) -> object: ..."
    assert not more_than_a_face(lazy, "qkv")
    assert len(more_than_a_face(lazy, "qkv.decode")) == 2
