"""Taxi flows in and out of every cell of a city: TaxiBJ and TaxiBJ+, in all layouts they have."""

from collections.abc import Sequence
from pathlib import Path

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._taxibj_cut import from_cut, layout_of
from s2kd.data._taxibj_raw import from_slots
from s2kd.data.dataset import Dataset


@datasets.register("taxibj")
def taxibj(
    *,
    path: str | Path,
    fractions: Sequence[float] | None = (0.7, 0.1, 0.2),
    train_days: int | None = None,
    val_days: int | None = None,
    test_days: int | None = None,
    gap: int = 24,
    keep_empty: bool = False,
    whole_days: bool = False,
    weather: bool = True,
    holidays: bool = True,
    val_fraction: float = 0.1,
    maximum: float | int = 1.0,
    subsample_input: int = 1,
    shared: str = "drop",
    cache: str = "",
) -> Dataset:
    """Taxi in- and outflow by half-hour: TaxiBJ's files by slot, or windows cut by others.

    **By slot.** `path` is an HDF5 file with `date` and `data`; a folder with files called
    `*_InOut.h5`; or an `.npz` with `flow` and `date` (or `time`, local seconds since 1970), where
    `valid` marks slots that count and `lat_edges` and `lon_edges` give the cells' edges in
    degrees. Row 0 is north. Counts a half-hour; negative ones, which some files hold, become 0.
    Splits are by whole days in order of time: `train_days`, `val_days` and `test_days` from the
    first day on (without `train_days`: all days before the last ones), or `fractions` of the days
    there are; the first `gap` slots of val and of test are left out (`fractions=None`: no days are
    counted and all is test, to forecast from). A stretch ends where a slot
    is missing, is marked invalid, holds a value that is not finite, or is empty all over the city
    (an outage; `keep_empty` keeps these). `whole_days` leaves out days without all 48 slots, as
    the published preprocessing does. `context` is "weekday" or "weekend", and, from
    `BJ_Holiday.txt` and `BJ_Meteorology.h5` beside the flows, "holiday" and the weather in coarse
    words; narrators are told that of a window's last past frame, students nothing
    (`holidays=False`, `weather=False` leave it out).

    **Cut windows.** `path` is OpenSTL's `dataset.npz` (or its folder), or a TaxiBJ+ folder with
    `train`, `valid` and `test` each holding `X_c.npy` and `Y.npy`, or with
    `train_input_data_reshaped.npy` and so on. Each example is a stretch of its own, past and
    future frames in a row, so that a 4 → 4 example gives one window of 8 frames. The published
    test examples stay the test split. OpenSTL has no validation: the last `val_fraction` of its
    training examples is taken, never the test. An example of train or val that shares a frame
    with a later split is left out (`shared="keep"` keeps all, as published, though it leaks).
    OpenSTL's values, -1 to 1, become 0 to `maximum` (1: a fraction of the greatest count).
    `subsample_input=4` is the published super-resolution variant of TaxiBJ+: past frames keep
    every fourth row and column from the first, each value repeated over 4 × 4 cells, future
    frames stay as they are; the data set is then named for it. There are no dates.

    Raises `S2KDError` for a file that cannot be read, a missing key, wrong shapes, bad, repeated
    or unsorted slots, files that overlap in time, or fewer days than asked for.
    """
    path = Path(path).expanduser()
    cut = layout_of(path)
    if cut is None:
        _refuse("files by slot", val_fraction=val_fraction != 0.1, maximum=maximum != 1.0)
        _refuse("files by slot", subsample_input=subsample_input != 1, shared=shared != "drop")
        return from_slots(
            path,
            fractions=fractions,
            days=(train_days, val_days, test_days),
            gap=gap,
            keep_empty=keep_empty,
            whole_days=whole_days,
            weather=weather,
            holidays=holidays,
        )
    _refuse(
        "windows that are cut already",
        fractions=fractions is not None and tuple(fractions) != (0.7, 0.1, 0.2),
        train_days=train_days is not None,
        val_days=val_days is not None,
        test_days=test_days is not None,
        gap=gap != 24,
        keep_empty=keep_empty,
        whole_days=whole_days,
    )
    return from_cut(
        path,
        cut,
        val_fraction=val_fraction,
        maximum=float(maximum),
        subsample_input=subsample_input,
        shared=shared,
        cache=cache,
    )


def _refuse(layout: str, **changed: bool) -> None:
    for name, is_changed in changed.items():
        if is_changed:
            raise S2KDError(f"taxibj: {name} has no meaning for {layout}")
