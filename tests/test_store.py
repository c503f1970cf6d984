"""The frame store: the same dataset on disk, whatever interrupts its writing."""

import json
from dataclasses import replace

import cftime
import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from worlds import world

from s2kd.cli import app
from s2kd.core.files import sealed
from s2kd.core.recipe import Keep, Part
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import dataset as dataset_module
from s2kd.data import frames as blocks
from s2kd.data import prepare, read_record, store
from s2kd.data.dataset import Dataset, StoredFrames, Stretch
from s2kd.data.gaps import GapFilter
from s2kd.data.statistics import statistics
from s2kd.data.store import open_store, write_store
from s2kd.data.windows import WindowDataset

MASK = tuple(tuple((row + column) % 3 != 0 for column in range(5)) for row in range(4))
FRAME_BYTES = 2 * 4 * 5 * 4
PART = Part(name="blobs", params={"size": 8, "runs": 5, "length": 16})


def two_channels(count=60, *, seed=0, **changes):
    """Two channels of unlike size over a masked grid, with words, names and a gap in time."""
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((count, 2, 4, 5)).astype(np.float32)
    frames[:, 0] = 55_000 + 300 * frames[:, 0]
    frames[..., ~np.array(MASK)] = 1e9
    hours = np.arange(count) + 5 * (np.arange(count) >= 20)
    fields = {
        "name": "two",
        "domain": "weather",
        "grid": GridSpec(
            channels=("height", "humidity"), units=("m2 s-2", "1"), height=4, width=5,
            step_seconds=3600.0, latitude=(60.0, 50.0, 40.0, 30.0), mask=MASK,
        ),
        "frames": frames,
        "times": np.datetime64("2001-02-27", "ns") + hours * np.timedelta64(1, "h"),
        "splits": {
            "train": (Stretch(first=0, stop=20, name="a"), Stretch(first=20, stop=40, name="b")),
            "val": (Stretch(first=40, stop=50),),
            "test": (Stretch(first=50, stop=60),),
        },
        "context": tuple(("weekday", "rain") if i % 7 else ("weekend",) for i in range(count)),
        "local_time": True,
        "attributes": {"height": {"standard_name": "geopotential", "units": "m2 s-2"}},
        "source": "made up",
        "notices": ("left out nothing",),
        "window": None,
    }  # fmt: skip
    return Dataset(**(fields | changes))


def written(dataset, folder, dtype="float32", key="key"):
    gaps = GapFilter(dataset.name, dataset.grid, dataset.times)
    return write_store(dataset, gaps, folder, key=key, dtype=dtype)


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("frames", [1, 7, 1000])
def test_float32_is_the_same_dataset(tmp_path, monkeypatch, memory_gb, frames):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", frames * FRAME_BYTES)
    source = two_channels()
    facts = written(source, tmp_path / "out")
    stored = open_store(tmp_path / "out", memory_gb=memory_gb)
    assert isinstance(stored.frames, np.ndarray) == (memory_gb > 0)
    np.testing.assert_array_equal(stored.frames[0:60], source.frames)
    np.testing.assert_array_equal(stored.times, source.times)
    for field in ("name", "domain", "grid", "splits", "local_time", "context", "attributes",
                  "source", "notices", "window"):  # fmt: skip
        assert getattr(stored, field) == getattr(source, field), field
    assert stored.fingerprint == source.fingerprint == facts["fingerprint"]
    assert statistics(stored, lead=3) == statistics(source, lead=3)
    for split in source.splits:
        windows = [WindowDataset(d, split, past=3, lead=2) for d in (source, stored)]
        first, second = (w.gather(torch.arange(len(w))) for w in windows)
        assert torch.equal(first.past, second.past)
        assert torch.equal(first.future, second.future)
    assert not (tmp_path / "out" / "unfinished").exists()


def test_the_hash_in_the_folder_is_that_of_the_frames(tmp_path):
    """A fingerprint that is not read again must be the one that reading would give."""
    for dtype in ("float32", "int16"):
        written(two_channels(), tmp_path / dtype, dtype)
        stored = open_store(tmp_path / dtype, memory_gb=0.0)
        assert isinstance(stored.frames, StoredFrames)
        assert stored.fingerprint == replace(stored, frames=stored.frames[0:60]).fingerprint


