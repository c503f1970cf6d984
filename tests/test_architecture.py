"""What may import what, held by import-linter; what a command costs before it is asked to work."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "s2kd"


def run(*arguments, **more):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **more
    )


def test_every_file_imports_only_from_the_layers_below():
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    told = run("-c", code)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "0 broken" in told.stdout


def layers():
    """The names of every layer, from the contract."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [c for c in tables["contracts"] if c.get("containers") == ["s2kd"]]
    return [
        {name.strip(" ()") for name in layer.replace(":", "|").split("|")}
        for layer in contract["layers"]
    ]


def test_every_package_has_a_layer():
    """A package that the contract does not name may import anything."""
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    modules |= {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert set().union(*layers()) == modules


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_a_question_to_the_command_line_loads_nothing_heavy(arguments):
    code = f"""
import sys
from s2kd.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "transformers", "xarray", "matplotlib", "numpy", "lightning_fabric"}}
print("HEAVY", *sorted(heavy & set(sys.modules)))
"""
    told = run("-c", code)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "HEAVY"
    assert len(told.stdout) > 10


def test_seeing_does_not_load_reading():
    """A student in use: no narrator, no text encoder, no Fabric, no transformers."""
    code = """
import sys
import s2kd.deploy.forecaster
reading = "s2kd.narration.narrators", "s2kd.narration.text", "transformers"
learning = "s2kd.training.objectives", "s2kd.training.loop", "lightning", "matplotlib"
print(*sorted(name for name in sys.modules if name.startswith(reading + learning)))
"""
    told = run("-c", code, check=True)
    assert told.stdout.split() == []
