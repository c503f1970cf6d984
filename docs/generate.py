"""Write the reference of parts, recipes and verbs from the code itself, to build/docs/.

    python docs/generate.py [FOLDER]

Nothing in it is typed by hand, so it is made anew rather than kept.
"""

import sys
from pathlib import Path

import typer

from s2kd import catalogue
from s2kd.cli import app

FOLDER = Path(__file__).parent.parent / "build" / "docs"


def parts() -> str:
    """A section a kind: every part, what it is, its settings with their defaults."""
    lines = ["# Parts and recipes", ""]
    for kind in catalogue.KINDS:
        lines += [f"## {kind}", "", "| name | what it is | settings |", "|---|---|---|"]
        for row in catalogue.rows(kind):
            settings = _cell(", ".join(_settings(kind, row["name"])))
            lines.append(f"| `{row['name']}` | {_cell(row['about'])} | {settings} |")
        lines.append("")
    return "\n".join(lines)


def _settings(kind: str, name: str) -> list[str]:
    """Each setting with its default; one without has none."""
    if kind not in catalogue.REGISTRIES:
        return []
    options = catalogue.REGISTRIES[kind].options(name)
    return [
        f"`{key}`" if option.default is option.empty else f"`{key}={option.default!r}`"
        for key, option in options.items()
    ]


def verbs() -> str:
    """The help text of every verb."""
    lines = ["# Verbs", ""]
    for words, command in _leaves(typer.main.get_command(app), ("s2kd",)):
        lines += [f"## {' '.join(words)}", "", command.help or "", ""]
        lines += ["| option | what it does |", "|---|---|"]
        for option in command.params:
            shown = ", ".join(f"`{name}`" for name in option.opts)
            lines.append(f"| {shown} | {_cell(getattr(option, 'help', None) or '')} |")
        lines.append("")
    return "\n".join(lines)


def _leaves(command, words):  # noqa: ANN001
    """(words, command) of every verb, nested ones too."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, (*words, name))


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def main(folder: Path = FOLDER) -> None:
    """Write both pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in (("parts.md", parts()), ("verbs.md", verbs())):
        (folder / name).write_text(page.rstrip() + "\n", encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
