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

DECORATOR = re.compile(r'^@\w+\.register\("([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Declaration:
    """A class or function below a decorator `@….register("name")`, which is not imported."""

    name: str
    module: str
    source: Path

    @cached_property
    def _nodes(self) -> tuple[ast.Module, ast.ClassDef | ast.FunctionDef]:
        tree = ast.parse(self.source.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and self.name in _names(node):
                return tree, node
        raise LookupError(f"{self.source}: no decorator registers {self.name!r}")

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(self._nodes[1]) or "").partition("\n")[0]

    def settings(self) -> Mapping[str, inspect.Parameter] | None:
        """Its keyword-only settings; None where the source does not tell (inherited, computed)."""
        tree, node = self._nodes
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            node = next((method for method in methods if method.name == "__init__"), None)
            if node is None and not self._nodes[1].bases:
                return {}
        if node is None:
            return None
        keywords = ast.arguments(
            [], [], None, node.args.kwonlyargs, node.args.kw_defaults, None, []
        )
        stub = copy(node)
        stub.args, stub.body, stub.decorator_list, stub.returns = keywords, [ast.Pass()], [], None
        needed = {n.id for n in ast.walk(keywords) if isinstance(n, ast.Name)}
        bindings = [statement for statement in tree.body if needed & set(_bound(statement))]
        module = ast.fix_missing_locations(ast.Module([*bindings, stub], []))
        scope: dict[str, Any] = {}
        try:
            exec(compile(module, str(self.source), "exec"), scope)
        except NameError:  # a value computed from others
            return None
        return inspect.signature(scope[stub.name]).parameters


def declarations(package: str) -> dict[str, Declaration]:
    """The parts of all modules in a package, by name."""
    spec = find_spec(package)
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.py")) if spec else []
    return {
        name: Declaration(name, f"{package}.{file.stem}", file)
        for file in files
        for name in DECORATOR.findall(file.read_text(encoding="utf-8"))
    }


def _names(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """The names under which decorators register a definition."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and decorator.args:
            argument = decorator.args[0]
            if isinstance(argument, ast.Constant):
                yield argument.value


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that an import or assignment binds."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name) for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
