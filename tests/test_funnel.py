"""The funnel: splits, gaps and memory of any reader's record, whatever the reader."""

import itertools

import cftime
import numpy as np
import pytest
import xarray as xr
from gridded import waves
from hypothesis import given, settings
from hypothesis import strategies as st

from s2kd.core.recipe import Keep, Part, Split
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import frames as blocks
from s2kd.data import load
from s2kd.data.describe import describe
from s2kd.data.gaps import GapFilter, nearest_cells
from s2kd.data.loading import dataset_of, split_record
from s2kd.data.readers._record import per_frame, record
from s2kd.data.store import open_store, write_store

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2001-01-01", "ns")
THIRDS = Split(fractions=(0.5, 0.25, 0.25), gap=0)


def made_record(hours, *, runs=None, values=None, coords=None, **attrs):
    """One channel on 3 × 4 cells at these hours; the value of a frame is its number."""
    hours = np.asarray(hours)
    if values is None:
        values = np.broadcast_to(np.arange(len(hours))[:, None, None, None], (len(hours), 1, 3, 4))
    coords = dict(coords or {})
    if runs is not None:
        coords["run"] = ("time", np.array(runs, dtype=object))
    return record(
        np.asarray(values, dtype=np.float32),
        channels=("t",),
        units=("K",),
        times=START + hours * HOUR,
        coords=coords,
        **{"name": "made", "domain": "generic", "source": "made up"} | attrs,
    )


def loaded(made, split=THIRDS, keep=Keep()):  # noqa: B008
    """The dataset of a record, in memory."""
    return blocks.copied_to_memory(*dataset_of("made.nc", made, split, keep))


def bounds(splits):
    return {n: [(s.first, s.stop, s.name) for s in stretches] for n, stretches in splits.items()}


# --- splits --------------------------------------------------------------------------------------


@st.composite
def records(draw):
    """Runs of hourly frames with hours missing: (hours, run names)."""
    hours, names = [], []
    for number in range(draw(st.integers(1, 3))):
        length = draw(st.integers(12, 40))
        lost = draw(st.sets(st.integers(1, length - 2), max_size=3))
        remaining = [h for h in range(length) if h not in lost]
        hours += remaining
        names += [f"run {number}"] * len(remaining)
    return np.array(hours), names


@given(records(), st.integers(0, 5), st.sampled_from([(0.5, 0.25, 0.25), (0.6, 0.2, 0.1)]))
@settings(max_examples=80, deadline=None)
def test_fractions_share_no_frame_and_bridge_nothing(hours_and_names, gap, fractions):
    """Disjoint, in order, `gap` frames apart, and never across a missing hour or two runs."""
    hours, names = hours_and_names
    try:
        splits = split_record("made", made_record(hours, runs=names), Split(
            fractions=fractions, gap=gap
        ))  # fmt: skip
    except S2KDError as error:
        if "nothing is left for the" not in str(error):
            raise
        return
    frames = {name: [] for name in splits}
    for name, stretches in splits.items():
        for stretch in stretches:
            span = range(stretch.first, stretch.stop)
            assert {names[i] for i in span} == {stretch.name}
            assert (np.diff(hours[stretch.first : stretch.stop]) == 1).all()
            frames[name] += span
    assert len({i for own in frames.values() for i in own}) == sum(map(len, frames.values()))
    for run in set(names):
        numbers = [i for i, name in enumerate(names) if name == run]
        inside = [[i for i in frames[name] if i in numbers] for name in ("train", "val", "test")]
        for earlier, later in itertools.pairwise(inside):
            if earlier and later:
                assert later[0] - earlier[-1] > gap
        shares = np.cumsum([0, *fractions]) * len(numbers)
        assert inside[0] == numbers[: round(shares[1])]
        assert not inside[2] or inside[2][-1] < numbers[0] + round(shares[3])


def test_dates_are_complete_days_with_a_gap_between_splits():
    hours = np.arange(0, 24 * 90, 6)
    split = Split(train=("2001-01", "2001-01-31"), val=("2001-02",) * 2, test=("2001-03-05",
                  "2001-03-20T06"), gap=3)  # fmt: skip
    splits = split_record("made", made_record(hours), split)
    times = START + hours * HOUR
    ends = {n: (str(times[s[0].first])[:13], str(times[s[0].stop - 1])[:13])
            for n, s in splits.items()}  # fmt: skip
    assert ends == {
        "train": ("2001-01-01T00", "2001-01-31T18"),
        "val": ("2001-02-01T18", "2001-02-28T18"),
        "test": ("2001-03-05T00", "2001-03-20T06"),
    }


