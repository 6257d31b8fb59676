"""
Small faults put into a module's source, one at a time: a comparison turned round, a condition made constant, a number
off by one, a statement left out. Each is a `Mutant`; no test may pass with it in place.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: where it is, what it does, and the whole mutated source."""

    line: int
    what: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every fault that this knows to make, in the order of the source."""
    tree = ast.parse(source)
    sites = [node for node in ast.walk(tree) if isinstance(node, (ast.expr, ast.stmt))]
    skipped = _declarations(tree)
    for number, node in enumerate(sites):
        if node in skipped:
            continue
        for what, change in _faults(node):
            changed = copy.deepcopy(tree)
            twin = [one for one in ast.walk(changed) if isinstance(one, (ast.expr, ast.stmt))][number]
            before = ast.unparse(node).splitlines()[0]
            change(twin)
            ast.fix_missing_locations(changed)
            yield Mutant(node.lineno, f"{what}: {before[:90]}", ast.unparse(changed))


def _declarations(tree: ast.Module) -> set[ast.AST]:
    """What says something to readers and type checkers only: annotations, docstrings, imports for types, logging."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts: list[Any] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts += [one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg)]
            parts += [node.returns, *node.decorator_list]
        elif isinstance(node, ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.ClassDef):
            parts += [*node.decorator_list, *node.bases]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        elif isinstance(node, ast.Raise):
            # Words of an error are for people; that it is raised is not.
            parts += node.exc.args if isinstance(node.exc, ast.Call) else []
        elif (isinstance(node, ast.Expr) and "_log." in ast.unparse(node)) or (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id[:1].isupper()
        ):
            parts.append(node)
        for part in filter(None, parts):
            found.update(ast.walk(part))
    return found


def _faults(node: Any) -> Iterator[tuple[str, Any]]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            yield "turned round", lambda twin: twin.ops.__setitem__(0, _COMPARISONS[type(operator)]())
        case ast.BoolOp():
            other = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield "and/or", lambda twin: setattr(twin, "op", other())
        case ast.UnaryOp(op=ast.Not()):
            yield "not left out", lambda twin: setattr(twin, "op", ast.Not()) or _double_not(twin)
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            yield "operator", lambda twin: setattr(twin, "op", _OPERATORS[type(operator)]())
        case ast.Constant(value=bool() as value):
            yield "turned round", lambda twin: setattr(twin, "value", not value)
        case ast.Constant(value=int() | float() as value):
            yield "off by one", lambda twin: setattr(twin, "value", value + 1)
        case ast.If() | ast.While() | ast.IfExp():
            if not isinstance(node.test, ast.Constant):
                yield "always", lambda twin: setattr(twin, "test", ast.Constant(True))
            yield "never", lambda twin: setattr(twin, "test", ast.Constant(False))
        case ast.Expr(value=ast.Call()):
            yield "left out", lambda twin: setattr(twin, "value", ast.Constant(None))
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield "returns None", lambda twin: setattr(twin, "value", ast.Constant(None))


def _double_not(twin: ast.UnaryOp) -> None:
    twin.operand = ast.UnaryOp(ast.Not(), twin.operand)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
