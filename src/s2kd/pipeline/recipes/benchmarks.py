"""The official benchmarks, at the paper's sizes or at one that trains on a laptop."""

from pathlib import Path

from msgspec.structs import replace

from s2kd.core.recipe import Part, Recipe, Split, TeacherSpec, Training
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.readers.taxibj import windows_layout
from s2kd.pipeline.recipes import METHODS, builtin
from s2kd.pipeline.recipes.standins import standin

PRESETS = ("paper", "small")
STUDENTS = ("unet", "resnet", "mixer")


def paper(
    name: str,
    dataset: Part,
    *,
    teacher: str,
    depth: int,
    split: Split = Split(),  # noqa: B008
    lr: float = 1e-3,
    past: int = 12,
    lead: int = 12,
    normalise: str = "zscore",
) -> Recipe:
    """The published sizes and settings: one teacher, three students, 100 epochs at most.

    `depth` is N, the number of alignment layers of this `teacher`; `lr` is its learning rate.
    """
    return Recipe(
        name=name,
        dataset=dataset,
        split=split,
        past=past,
        lead=lead,
        normalise=normalise,
        teacher=TeacherSpec(
            backbone=Part(name=teacher, params={"preset": "paper"}), width=512, depth=depth
        ),
        students=tuple(Part(name=name, params={"preset": "paper"}) for name in STUDENTS),
        methods=METHODS,
        teacher_training=Training(lr=lr, schedule="cosine", clip=1.0),
    )


def check_preset(recipe: str, preset: str) -> None:
    """Refuse a preset that is not one of `PRESETS`."""
    if preset not in PRESETS:
        raise S2KDError(
            f"recipe {recipe!r}: preset must be {' or '.join(PRESETS)}, got {preset!r}"
            f"{nearest(preset, PRESETS)}"
        )


def existing(data: str) -> str:
    """`data` as it was given, if there is such a file or folder; an address is taken as it is."""
    if "://" not in data and not Path(data).expanduser().exists():
        raise S2KDError(f"--data {data}: no such file or folder")
    return data


@builtin
def weatherbench(*, data: str, preset: str = "paper") -> Recipe:
    """WeatherBench: Z500 and T850 at 5.625°, 6-hourly, 3 days to 3 days (small: 1 to 1)."""
    check_preset("weatherbench", preset)
    part = Part(name="weatherbench", params={"path": existing(data)})
    years = Split(train=("1979", "2015"), val=("2016", "2016"), test=("2017", "2018"), gap=0)
    if preset == "paper":
        return replace(paper("weatherbench", part, teacher="triton", depth=3), split=years)
    # six years, as OpenSTL's short settings have: enough for a model this small
    recipe = standin("weatherbench_small", part, stride=6, test_stride=4)
    return replace(recipe, split=replace(years, train=("2010", "2015")))


@builtin
def prometheus(*, data: str, preset: str = "paper") -> Recipe:
    """Prometheus: fires in many environments, 12 to 12 (small: 4 to 4); the extremes unseen."""
    check_preset("prometheus", preset)
    part, split = Part(name="prometheus", params={"path": existing(data)}), Split(gap=24)
    if preset == "paper":
        return paper("prometheus", part, split=split, teacher="simvp", depth=2, lr=5e-4)
    return standin("prometheus_small", part, split=split, stride=8, test_stride=8)


@builtin
def taxibj(*, data: str, preset: str = "paper") -> Recipe:
    """TaxiBJ: taxis into and out of every cell of Beijing, half-hourly, 6 h to 6 h (small: 2 to 2).

    OpenSTL's windows are four frames to four, and so is their recipe.
    """
    check_preset("taxibj", preset)
    path = existing(data)
    if windows_layout(Path(path).expanduser()) is not None:
        return _taxi("taxibj", path, Split(), preset, past=4)
    # the last four weeks are the test, as in the data's own paper; four before them validation
    return _taxi("taxibj", path, Split(days=(0, 28, 28), gap=24), preset, past=12)


@builtin
def taxibj_plus(*, data: str, preset: str = "paper") -> Recipe:
    """TaxiBJ+: taxis on 128 × 128 cells of Beijing, published windows, 12 to 12 (small: 4 to 4)."""
    check_preset("taxibj_plus", preset)
    path = existing(data)
    if windows_layout(Path(path).expanduser()) not in ("X_c", "reshaped"):
        raise S2KDError(
            f"--data {data}: holds no TaxiBJ+ windows (train/X_c.npy and so on, or "
            "train_input_data_reshaped.npy and so on)"
        )
    return _taxi("taxibj_plus", path, Split(), preset, past=12)


def _taxi(name: str, path: str, split: Split, preset: str, *, past: int) -> Recipe:
    """Scaled by the training split's extremes, as counts usually are."""
    part = Part(name="taxibj", params={"path": path})
    if preset == "paper":
        sizes = {"depth": 2, "past": past, "lead": past}
        return paper(name, part, split=split, teacher="earthfarseer", normalise="minmax", **sizes)
    recipe = standin(f"{name}_small", part, split=split, stride=4, test_stride=2)
    return replace(recipe, normalise="minmax")
