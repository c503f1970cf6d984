"""Checks of the source that no linter has: filler names, and private names across packages.

`python tools/check_source.py` fails where more than 2 % of the functions store into a local with a
filler name, or where a package imports a name with a leading underscore from another.
"""

import ast
import sys
from pathlib import Path

FILLERS = frozenset(
    (
        *("found", "made", "one", "other", "some", "told", "said", "every", "held", "there"),
        *("known", "whole", "place", "asked", "wanted", "own", "more", "kept", "beside", "about"),
        *("who", "where", "here", "both", "seen", "given", "chosen", "left", "ours", "theirs"),
        *("mine", "what"),
    )
)
LIMIT = 0.02
PACKAGE = "s2kd"


def filler_locals(function: ast.AST) -> set[str]:
    """Names stored in the function's body that say nothing about what they hold."""
    names = (node for node in ast.walk(function) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)} & FILLERS


def private_imports(tree: ast.AST, room: str) -> list[tuple[int, str]]:
    """Line and name of every private module or name imported from another package of ours."""
    imports = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
            continue
        _, *parts = (node.module or "").split(".")
        names = [*parts, *(alias.name for alias in node.names)]
        if parts and parts[0] != room and any(name.startswith("_") for name in names):
            imports.append((node.lineno, ".".join([PACKAGE, *names])))
    return imports


def main(folder: str = "src") -> int:
    """Print what is wrong; 1 where anything is."""
    functions, fillers, imports = 0, [], []
    for path in sorted(Path(folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        parts = path.relative_to(folder).with_suffix("").parts
        room = parts[1] if len(parts) > 1 else ""
        imports += [f"{path}:{line} imports {name}" for line, name in private_imports(tree, room)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions += 1
                if names := filler_locals(node):
                    fillers.append(f"{path}:{node.lineno} {node.name} ({', '.join(sorted(names))})")
    share = len(fillers) / max(functions, 1)
    print(*fillers, *imports, sep="\n")
    print(f"functions with a filler local: {len(fillers)} of {functions} ({share:.1%})")
    print(f"private names imported across packages: {len(imports)}")
    return int(share > LIMIT or bool(imports))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