def test_other_calendars_are_cut_by_their_own_dates():
    times = np.array([cftime.Datetime360Day(2001, m, d) for m in (1, 2, 3) for d in range(1, 31)])
    made = made_record(np.arange(90)).assign_coords(time=times)
    split = Split(train=("2001-01", "2001-01"), val=("2001-02-01", "2001-02-30"),
                  test=("2001-03", "2001-03"), gap=0)  # fmt: skip
    assert bounds(split_record("made", made, split)) == {
        "train": [(0, 30, "")], "val": [(30, 60, "")], "test": [(60, 90, "")],
    }  # fmt: skip


def test_runs_are_chosen_by_name_pattern_and_number():
    names = [f"storm_{n}" for n in range(5) for _ in range(6)] + ["calm"] * 6
    made = made_record(np.tile(np.arange(6), 6), runs=names)
    split = Split(train=("0:3",), val=("calm",), test=("storm_[34]",))
    splits = split_record("made", made, split)
    assert [s.name for s in splits["train"]] == ["storm_0", "storm_1", "storm_2"]
    assert [s.name for s in splits["val"] + splits["test"]] == ["calm", "storm_3", "storm_4"]
    with pytest.raises(S2KDError, match="run 'storm_1' is in both train and test"):
        split_record("made", made, Split(train=("storm_*",), val=("calm",), test=("1:2",)))
    with pytest.raises(S2KDError, match="no run fits 'strom_1'; did you mean 'storm_1'"):
        split_record("made", made, Split(train=("strom_1",), val=("calm",), test=("1:2",)))


def test_runs_of_one_name_follow_one_another():
    """Members of an environment: where time starts again, a run does."""
    made = made_record(np.tile(np.arange(8), 2), runs=["a"] * 16)
    splits = split_record("made", made, THIRDS)
    assert bounds(splits)["train"] == [(0, 4, "a"), (8, 12, "a")]
    made = made_record(np.arange(32), runs=[name for name in "abcd" for _ in range(8)])
    splits = split_record("made", made, Split(train=("a", "b"), val=("c",), test=("d",)))
    assert bounds(splits)["train"] == [(0, 8, "a"), (8, 16, "b")], "though time goes on"


def test_days_are_counted_whatever_is_missing():
    """The first `gap` steps of the day that val and test begin with are left out."""
    hours = np.array([h for h in range(24 * 10) if h not in (24 * 4, 24 * 4 + 1, 30)])
    made = made_record(hours)
    splits = split_record("made", made, Split(days=(0, 2, 3), gap=4))
    spans = {n: [(hours[s.first], hours[s.stop - 1]) for s in v] for n, v in splits.items()}
    assert spans == {
        "train": [(0, 29), (31, 95), (98, 119)],
        "val": [(124, 167)],
        "test": [(172, 239)],
    }
    shares = split_record("made", made.assign_attrs(whole_days=1), THIRDS)
    assert hours[shares["val"][0].first] == 24 * 5
    assert hours[shares["test"][0].first] == 24 * 8
    with pytest.raises(S2KDError, match="holds 10 days, too few for train, val and test of 6, 3"):
        split_record("made", made, Split(days=(6, 3, 2)))