def test_the_reader_of_a_store_gives_its_frames_and_splits(tmp_path):
    """By the record that `describe` and `forecast` take, in either type."""
    for dtype in ("float32", "int16"):
        written(two_channels(), tmp_path / dtype, dtype)
        stored = open_store(tmp_path / dtype)
        record = world("prepared", path=str(tmp_path / dtype))
        assert record.fingerprint == stored.fingerprint
        lazy = read_record(Part(name="prepared", params={"path": str(tmp_path / dtype)}))
        np.testing.assert_array_equal(lazy["humidity"].values, stored.frames[:, 1])
        assert list(lazy["split"].values[[0, 45, 55]]) == ["train", "val", "test"]


def test_a_batch_is_announced_before_it_is_read(tmp_path, monkeypatch):
    """The system is told of every window's bytes: those and no others are then read."""
    announced, reads = [], []
    monkeypatch.setattr(dataset_module, "will_need", lambda file, *place: announced.append(place))
    written(two_channels(), tmp_path / "out", "int16")
    dataset = open_store(tmp_path / "out", memory_gb=0.0)
    dataset.frames[0:1]  # its block is checked by reading all of it, once
    real = StoredFrames.stored
    monkeypatch.setattr(
        StoredFrames, "stored", lambda self, *place: reads.append(place) or real(self, *place)
    )
    WindowDataset(dataset, "train", past=3, lead=2).gather(torch.tensor([2, 9, 4]))
    begin = (tmp_path / "out" / "frames.npy").stat().st_size - 60 * 80
    assert reads == [(2, 7), (9, 14), (4, 9)]
    assert announced == [(begin + 80 * a, 80 * (b - a)) for a, b in reads]


def test_int16_is_within_half_a_code(tmp_path):
    source = two_channels()
    exists = np.array(MASK)
    facts = written(source, tmp_path / "out", "int16")
    stored = open_store(tmp_path / "out", memory_gb=0.0)
    values = source.frames[..., exists].astype(np.float64)
    span = values.max((0, 2)) - values.min((0, 2))
    error = np.abs(stored.frames[0:60][..., exists] - values).max((0, 2))
    half = span / 65534 / 2
    float32 = np.abs(values).max((0, 2)) * 2.0**-23
    assert (error <= half + float32).all()
    assert (error >= 0.5 * half).all()  # it is rounded, and not finer than said
    np.testing.assert_allclose(facts["frames"]["largest_error"], error, rtol=1e-3, atol=1e-6)
    assert np.isfinite(stored.frames[0:60]).all()
    assert stored.fingerprint != source.fingerprint
    assert np.load(tmp_path / "out" / "frames.npy", mmap_mode="r").dtype == np.int16


def test_a_channel_that_never_changes_survives_int16(tmp_path):
    frames = two_channels().frames.copy()
    frames[:, 1] = 3.25
    written(two_channels(frames=frames), tmp_path / "out", "int16")
    assert (open_store(tmp_path / "out").frames[:, 1][..., np.array(MASK)] == 3.25).all()


def test_other_calendars_and_window_shapes_are_stored(tmp_path):
    times = np.array([cftime.DatetimeNoLeap(2001, 2, 28, h % 24) for h in range(20)] * 3)
    source = two_channels(times=times, window=(4, 4), context=None, local_time=False)
    written(source, tmp_path / "out")
    stored = open_store(tmp_path / "out")
    assert (stored.times == times).all()
    assert stored.times[0].calendar == "noleap"
    assert stored.window == (4, 4)
    assert stored.context is None


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_an_interrupted_copy_resumes(tmp_path, monkeypatch, dtype):
    """To the same bytes, gaps included, reading only what is not there yet."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5 * FRAME_BYTES)
    frames = two_channels().frames.copy()
    frames[28:32, 0, 0, 1] = np.nan  # carried forward over the place of the interruption
    frames[3, 1, 2, 2] = np.nan
    source, reads = two_channels(frames=frames), []

    class Stops:
        """Frames that end the program at number `at`, when they are read for the last time."""

        shape, at = source.frames.shape, 33

        def __getitem__(self, span):
            reads.append(span.start)
            if reads.count(span.start) > (dtype == "int16") and span.start >= Stops.at:
                raise KeyboardInterrupt
            return source.frames[span]

    def gaps():
        return GapFilter("two", source.grid, source.times, missing="fill")

    interrupted = replace(source, frames=Stops())
    with pytest.raises(KeyboardInterrupt):
        write_store(interrupted, gaps(), tmp_path / "out", key="key", dtype=dtype)
    with pytest.raises(S2KDError, match="is not finished; give the same"):
        open_store(tmp_path / "out")
    reads.clear()
    Stops.at = 1000
    facts = write_store(interrupted, gaps(), tmp_path / "out", key="key", dtype=dtype)
    # the range of int16 codes is taken again
    assert reads[-7:] == [0, 30, 35, 40, 45, 50, 55]
    assert len(reads) == 7 + 12 * (dtype == "int16")
    complete = write_store(source, gaps(), tmp_path / "again", key="key", dtype=dtype)
    for name in ("content", "blocks", "scale", "offset"):
        assert facts["frames"][name] == complete["frames"][name]
    contents = [(tmp_path / f / "frames.npy").read_bytes() for f in ("again", "out")]
    assert contents[0] == contents[1]
    if dtype == "float32":
        stored = open_store(tmp_path / "out")
        assert (stored.frames[28:32, 0, 0, 1] == frames[27, 0, 0, 1]).all()


def test_an_interrupted_copy_of_another_source_starts_anew(tmp_path, monkeypatch):
    """Blocks that changed on disk, or a source that did, are written again."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5 * FRAME_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_counted", lambda times: 1 / 0)
        for folder in ("torn", "changed"):
            with pytest.raises(ZeroDivisionError):
                written(two_channels(), tmp_path / folder)
    path = tmp_path / "torn" / "unfinished" / "frames.npy"
    content = bytearray(path.read_bytes())
    content[128 + 11 * 160 + 3] ^= 0xFF
    path.write_bytes(content)
    assert written(two_channels(), tmp_path / "torn")["fingerprint"] == two_channels().fingerprint
    changed = two_channels(seed=1)
    assert written(changed, tmp_path / "changed")["fingerprint"] == changed.fingerprint


