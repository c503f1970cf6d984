"""What may import what, held by import-linter; what a command costs before it is asked to work."""

import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import gridded
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


def test_the_runtime_distribution_is_of_this_version_and_needs_nothing_else():
    whole, runtime = (
        tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"]
        for path in (".", "packaging/runtime")
    )
    bounds, needed = (
        {*project["dependencies"], *chain(*project["optional-dependencies"].values())}
        for project in (whole, runtime)
    )
    assert needed <= bounds
    for field in ("version", "requires-python", "license", "scripts"):
        assert runtime[field] == whole[field]


HEAVY = {"torch", "matplotlib", "transformers", "lightning_fabric", "optuna"}
READERS = HEAVY | {"xarray", "pandas", "scipy", "dask"}
QUESTIONS = ("--help", "compare --help", "--version")
BEFORE_READING = (
    "list --json",
    "data describe no.nc",
    "compare no.nc --out x",
    "compare torn.json --out x",
    "distill demo --out x --time 5q",
    "distill demo --out x --set teacher.backbone.params.widht=3",
    "demo --set seeds=[]",
    "label a:b no.nc --out x.zarr",
    "sweep demo --out x --set methods.s2kd.terms.0.loss.name=spektral",
    "evaluate nowhere",
    "export nowhere",
    "forecast nowhere no.nc --out x.nc",
)
READING = (
    "data describe air.nc",
    "compare torn.nc --out x",
    "distill air.nc --out x --set students=[]",
)


@pytest.mark.parametrize(
    ("commands", "heavy"),
    [(QUESTIONS, READERS | {"numpy"}), (BEFORE_READING, READERS), (READING, HEAVY)],
    ids=["questions", "before reading", "reading"],
)
def test_questions_and_refusals_load_nothing_heavy(commands, heavy, tmp_path):
    gridded.write(gridded.waves(frames=40, rows=4, columns=4), tmp_path / "air.nc")
    (tmp_path / "torn.nc").write_bytes(b"CDF no more")
    (tmp_path / "torn.json").write_text('{"name": "x"')
    code = f"""
import sys
from s2kd.cli import main
for command in {commands!r}:
    try:
        main(command.split())
    except SystemExit as end:
        print("COMMAND", end.code or 0, *{heavy!r} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("COMMAND")]
    answered = ("-", "list", "data describe air", "compare --help")
    status = [0 if command.startswith(answered) else 2 for command in commands]
    assert lines == [f"COMMAND {number}" for number in status]


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
