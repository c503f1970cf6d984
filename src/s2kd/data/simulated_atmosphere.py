"""A weather-like world: meandering jets and a temperature field on the whole globe."""

import numpy as np

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._barotropic import Climate, run
from s2kd.data._sphere import Sphere
from s2kd.data.dataset import Dataset, Stretch


@datasets.register("atmosphere")
def atmosphere(
    *,
    members: int = 6,
    days: int = 50,
    spin_up_days: int = 30,
    seed: int = 0,
    height: int = 32,
    width: int = 64,
    truncation: int | None = None,
    step_hours: int = 6,
    val_members: int = 1,
    test_members: int = 1,
) -> Dataset:
    """Height (m) and temperature (K) on a Gaussian grid: `members` runs of `days` days each.

    The runs differ in the waves of their first day and in their stirring; after `spin_up_days`
    they have forgotten the first. Each is a stretch of its own and the splits are made of whole
    runs: the last `test_members` test, the `val_members` before them val, the rest train; so
    nothing is trained on within months of what is tested. Member k's clock starts on 1 January of
    year 2001 + k; there are no seasons and no days and nights. `truncation` T defaults to the
    largest that the grid carries without aliasing, width ≥ 3T + 1 and 2·height ≥ 3T + 1.

    Raises `S2KDError` for odd or too few rows and columns, a truncation that the grid cannot
    carry, too few members, or a run without frames.
    """
    largest = (min(width, 2 * height) - 1) // 3
    truncation = largest if truncation is None else truncation
    _check(members, val_members, test_members, days, spin_up_days, step_hours)
    if height % 2 or width % 2 or largest < 13:
        raise S2KDError(
            f"atmosphere: height and width must be even and at least 20 and 40, "
            f"got {height} and {width}"
        )
    if not 13 <= truncation <= largest:
        raise S2KDError(
            f"atmosphere: truncation={truncation} is outside 13 to {largest}, "
            f"what a {height}×{width} grid carries"
        )
    sphere = Sphere.make(height=height, width=width, truncation=truncation, dtype=np.float32)
    per_day = 24 // step_hours
    fields = run(
        sphere,
        Climate(),
        members=members,
        seed=seed,
        skip=spin_up_days * per_day,
        frames=days * per_day,
        step_seconds=step_hours * 3600.0,
    )
    length = days * per_day
    stretches = tuple(
        Stretch(first=k * length, stop=(k + 1) * length, name=f"member {k}") for k in range(members)
    )
    seen = members - val_members - test_members
    hours = np.arange(length) * np.timedelta64(step_hours, "h")
    starts = [np.datetime64(f"{2001 + k}-01-01", "ns") for k in range(members)]
    latitude = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(height)[0]))[::-1]
    return Dataset(
        name="atmosphere",
        domain="weather",
        grid=GridSpec(
            channels=("height", "temperature"),
            units=("m", "K"),
            height=height,
            width=width,
            step_seconds=step_hours * 3600.0,
            latitude=tuple(latitude.tolist()),
            longitude=tuple((360 * np.arange(width) / width).tolist()),
            wraps=True,
        ),
        frames=fields.reshape(-1, *fields.shape[2:]),
        times=np.concatenate([start + hours for start in starts]),
        splits={
            "train": stretches[:seen],
            "val": stretches[seen : seen + val_members],
            "test": stretches[seen + val_members :],
        },
        attributes={
            "height": {"standard_name": "geopotential_height"},
            "temperature": {"standard_name": "air_temperature"},
        },
        source="simulated: barotropic vorticity equation with a temperature tracer",
    )


def _check(
    members: int, val_members: int, test_members: int, days: int, spin_up_days: int, step_hours: int
) -> None:
    if min(val_members, test_members) < 1 or members <= val_members + test_members:
        raise S2KDError(
            f"atmosphere: members={members} must exceed val_members + test_members = "
            f"{val_members} + {test_members}, each at least 1"
        )
    if days < 1 or spin_up_days < 0:
        raise S2KDError(
            f"atmosphere: needs days ≥ 1 and spin_up_days ≥ 0, got {days} and {spin_up_days}"
        )
    if step_hours < 1 or 24 % step_hours:
        raise S2KDError(f"atmosphere: step_hours={step_hours} must divide 24")