def test_a_folder_that_changed_is_refused(tmp_path):
    written(two_channels(), tmp_path / "out")
    path = tmp_path / "out" / "frames.npy"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-40])
    with pytest.raises(S2KDError, match=r"frames.npy: truncated or not a .npy of frames"):
        open_store(tmp_path / "out")
    content[500] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(S2KDError, match=r"frames.npy: block 0 \(entries 0 to 59\) is not what"):
        open_store(tmp_path / "out")
    facts = json.loads((tmp_path / "out/prepared.json").read_text())
    (tmp_path / "out/prepared.json").write_text(json.dumps(sealed(facts | {"layout": 0})))
    with pytest.raises(S2KDError, match="not of layout 1, so another version wrote it"):
        open_store(tmp_path / "out")
    with pytest.raises(S2KDError, match=r"holds no prepared.json"):
        open_store(tmp_path)


def test_prepare_leaves_other_contents_of_a_folder_alone(tmp_path):
    facts = prepare(PART, tmp_path / "out")
    assert prepare(PART, tmp_path / "out") == facts
    with pytest.raises(S2KDError, match=r"holds other prepared data .* choose another --out"):
        prepare(PART, tmp_path / "out", dtype="int16")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(S2KDError, match="is not empty and holds no prepared data"):
        prepare(PART, tmp_path / "mine")
    with pytest.raises(S2KDError, match="dtype='float16' must be one of float32, int16"):
        prepare(PART, tmp_path / "new", dtype="float16")
    assert open_store(tmp_path / "out").fingerprint == world("blobs", **PART.params).fingerprint


def test_frames_larger_than_memory_are_stored_once(tmp_path):
    """In one folder per source and settings, with the fingerprint of the frames in memory."""
    keep = Keep(memory_gb=0.0, cache=str(tmp_path))
    stored = world("blobs", keep=keep, **PART.params)
    assert isinstance(stored.frames, StoredFrames)
    assert stored.fingerprint == world("blobs", **PART.params).fingerprint
    folder = stored.frames.path.parent
    changed = folder.stat().st_mtime_ns
    assert world("blobs", keep=keep, **PART.params).frames.path.parent == folder
    assert folder.stat().st_mtime_ns == changed
    world("blobs", keep=keep, **PART.params, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_verb_makes_a_recipe_that_runs(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "flows.npz",
        flow=rng.integers(0, 50, (10 * 48, 2, 8, 8)),
        time=(np.datetime64("2015-03-02", "s").astype(int) + 1800 * np.arange(480)),
    )
    out = tmp_path / "fast"
    command = ["data", "prepare", str(tmp_path / "flows.npz"), "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--dtype", "int16"])
    assert result.exit_code == 0, result.output
    assert "480 × 2 × 8 × 8 int16" in result.stdout
    assert "Largest rounding: inflow 0.000" in result.stdout
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["dataset"] == {"name": "prepared", "params": {"path": str(out)}}
    assert open_store(out).context[0] == ("weekday",)
