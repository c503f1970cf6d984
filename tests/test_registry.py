import sys

import numpy as np
import pytest

from s2kd.core.registry import Registry, nearest
from s2kd.core.types import S2KDError

PACKAGE = """
from s2kd.core.registry import Registry
things = Registry("thing", "{package}", group="{package}")
"""
OURS = """
from {package} import things

@things.register("cube")
def cube(grid, *, size=3, colour):
    return (grid, size, colour)

@things.register("ball")
def ball(*, radius=1.0):
    return radius
"""
DECORATED = """
from {package} import things

@things.register("cone")
def cone(*, height=2.0):
    return height
"""
PLAIN = """
def rod(*, length=5.0):
    return length
"""


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("gap", "x", "int"),
        ("gap", 2.5, "int"),
        ("gap", True, "int"),
        ("seed", "x", r"int \| null"),
        ("cell", [1.0], r"int \| float"),
        ("rate", None, "float"),
    ],
)
def test_what_is_no_number_is_refused_where_one_is_wanted(setting, value, wanted):
    registry = Registry("part", "s2kd.nowhere", group="s2kd.nowhere")

    @registry.register("one")
    def one(*, gap: int = 1, seed: int | None = None, cell: int | float = 1, rate: float = 1.0):
        return gap, seed, cell, rate

    given = {"gap": np.int64(3), "seed": None, "cell": np.float32(2), "rate": 4}
    assert registry.build("one", **given) == (3, None, 2, 4)
    with pytest.raises(S2KDError, match=rf"part 'one': {setting}: wants {wanted}.*, got "):
        registry.build("one", **{setting: value})


@pytest.fixture
def things(tmp_path, monkeypatch, request):
    """The registry of a package on disk, with another installed that offers two plugins to it."""
    package = f"parts_{abs(hash(request.node.name))}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(PACKAGE.format(package=package))
    (tmp_path / package / "ours.py").write_text(OURS.format(package=package))
    (tmp_path / f"{package}_cone.py").write_text(DECORATED.format(package=package))
    (tmp_path / f"{package}_rod.py").write_text(PLAIN)
    installed = tmp_path / f"{package}_plugin-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}-plugin\n")
    (installed / "entry_points.txt").write_text(
        f"[{package}]\ncone = {package}_cone:cone\nrod = {package}_rod:rod\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__(package).things
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]


def test_files_and_plugins_are_found_by_themselves(things):
    """A plugin may decorate its part, be named by its entry point only, or both."""
    assert things.names() == ("ball", "cone", "cube", "rod")
    assert things.build("rod") == 5.0
    assert things.build("cone", height=1.0) == 1.0


def test_parts_are_built_with_their_settings(things):
    assert things.build("cube", "grid", colour="red") == ("grid", 3, "red")
    assert things.build("cube", "grid", colour="red", size=5) == ("grid", 5, "red")
    assert list(things.options("cube")) == ["size", "colour"]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("cub", {}, "no thing called 'cub'; did you mean 'cube'\\? \\(there are ball, cone"),
        ("zzzzzz", {}, "no thing called 'zzzzzz' \\(there are"),
        ("cube", {"siz": 3, "colour": "red"}, "has no setting 'siz'; did you mean 'size'\\?"),
        ("cube", {}, "thing 'cube': missing .*'colour'"),
        ("cube", {"grid": 1, "colour": "red"}, "has no setting 'grid'"),
    ],
)
def test_what_is_not_there_is_named_and_the_nearest_suggested(things, name, settings, said):
    with pytest.raises(S2KDError, match=said):
        things.build(
            name, *(["grid"] if name == "cube" and "grid" not in settings else []), **settings
        )


def test_two_parts_of_one_name_are_refused(things):
    things.names()
    with pytest.raises(S2KDError, match=r"two things are called 'ball': parts_.*ours and test_reg"):
        things.register("ball")(lambda: None)


def test_a_second_part_under_a_known_name_is_refused_at_once():
    registry = Registry("thing", "nowhere", group="nowhere")
    registry.register("one")(test_two_parts_of_one_name_are_refused)
    with pytest.raises(S2KDError, match="two things are called 'one': test_registry and builtins"):
        registry.register("one")(print)


def test_nothing_near_suggests_nothing():
    assert nearest("qqq", ["spectral", "semantic"]) == ""
    assert nearest("spectrall", ["spectral", "semantic"]) == "; did you mean 'spectral'?"
