import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2kd.core.types import GridSpec, S2KDError, Statistics
from s2kd.data.dataset import Dataset, StoredFrames, Stretch
from s2kd.data.splits import chronological
from s2kd.data.windows import WindowDataset

KNOWN = Statistics(mean=(0.0,), std=(1.0,), minimum=(0.0,), maximum=(1.0,), quantiles={})


def numbered(count, splits, *, frames=None, latitude=None, **more):
    """Every value of frame i is i, so that a window shows which frames it holds."""
    if frames is None:
        frames = np.broadcast_to(
            np.arange(count, dtype=np.float32)[:, None, None, None], (count, 1, 2, 2)
        ).copy()
    grid = GridSpec(
        channels=("n",), units=("1",), height=2, width=2, step_seconds=3600.0, latitude=latitude
    )
    times = np.datetime64("2001-07-01") + np.arange(count).astype("timedelta64[h]")
    return Dataset(
        name="numbered", domain="generic", grid=grid, frames=frames,
        times=times.astype("datetime64[ns]"), splits=splits, **more,
    )  # fmt: skip


def held(windows):
    """(window, past + lead) the numbers of the frames in every window."""
    batch = windows.gather(torch.arange(len(windows)))
    return torch.cat([batch.past, batch.future], 1)[:, :, 0, 0, 0].long().numpy()


LENGTHS = st.lists(st.integers(20, 50), min_size=1, max_size=4)


@given(
    lengths=LENGTHS,
    gap=st.integers(0, 6),
    past=st.integers(1, 4),
    lead=st.integers(1, 4),
    stride=st.integers(1, 5),
)
def test_no_window_crosses_a_stretch_and_no_frame_two_splits(lengths, gap, past, lead, stride):
    stops = np.cumsum(lengths).tolist()
    runs = tuple(
        Stretch(first=stop - length, stop=stop, name=f"run {i}")
        for i, (stop, length) in enumerate(zip(stops, lengths, strict=True))
    )
    data = numbered(stops[-1], chronological(runs, fractions=(0.6, 0.2, 0.2), gap=gap))
    seen = {}
    for split, stretches in data.splits.items():
        # slow oracle: slide a window over every stretch
        want = [
            list(range(first, first + past + lead))
            for s in stretches
            for first in range(s.first, s.stop, stride)
            if first + past + lead <= s.stop
        ]
        if not want:
            with pytest.raises(S2KDError, match=f"{split} split is too short"):
                WindowDataset(data, split, past=past, lead=lead, stride=stride)
            continue
        windows = WindowDataset(data, split, past=past, lead=lead, stride=stride)
        assert held(windows).tolist() == want
        inside = {s.name: set(range(s.first, s.stop)) for s in stretches}
        for frames, name in zip(want, windows.groups, strict=True):
            assert set(frames) <= inside[name]
        seen[split] = set(np.unique(want).tolist())
    for one in seen:
        for other in seen:
            assert one == other or not seen[one] & seen[other], f"{one} and {other} share frames"


SPLITS = {
    "train": (Stretch(first=0, stop=9, name="a"), Stretch(first=11, stop=18, name="b")),
    "val": (Stretch(first=18, stop=24, name="c"),),
    "test": (Stretch(first=24, stop=30, name="d"),),
}


@pytest.fixture
def noise():
    return np.random.default_rng(0).standard_normal((30, 1, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_gather_is_a_slice_a_window(noise, where, tmp_path):
    frames = noise
    if where == "disk":
        np.save(tmp_path / "noise.npy", noise)
        frames = StoredFrames(tmp_path / "noise.npy")
    windows = WindowDataset(numbered(30, SPLITS, frames=frames), "train", past=3, lead=2, stride=2)
    assert windows.starts.tolist() == [0, 2, 4, 11, 13]
    batch = windows.gather(torch.tensor([4, 0, 4, 1]))
    for row, start in enumerate([13, 0, 13, 2]):
        np.testing.assert_array_equal(batch.past[row], noise[start : start + 3])
        np.testing.assert_array_equal(batch.future[row], noise[start + 3 : start + 5])
    assert batch.index.tolist() == [4, 0, 4, 1]


def test_batches_are_all_windows_in_order():
    windows = WindowDataset(numbered(30, SPLITS), "train", past=2, lead=1)
    sizes, index, first = [], [], []
    for batch in windows.batches(4):
        sizes.append(len(batch.index))
        index += batch.index.tolist()
        first += batch.past[:, 0, 0, 0, 0].int().tolist()
    assert sizes == [4, 4, 4]
    assert index == list(range(len(windows)))
    assert first == windows.starts.tolist() == [*range(7), *range(11, 16)]


def test_too_short_a_split_says_what_would_do():
    with pytest.raises(
        S2KDError,
        match=r"val split is too short for one window of 4 past and 3 future frames "
        r"\(it needs 7 in a row, the longest stretch has 6\)",
    ):
        WindowDataset(numbered(30, SPLITS), "val", past=4, lead=3)
    with pytest.raises(S2KDError, match=r"no split called 'tset' \(there are train, val, test\)"):
        WindowDataset(numbered(30, SPLITS), "tset", past=1, lead=1)


def test_a_narrator_is_shown_the_input_frames_and_nothing_later(noise):
    data = numbered(30, SPLITS, frames=noise.copy())
    windows = WindowDataset(data, "train", past=3, lead=2)
    shown = windows.past_of(6, KNOWN)  # starts at frame 12
    np.testing.assert_array_equal(shown.frames, noise[12:15])
    before = shown.digest
    data.frames[15:] = 99.0
    data.frames[:12] = -99.0
    assert windows.past_of(6, KNOWN).digest == before
    data.frames[14, 0, 0, 0] += 1.0
    assert windows.past_of(6, KNOWN).digest != before
    # what a narrator holds is a copy: it cannot write into the data
    shown.frames[:] = 0.0
    assert data.frames[13].any()


@pytest.mark.parametrize(
    ("latitude", "season"),
    [(None, None), ((60.0, 30.0), "summer"), ((-30.0, -60.0), "winter"), ((30.0, -30.0), None)],
)
def test_a_season_is_a_fact_of_one_hemisphere(latitude, season):
    windows = WindowDataset(numbered(30, SPLITS, latitude=latitude), "train", past=3, lead=2)
    assert windows.past_of(0, KNOWN).season == season


def test_time_of_day_and_context_are_those_of_the_last_input_frame():
    context = tuple((f"frame {i}",) for i in range(30))
    data = numbered(30, SPLITS, local_time=True, context=context)
    windows = WindowDataset(data, "train", past=6, lead=1)
    # window 1 holds frames 1 to 6: its last input frame is at 6 o'clock, its first at 1 o'clock
    assert windows.past_of(1, KNOWN).part_of_day == "morning"
    assert windows.past_of(0, KNOWN).part_of_day == "night"
    assert windows.past_of(1, KNOWN).context == ("frame 6",)
    blind = WindowDataset(numbered(30, SPLITS), "train", past=6, lead=1).past_of(1, KNOWN)
    assert blind.part_of_day is None, "hours in UTC are no part of the day on the spot"
    assert blind.context == ()
