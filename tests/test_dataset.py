import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import SPLITS, Dataset, Frames, StoredFrames, Stretch
from s2kd.data.splits import chronological

GRID = GridSpec(channels=("a", "b"), units=("1", "K"), height=2, width=3, step_seconds=60.0)
NOISE = np.random.default_rng(0).standard_normal((12, 2, 2, 3)).astype(np.float32)


def stretches(*bounds):
    return tuple(Stretch(first=first, stop=stop) for first, stop in bounds)


def dataset(frames=NOISE, **changes):
    plain = {
        "name": "noise",
        "domain": "generic",
        "grid": GRID,
        "times": np.arange(frames.shape[0]).astype("datetime64[m]").astype("datetime64[ns]"),
        "splits": {
            "train": stretches((0, 4)),
            "val": stretches((4, 8)),
            "test": stretches((8, 12)),
        },
    }
    return Dataset(frames=frames, **{**plain, **changes})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "noise.npy"
    np.save(path, NOISE)
    return StoredFrames(path)


@given(first=st.integers(-20, 20), stop=st.integers(-20, 20))
def test_stored_frames_slice_like_the_array(file, first, stop):
    np.testing.assert_array_equal(file[first:stop], NOISE[first:stop])


def test_stored_frames_are_frames(file):
    assert isinstance(file, Frames)
    assert file.shape == NOISE.shape
    np.testing.assert_array_equal(file[:], NOISE)
    np.testing.assert_array_equal(file[5:], NOISE[5:])
    with pytest.raises(S2KDError, match="unbroken slices, got step 2"):
        file[::2]


@pytest.mark.parametrize(
    "content",
    [NOISE.astype(np.float64), NOISE[0], NOISE.astype(">f4"), np.asfortranarray(NOISE)],
    ids=["float64", "three axes", "big-endian", "column-major"],
)
def test_a_file_of_other_things_is_refused(tmp_path, content):
    np.save(tmp_path / "other.npy", content)
    with pytest.raises(S2KDError, match=r"other\.npy: .*wants four axes"):
        StoredFrames(tmp_path / "other.npy")


@pytest.mark.parametrize("keep", [0, 50, 200])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "torn.npy"
    np.save(path, NOISE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(S2KDError, match=r"torn\.npy: truncated"):
        StoredFrames(path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ((0, 5),), "val": ((4, 8),), "test": ((8, 12),)},
         "'train' and 'val' share frames 4 to 4"),
        ({"train": ((0, 4),), "val": ((9, 12),), "test": ((4, 10),)},
         "'test' and 'val' share frames 9 to 9"),
        ({"train": ((0, 12),), "val": ((3, 4),), "test": ((5, 6),)}, "share frames"),
        ({"train": ((0, 4), (2, 6)), "val": ((6, 8),), "test": ((8, 12),)}, "share frames"),
        ({"train": ((0, 4),), "val": ((4, 8),), "test": ((8, 10),), "test_far": ((9, 12),)},
         "'test' and 'test_far' share frames 9 to 9"),
        ({"train": ((0, 4),), "val": ((4, 8),), "test": ((8, 13),)},
         "'test' .*8 to 13.* 12 frames"),
        ({"train": ((-2, 4),), "val": ((4, 8),), "test": ((8, 12),)}, "'train' .*-2 to 4"),
        ({"train": ((0, 4),), "val": ((4, 8),)}, "no split called 'test'"),
    ],
)  # fmt: skip
def test_splits_that_share_or_lack_frames_are_refused(splits, message):
    with pytest.raises(S2KDError, match=message):
        dataset(splits={name: stretches(*bounds) for name, bounds in splits.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": NOISE[:, :1]}, r"frames have shape \(12, 1, 2, 3\), the grid wants \(time, 2"),
        ({"times": np.arange(11).astype("datetime64[ns]")}, "12 frames but 11 times"),
    ],
)
def test_frames_and_their_description_must_agree(changes, message):
    with pytest.raises(S2KDError, match=message):
        dataset(**changes)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    train=st.floats(0.1, 0.8),
    val=st.floats(0.05, 0.2),
    gap=st.integers(0, 12),
)
def test_splits_by_time_are_apart_and_in_order(lengths, train, val, gap):
    stops = np.cumsum(lengths)
    runs = tuple(
        Stretch(first=int(stop) - length, stop=int(stop), name=f"run {i}")
        for i, (stop, length) in enumerate(zip(stops, lengths, strict=True))
    )
    splits = chronological(runs, fractions=(train, val, 1 - train - val), gap=gap)
    assert set(splits) == set(SPLITS)
    for run in runs:
        parts = [s for split in SPLITS for s in splits[split] if s.name == run.name]
        for part in parts:
            assert run.first <= part.first < part.stop <= run.stop
        for earlier, later in itertools.pairwise(parts):
            assert later.first - earlier.stop >= gap, "splits must be a gap apart"
        # nothing but the two gaps is thrown away
        frames = sum(part.stop - part.first for part in parts)
        assert frames >= run.stop - run.first - 2 * gap


def test_splits_by_time_by_hand():
    splits = chronological(stretches((100, 200)), fractions=(0.6, 0.2, 0.2), gap=3)
    assert {k: [(s.first, s.stop) for s in v] for k, v in splits.items()} == {
        "train": [(100, 160)],
        "val": [(163, 180)],
        "test": [(183, 200)],
    }


def test_fractions_below_one_leave_out_the_end():
    splits = chronological(stretches((100, 200)), fractions=(0.5, 0.1, 0.1), gap=2)
    assert {k: [(s.first, s.stop) for s in v] for k, v in splits.items()} == {
        "train": [(100, 150)],
        "val": [(152, 160)],
        "test": [(162, 170)],
    }


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.2), (0.75, 0.1, 0.15), (0.1, 0.2, 0.7)])
@pytest.mark.parametrize("length", [7, 10_001, 1_753_152])
def test_fractions_of_one_reach_the_last_frame(fractions, length):
    """Their sum in floating point may lie on either side of 1."""
    splits = chronological(stretches((0, length)), fractions=fractions, gap=0)
    assert splits["test"][-1].stop == length


def test_a_fingerprint_names_frames_grid_and_splits(file):
    fingerprint = dataset().fingerprint
    assert dataset(file).fingerprint == fingerprint, "the same frames on disk are the same data"
    noise = NOISE.copy()
    noise[7, 1, 0, 2] += 1e-3
    splits = {**dataset().splits, "train": stretches((0, 3))}
    changed = [
        dataset(noise).fingerprint,
        dataset(splits=splits).fingerprint,
        dataset(grid=replace(GRID, units=("1", "C"))).fingerprint,
    ]
    assert fingerprint not in changed
    assert len(set(changed)) == 3