def test_unseen_runs_are_tests_of_their_own_and_come_last():
    powers = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}
    made = made_record(
        np.tile(np.arange(8), 4),
        runs=[name for name in powers for _ in range(8)],
        parameters={name: {"heat release": value, "wind": None} for name, value in powers.items()},
    )
    split = Split(fractions=(0.5, 0.25, 0.25), gap=0, unseen={"heat release": "extremes"})
    dataset = loaded(made, split)
    assert list(dict.fromkeys(s.name for s in dataset.splits["train"])) == ["a", "c"]
    assert [s.name for s in dataset.splits["test_unseen_heat_release"]] == ["b", "d"]
    for name, stretches in dataset.splits.items():
        for stretch in stretches:  # frames moved along with their names
            number = int(dataset.frames[stretch.first].flat[0])
            assert "abcd"[number // 8] == stretch.name, name
    ranges = split_record("made", made, Split(gap=0, unseen={"heat release": [2, 5]}))
    assert [s.name for s in ranges["test_unseen_heat_release"]] == ["b"]
    for unseen, words in (
        ({"heat release": [0, 9]}, "holds no environment out"),
        ({"heat release": [7, 9]}, "leaves no environment to learn from"),
        ({"wind": "extremes"}, "environment 'a' has no 'wind'"),
        ({"heat release": ["e"]}, "no environment 'e'"),
        ({"heat release": "extreme"}, "must be 'extremes', the range"),
    ):
        with pytest.raises(S2KDError, match=words):
            split_record("made", made, Split(unseen=unseen))


def test_published_splits_hold_unless_the_recipe_has_others():
    labels = np.array(
        ["train"] * 5 + [""] * 2 + ["val"] * 4 + ["test"] * 4 + ["test_x"] * 5, object
    )
    made = made_record(np.arange(20), coords={"split": ("time", labels)})
    assert bounds(split_record("made", made, Split())) == {
        "train": [(0, 5, "")], "val": [(7, 11, "")], "test": [(11, 15, "")],
        "test_x": [(15, 20, "")],
    }  # fmt: skip
    assert bounds(split_record("made", made, THIRDS))["train"] == [(0, 10, "")]


def test_a_readers_defaults_fill_what_the_recipe_leaves_open():
    years = np.arange(0, 365 * 24 * 4, 24)
    defaults = {"train": ("2001", "2002"), "val": ("2003", "2003"), "test": ("2004", "2004"),
                "gap": 0}  # fmt: skip
    made = made_record(years, split=defaults, complete_years=1)
    splits = split_record("made", made, Split(train=("2002", "2002")))
    # frames of no split are dropped where every year counts
    assert bounds(splits)["train"] == [(0, 365, "")]
    with pytest.raises(S2KDError, match=r"train is 1999 to 2002, .* of 1999–2000 \(there are of"):
        split_record("made", made, Split(train=("1999", "2002")))
    assert len(split_record("made", made, THIRDS)["train"]) == 1


def test_episodes_are_counted_through_the_gaps_and_runs_of_the_training_split():
    """Twelve training frames, six a run: the frames 0, 1, 5, 6, 10 and 11 of them."""
    made = made_record(np.tile(np.arange(12), 2), runs=["a"] * 12 + ["b"] * 12)
    split = Split(fractions=(0.5, 0.25, 0.25), gap=0, episodes=(2, 5))
    splits = bounds(split_record("made", made, split))
    assert splits["train"] == [(0, 2, "a"), (5, 6, "a"), (12, 13, "b"), (16, 18, "b")]
    whole = bounds(split_record("made", made, THIRDS))
    assert splits["val"] == whole["val"]
    assert splits["test"] == whole["test"]
    first = Split(fractions=(0.5, 0.25, 0.25), gap=0, episodes=(6, 12))
    assert bounds(split_record("made", made, first))["train"] == [(0, 6, "a")]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (Split(episodes=(5, 4)), "episodes of 5 frames do not fit in 4 frames"),
        (Split(train=("2001-01-01",)), "train must be a first and a last date"),
        (Split(train=("2001-01-01", "2001-01-02"), val=("2001-01-02",) * 2,
               test=("2001-01-03",) * 2), "the dates of train and val overlap at 2001-01-02"),
        (Split(train=("1990", "1991"), val=("2001",) * 2, test=("2001",) * 2),
         "train from 1990 to 1991 holds no frame; the record runs from 2001-01-01T00"),
        (Split(fractions=(0.5, 0.5)), "fractions must be three positive numbers"),
        (Split(fractions=(0.5, 0.25, 0.25), gap=40), "nothing is left for the val split out of"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be(split, words):
    with pytest.raises(S2KDError, match=words):
        split_record("made", made_record(np.arange(72)), split)


def test_every_nth_time_counts_from_the_start_of_its_run():
    hours = np.array([h for h in range(40) if h != 20])
    dataset = loaded(made_record(hours), THIRDS, Keep(time_stride=2))
    assert dataset.grid.step_seconds == 7200
    assert dataset.frames[:, 0, 0, 0].tolist() == [i for i, h in enumerate(hours) if h % 2 == 0]
    assert len(dataset.splits["val"]) == 1
    assert len(dataset.splits["train"]) == 1
    assert (np.diff(dataset.times[:10]) == 2 * HOUR).all()


# --- missing values ------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.6), st.sampled_from([1, 3, 7, 20]))
@settings(max_examples=60, deadline=None)
def test_gaps_are_filled_from_the_past_of_the_same_run(seed, share, block):
    """Against a slow loop, whatever the blocks; cells not observed yet take their nearest cell."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(20, 1, 3, 4)).astype(np.float32)
    holes = rng.random(values.shape) < share
    holes[[0, 11], :, 0, 0] = False  # a run's first frame has a value
    values[holes] = np.nan
    starts = np.array([0, 11])
    times = START + np.arange(20) * HOUR
    grid = GridSpec(channels=("t",), units=("K",), height=3, width=4, step_seconds=3600.0)
    gaps = GapFilter("made", grid, times, missing="fill", run_starts=starts)
    filled = np.concatenate([gaps.filled(values[f : f + block]) for f in range(0, 20, block)])
    expected = values.copy()
    for frame in range(20):
        last = starts[starts <= frame][-1]
        for row, column in np.ndindex(3, 4):
            history = values[last : frame + 1, 0, row, column]
            history = history[np.isfinite(history)]
            expected[frame, 0, row, column] = history[-1] if len(history) else np.nan
    known = np.isfinite(expected)
    np.testing.assert_array_equal(filled[known], expected[known])
    for frame, cells in zip(filled[:, 0], known[:, 0], strict=True):
        assert set(frame[~cells]) <= set(frame[cells])


def test_nearest_cells_against_a_slow_search():
    rng = np.random.default_rng(3)
    for wraps in (False, True):
        known = rng.random((7, 9)) < 0.15
        known[2, 3] = True
        source = nearest_cells(known, wraps=wraps)

        def steps(row, column, cell, wraps=wraps):
            across = abs(cell[1] - column)
            return abs(cell[0] - row) + (min(across, 9 - across) if wraps else across)

        for row, column in np.ndindex(7, 9):
            shortest = min(steps(row, column, cell) for cell in np.argwhere(known))
            nearest = divmod(int(source[row, column]), 9)
            assert known[nearest]
            assert steps(row, column, nearest) == shortest


def with_gaps(*places, frames=40):
    values = np.random.default_rng(0).normal(size=(frames, 1, 3, 4))
    for place in places:
        values[place] = np.nan
    return made_record(np.arange(frames), values=values)


SEA, LATE = (slice(None), 0, 1, 2), (slice(12, 15), 0, 0, 3)


def test_missing_values_are_reported_with_time_place_and_remedy():
    with pytest.raises(S2KDError, match=(
        r"made.nc: 't' has 3 missing values, the first at 2001-01-01T12:00:00, row 0, column 3; "
        r"set keep.missing to what helps: 'fill' carries"
    )):  # fmt: skip
        loaded(with_gaps(LATE))
    with pytest.raises(S2KDError, match=r"'mask' leaves out the 1 cells that .*, 'fill' carries"):
        loaded(with_gaps(SEA, LATE))
    with pytest.raises(S2KDError, match="has 3 missing values, the first at 2001-01-01T12"):
        loaded(with_gaps(SEA, LATE), keep=Keep(missing="mask"))
    with pytest.raises(S2KDError, match="'t' has no values at all at 2001-01-01T00:00:00"):
        loaded(with_gaps((0, 0)), keep=Keep(missing="fill"))
    with pytest.raises(S2KDError, match="'t' is missing at every time and place"):
        loaded(with_gaps((slice(None),)), keep=Keep(missing="fill"))


@pytest.mark.parametrize("missing", ["mask", "fill"])
def test_a_cell_without_any_value_leaves_the_grid(missing):
    dataset = loaded(with_gaps(SEA), keep=Keep(missing=missing))
    assert np.argwhere(~dataset.grid.exists).tolist() == [[1, 2]]
    assert np.isfinite(dataset.frames).all()


def test_a_cell_that_one_run_lacks_leaves_the_grid_of_all():
    made = with_gaps((slice(20, 40), 0, 1, 2))
    made = made.assign_coords(run=("time", np.array(["a"] * 20 + ["b"] * 20, object)))
    dataset = loaded(made, keep=Keep(missing="mask"))
    assert np.argwhere(~dataset.grid.exists).tolist() == [[1, 2]]


def test_cells_that_the_reader_knows_not_to_exist_may_be_missing():
    mask = np.ones((3, 4), dtype=bool)
    mask[1, 2] = False
    dataset = loaded(with_gaps(SEA).assign_coords(mask=(("row", "column"), mask)))
    np.testing.assert_array_equal(dataset.grid.exists, mask)
    assert np.isfinite(dataset.frames).all()


# --- memory --------------------------------------------------------------------------------------


def test_memory_and_store_are_the_same_dataset(tmp_path, monkeypatch):
    """Lazy chunks or an array, gaps filled across blocks, one fingerprint."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 12 * 7)
    made = with_gaps(SEA, LATE)
    keep = Keep(missing="fill")
    in_memory = loaded(made, keep=keep)
    for number, variant in enumerate((made, made.chunk({"time": 5}), made.chunk({"time": 40}))):
        dataset, gaps = dataset_of("made.nc", variant, THIRDS, keep)
        folder = tmp_path / str(number)
        write_store(dataset, gaps, folder, key="key")
        stored = open_store(folder, memory_gb=0.0)
        assert stored.fingerprint == in_memory.fingerprint
        assert stored.grid == in_memory.grid


def test_blocks_end_along_stored_chunks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 12 * 10)
    made = made_record(np.arange(60))
    for chunk, expected in (
        (4, [*range(0, 60, 8), 60]),
        (20, [0, 20, 40, 60]),
        (60, [0, 60]),
    ):
        frames = blocks.RecordFrames(made.chunk({"time": chunk}), "made")
        assert blocks.block_edges(frames) == expected, chunk


def test_a_frame_that_cannot_be_read_is_named():
    def broken(block):
        raise OSError("codec blosc\nfailed")

    made = made_record(np.arange(40)).chunk({"time": 10})
    made["t"].data = made["t"].data.map_blocks(broken, dtype="f4", meta=np.zeros(0, "f4"))
    with pytest.raises(S2KDError, match=r"made.nc: cannot be read between 2001-01-01T00:00:00 and "
                                        r"2001-01-02T15:00:00 \(codec blosc\)"):  # fmt: skip
        loaded(made)


def test_a_dataset_says_what_its_record_does():
    made = made_record(np.arange(40), local_time=1, wraps=1, notices=["left out"], window=(2, 2),
                       coords={"latitude": ("row", [60.0, 50, 40]),
                               "context": per_frame([("rain",)] * 40)})  # fmt: skip
    dataset = loaded(made)
    assert dataset.grid.latitude == (60.0, 50.0, 40.0)
    assert (dataset.grid.wraps, dataset.local_time, dataset.window) == (True, True, (2, 2))
    assert dataset.notices == ("left out",)
    assert dataset.context[7] == ("rain",)
    assert dataset.attributes == {"t": {"units": "K"}}
    assert dataset.grid.step_seconds == 3600


# --- data passed from Python ---------------------------------------------------------------------


def projected(dims, *, cells=(3, 4)):
    """One channel without latitudes and longitudes."""
    values = np.random.default_rng(1).normal(size=(40, *cells)).astype(np.float32)
    return xr.Dataset({"t": (dims, values, {"units": "K"})}, {"time": START + np.arange(40) * HOUR})


@pytest.mark.parametrize("source", [
    waves(40).isel(latitude=slice(None, None, -1)),
    waves(40).assign(u=waves(40)["t2m"] * 2),
    projected(("time", "y", "x")),
    projected(("time", "row", "column")),
], ids=["weather", "two channels", "y and x", "row and column"])  # fmt: skip
def test_data_in_memory_are_the_data_of_the_same_file(source, tmp_path):
    path = tmp_path / "same.nc"
    source.to_netcdf(path, engine="h5netcdf")
    from_file = load(Part(name="cf", params={"path": str(path)}), THIRDS)
    from_memory = load(source, THIRDS)
    assert from_memory.fingerprint == from_file.fingerprint
    np.testing.assert_array_equal(from_memory.frames, from_file.frames)
    np.testing.assert_array_equal(from_memory.times, from_file.times)
    assert from_memory.attributes == from_file.attributes
    on_disk = load(source, THIRDS, Keep(memory_gb=0, cache=str(tmp_path / "cache")))
    assert on_disk.fingerprint == from_file.fingerprint


def test_frames_of_other_data_in_memory_are_not_taken_from_the_cache(tmp_path):
    keep = Keep(memory_gb=0, cache=str(tmp_path))
    first, second = (load(waves(40) + offset, THIRDS, keep) for offset in (0, 1))
    np.testing.assert_allclose(second.frames[0:40], first.frames[0:40] + 1, rtol=1e-6)


def test_a_recipe_of_data_in_memory_needs_them_again():
    source = waves(60)
    description = describe(source)
    part = Part(**description.dataset)
    assert (part.name, part.params["variables"]) == ("memory", ["t2m"])
    array = load(part, THIRDS, data=source["t2m"])
    assert array.fingerprint == load(source, THIRDS).fingerprint
    with pytest.raises(
        S2KDError, match=r"were an xarray object in memory, .* pass the same object"
    ):
        load(part, THIRDS)
    with pytest.raises(S2KDError, match="data in memory are read by 'memory', but dataset is 'cf'"):
        load(Part(name="cf", params={"path": "a.nc"}), THIRDS, data=source)
