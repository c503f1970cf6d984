"""Registered parts as their source declares them: name, summary, settings, without an import."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DECORATOR = re.compile(r'@\w+\.register\("([^"]+)"')


@dataclass(frozen=True)
class Declaration:
    """A class or function below a decorator `@….register("name")` in this line of a module."""

    module: str
    source: Path
    line: int

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self.source.read_text(encoding="utf-8"))

    @property
    def _node(self) -> ast.ClassDef | ast.FunctionDef:
        definitions = (n for n in self._tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef))
        return next(n for n in definitions if self.line in (d.lineno for d in n.decorator_list))

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(self._node) or "").partition("\n")[0]

    def settings(self) -> Mapping[str, inspect.Parameter] | None:
        """Its keyword-only settings; None where the source does not tell (inherited, computed)."""
        node = self._node
        if isinstance(node, ast.ClassDef):
            methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
            if "__init__" not in methods:
                return None if node.bases else {}
            node = methods["__init__"]
        stub, args = copy(node), node.args
        stub.args = ast.arguments([], [], None, args.kwonlyargs, args.kw_defaults, None, [])
        stub.body, stub.decorator_list, stub.returns = [ast.Pass()], [], None
        needed = {n.id for n in ast.walk(stub.args) if isinstance(n, ast.Name)}
        bindings = [statement for statement in self._tree.body if needed & {*_bound(statement)}]
        module = ast.fix_missing_locations(ast.Module([*bindings, stub], []))
        scope: dict[str, Any] = {}
        try:
            exec(compile(module, str(self.source), "exec"), scope)
        except NameError:  # a value computed from others
            return None
        return inspect.signature(scope[stub.name]).parameters


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that an import or assignment binds."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def declarations(package: str) -> dict[str, Declaration]:
    """The parts of all modules in a package, by name."""
    spec, entries = find_spec(package), {}
    for file in sorted(Path(spec.submodule_search_locations[0]).glob("*.py")) if spec else ():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if match := DECORATOR.match(line):
                entries[match[1]] = Declaration(f"{package}.{file.stem}", file, number)
    return entries
