"""Real fields that stand in for the official benchmarks, called by their own names."""

from pathlib import Path

from msgspec.structs import replace

from s2kd.core.recipe import Part, Recipe, Split, TeacherSpec, Training
from s2kd.core.types import S2KDError
from s2kd.pipeline.recipes import METHODS, builtin


def _file(data: str, *names: str, way_out: str = "") -> str:
    """`data` itself where it is a file, else the first of `names` in that folder."""
    path = Path(data).expanduser()
    if path.is_file():
        return str(path)
    if not path.is_dir():
        raise S2KDError(f"--data {data}: no such file or folder{way_out}")
    for name in names:
        if (path / name).exists():
            return str(path / name)
    raise S2KDError(f"--data {data}: holds no {' and no '.join(names)}{way_out}")


def wide_teacher(*, unet: int = 24, width: int = 64, **params: int) -> TeacherSpec:
    """A U-Net three times as wide as the student, that reads.

    For two cores: a small SimVP, given the same epochs on these few thousand frames, ended behind
    the student that it was to teach (docs/log.md), and costs three times as much a step.
    """
    return TeacherSpec(
        backbone=Part(name="unet", params={"width": unet, **params}),
        width=width,
        heads=4,
        depth=2,
        dropout=0.0,
    )


def small_training(epochs: int, *, lr: float = 2e-3) -> Training:
    """A fixed, short budget with a cosine schedule: what two cores can do for every method."""
    return Training(epochs=epochs, lr=lr, schedule="cosine", clip=1.0)


def standin(
    name: str,
    dataset: Part,
    *,
    split: Split = Split(),  # noqa: B008
    stride: int = 1,
    test_stride: int = 1,
    norm: str = "batch",
    teacher_epochs: int = 14,
) -> Recipe:
    """What the stand-ins have in common: four frames to four, and a budget for two cores.

    Students learn from batches of four, which takes four times the steps at the same cost, and for
    42 epochs: with sixteen, as published, or after 14, they had not converged. Teachers stop early:
    later they are better themselves and teach worse, having learned the training windows by heart
    (docs/log.md; Cho & Hariharan 2019).
    """
    return Recipe(
        name=name,
        dataset=dataset,
        split=split,
        past=4,
        lead=4,
        stride=stride,
        test_stride=test_stride,
        predict="change",
        teacher=wide_teacher(),
        students=(Part(name="unet", params={"width": 8, "norm": norm}),),
        methods=METHODS,
        teacher_training=small_training(teacher_epochs),
        student_training=replace(small_training(42), batch_size=4),
    )


@builtin
def ncep_air(*, data: str) -> Recipe:
    """Near-surface air temperature over North America, 6-hourly (NCEP/NCAR), 24 h to 24 h."""
    way_out = f"; `s2kd data fetch ncep_air --out {data}` downloads it"
    path = _file(data, "ncep_air_sig995_6h_2013_2014.nc", way_out=way_out)
    part = Part(name="cf", params={"path": path, "variables": ["air"]})
    split = Split(
        train=("2013-01-01", "2014-06-30"),
        val=("2014-07-01", "2014-09-30"),
        test=("2014-10-01", "2014-12-31"),
        gap=8,
    )
    return replace(standin("ncep_air", part, stride=3), split=split)


@builtin
def taxi_sf(*, data: str) -> Recipe:
    """Taxi in- and outflow over San Francisco, half-hourly, TaxiBJ's layout, 2 h to 2 h."""
    params = {"path": _file(data, "taxi_sf_32x32_30min.npz", "SF08_M32x32_T30_InOut.h5")}
    # after 14 epochs this teacher is still behind the student that it is to teach
    return standin(
        "taxi_sf",
        Part(name="taxibj", params=params),
        split=Split(days=(16, 3, 4), gap=8),
        teacher_epochs=28,
    )


@builtin
def fds_pool(*, data: str) -> Recipe:
    """A pool fire in vertical planes (soot, heat release, temperature), from an FDS run."""
    part = Part(name="fds", params={"path": _file(data, "fds_pool_fire_hfg_21x21x21.npz")})
    # One fire that grows: with batch norm a student's validation error jumped by half from one
    # epoch to the next, because its running means were those of other stages (docs/log.md).
    return standin("fds_pool", part, split=Split(gap=10), stride=6, test_stride=3, norm="group")


@builtin
def fds_runs(*, data: str) -> Recipe:
    """Tunnel fires in eight environments, from FDS; heat release and wind unseen, scored apart."""
    return _fires("fds_runs", data, chosen="T", fractions=(0.7, 0.1, 0.2))


@builtin
def fds_runs_p(*, data: str) -> Recipe:
    """Pool fires in eight environments, from FDS; heat release and wind unseen, scored apart."""
    # 151 frames an environment: a tenth of them less the gap would hold no window
    return _fires("fds_runs_p", data, chosen="P", fractions=(0.6, 0.2, 0.2))


def _fires(name: str, data: str, *, chosen: str, fractions: tuple[float, ...]) -> Recipe:
    params = {"path": _folder(data, "fds_runs", "environments.json"), "set": chosen}
    part = Part(name="fds", params=params)
    # Not group norm: it norms every window by itself, so a fire stronger than any in training
    # loses the strength by which it differs. And longer teachers, as for taxis (docs/log.md).
    split = Split(fractions=fractions, gap=10)
    return standin(name, part, split=split, stride=2, test_stride=2, teacher_epochs=28)


def _folder(data: str, name: str, holds: str) -> str:
    """`data` itself where it holds that file, else the folder of that name in it."""
    path = Path(data).expanduser()
    return str(path) if (path / holds).is_file() else _file(data, name)


FULL_GRID_TEACHERS: dict[str, dict[str, TeacherSpec | Training]] = {
    "fds_pool": {
        "teacher": TeacherSpec(
            backbone=Part(name="resnet", params={"width": 48, "blocks": 4, "norm": "group"}),
            width=64,
            heads=4,
            depth=2,
            dropout=0.0,
        ),
        "teacher_training": replace(small_training(14), batch_size=4),
    }
}
"""What a stand-in's recipe has in place of its teacher for the study of one on the full grid.

On `fds_pool` even the plain ResNet student is ahead of the U-Net teacher on validation
(docs/log.md).
"""
