"""Share of functions that store into a local with a filler name; fails above the limit.

    python tools/check_names.py [FOLDER]
"""

import ast
import sys
from pathlib import Path

FILLERS = frozenset(
    "found made one other some told said every held there known whole place asked wanted own more "
    "kept beside about who where here both seen given chosen left ours theirs mine what".split()
)
LIMIT = 0.02


def filler_locals(function: ast.AST) -> set[str]:
    """Names stored in the function's body that say nothing about what they hold."""
    names = (n for n in ast.walk(function) if isinstance(n, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)} & FILLERS


def main(folder: str = "src") -> int:
    """Print every function with a filler local and their share; 1 where it exceeds the limit."""
    functions, fillers = 0, []
    for path in sorted(Path(folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions += 1
                if names := filler_locals(node):
                    fillers.append(f"{path}:{node.lineno} {node.name} ({', '.join(sorted(names))})")
    share = len(fillers) / max(functions, 1)
    print(*fillers, sep="\n")
    print(f"functions with a filler local: {len(fillers)} of {functions} ({share:.1%})")
    return int(share > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
