"""The names that s2kd promises, where they come from, and that asking for them is all it costs."""

import ast
import importlib
import subprocess
import sys
from importlib.resources import files

import pytest
import torch

import s2kd
from s2kd.pipeline import recipes

PROMISED = {
    "GridSpec": "s2kd.core.types",
    "Batch": "s2kd.core.tensors",
    "Forecast": "s2kd.core.tensors",
    "Part": "s2kd.core.recipe",
    "Recipe": "s2kd.core.recipe",
    "Machine": "s2kd.pipeline",
    "open_run": "s2kd.pipeline",
    "narrate": "s2kd.pipeline",
    "train_teacher": "s2kd.pipeline",
    "train_students": "s2kd.pipeline",
    "distill": "s2kd.pipeline.api",
    "compare": "s2kd.pipeline.api",
    "evaluate": "s2kd.pipeline",
    "label": "s2kd.pipeline",
    "forecast": "s2kd.deploy.forecast",
    "Forecaster": "s2kd.deploy.forecaster",
    "check": "s2kd.pipeline.parts",
    "wrap": "s2kd.models.wrapping",
    "S2KDError": "s2kd.core.errors",
}


def test_the_promised_names_are_these_and_no_others():
    assert set(s2kd.__all__) == set(PROMISED)
    assert len(s2kd.__all__) == len(PROMISED)


@pytest.mark.parametrize(("name", "home"), PROMISED.items())
def test_a_name_is_the_thing_itself(name, home):
    found = getattr(s2kd, name)
    assert found is getattr(importlib.import_module(home), name)
    assert found.__doc__, "a promise is explained"
    assert name in dir(s2kd)


def test_the_stub_for_type_checkers_names_the_same_things():
    package = files("s2kd")
    assert package.joinpath("py.typed").is_file()
    imports = ast.parse(package.joinpath("__init__.pyi").read_text()).body
    homes = {
        node.names[0].name: node.module for node in imports if isinstance(node, ast.ImportFrom)
    }
    assert set(homes) == set(s2kd.__all__)
    for name, home in homes.items():
        assert getattr(importlib.import_module(home), name) is getattr(s2kd, name)


def test_public_objects_are_shown_in_a_line():
    grid = s2kd.GridSpec(
        channels=("t2m",), units=("K",), height=2, width=3, step_seconds=3600.0,
        latitude=(10.0, 0.0), mask=((True, False, True), (True, True, True)),
    )  # fmt: skip
    assert repr(grid) == (
        "GridSpec(t2m [K], 2 rows × 3 columns, 5 cells exist, latitude 10 to 0, "
        "a frame every 3600 s)"
    )
    frames = torch.zeros(4, 12, 1, 2, 3)
    batch = s2kd.Batch(past=frames, future=frames[:, :6], index=torch.arange(4))
    assert repr(batch) == "Batch(past=(4, 12, 1, 2, 3), future=(4, 6, 1, 2, 3), index=(4,))"
    forecast = s2kd.Forecast(future=frames, latent=None, carry=(frames[0, 0],))
    assert repr(forecast) == "Forecast(future=(4, 12, 1, 2, 3), latent=None, carry=((1, 2, 3)))"
    recipe = repr(recipes.get("demo"))
    assert "'demo-atmosphere': atmosphere, " in recipe
    assert "students unet, methods baseline, output, fitnet, s2kd, seeds 42" in recipe
    assert len(recipe) < 250


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="module 's2kd' has no attribute 'teach'"):
        s2kd.teach  # noqa: B018
    with pytest.raises(ImportError):
        exec("from s2kd import teach")


def test_from_s2kd_import_everything():
    names = {}
    exec("from s2kd import *", names)
    assert set(PROMISED) <= set(names)


def test_importing_the_package_imports_nothing_else():
    code = """
import sys
before = set(sys.modules)
import s2kd
assert s2kd.__version__ and s2kd.__all__
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*loaded - sys.stdlib_module_names)
s2kd.S2KDError
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["s2kd"]


def test_the_version_is_the_one_that_is_installed():
    import tomllib
    from pathlib import Path

    project = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == s2kd.__version__
