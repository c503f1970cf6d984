"""`s2kd data prepare`: the same dataset on disk, whatever interrupts it."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import cftime
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from s2kd.cli import app
from s2kd.core.recipe import Part
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import _arrays, datasets
from s2kd.data import prepare as preparing
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.prepare import prepare, write
from s2kd.data.prepared import PreparedFrames
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset

MASK = tuple(tuple((row + column) % 3 != 0 for column in range(5)) for row in range(4))


def world(count=60, *, seed=0, **changed):
    """Two channels of unlike size over a masked grid, with words, names and a gap in time."""
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((count, 2, 4, 5)).astype(np.float32)
    frames[:, 0] = 55_000 + 300 * frames[:, 0]
    frames[..., ~np.array(MASK)] = 1e9
    hours = np.arange(count) + 5 * (np.arange(count) >= 20)
    held = {
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
    return Dataset(**(held | changed))


def written(dataset, out, dtype="float32"):
    """Through the same steps as `prepare`, from a dataset in hand."""
    facts = write(dataset, out, dtype=dtype, key="key")
    preparing._finish(out, facts)
    return facts


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("blocks", [1, 7, 1000])
def test_float32_is_the_same_dataset(tmp_path, monkeypatch, memory_gb, blocks):
    monkeypatch.setattr(preparing, "BLOCK_BYTES", blocks * 2 * 4 * 5 * 4)
    source = world()
    facts = written(source, tmp_path / "out")
    read = datasets.build("prepared", path=tmp_path / "out", memory_gb=memory_gb)
    assert isinstance(read.frames, np.ndarray) == (memory_gb > 0)
    np.testing.assert_array_equal(read.frames[0:60], source.frames)
    np.testing.assert_array_equal(read.times, source.times)
    for what in ("name", "domain", "grid", "splits", "local_time", "context", "attributes",
                 "source", "notices", "window"):  # fmt: skip
        assert getattr(read, what) == getattr(source, what), what
    assert read.fingerprint == source.fingerprint == facts["fingerprint"]
    assert facts["source_fingerprint"] == source.fingerprint
    assert statistics(read, lead=3) == statistics(source, lead=3)
    for split in source.splits:
        one, other = (WindowDataset(d, split, past=3, lead=2) for d in (source, read))
        window, same = (w.gather(torch.arange(len(w))) for w in (one, other))
        assert torch.equal(window.past, same.past)
        assert torch.equal(window.future, same.future)
    assert not (tmp_path / "out" / "unfinished").exists()


def test_the_hash_in_the_folder_is_that_of_the_frames(tmp_path):
    """A fingerprint that is not read again must be the one that reading would give."""
    for dtype in ("float32", "int16"):
        written(world(), tmp_path / dtype, dtype)
        read = datasets.build("prepared", path=tmp_path / dtype, memory_gb=0)
        assert isinstance(read.frames, PreparedFrames)
        assert read.fingerprint == replace(read, frames=read.frames[0:60]).fingerprint


def test_a_batch_is_announced_before_it_is_read(tmp_path, monkeypatch):
    """The system is told of every window's bytes: those and no others are then read."""
    announced, reads = [], []
    monkeypatch.setattr(_arrays, "will_need", lambda file, *where: announced.append(where))
    written(world(), tmp_path / "out", "int16")
    frames = datasets.build("prepared", path=tmp_path / "out", memory_gb=0)
    real = PreparedFrames.stored
    monkeypatch.setattr(
        PreparedFrames, "stored", lambda self, *where: reads.append(where) or real(self, *where)
    )
    windows = WindowDataset(frames, "train", past=3, lead=2)
    windows.gather(torch.tensor([2, 9, 4]))
    begin = (tmp_path / "out" / "frames.npy").stat().st_size - 60 * 80
    assert reads == [(2, 7), (9, 14), (4, 9)]
    assert announced == [(begin + 80 * a, 80 * (b - a)) for a, b in reads]


def test_int16_is_within_half_a_code(tmp_path):
    source = world()
    exists = np.array(MASK)
    facts = written(source, tmp_path / "out", "int16")
    read = datasets.build("prepared", path=tmp_path / "out", memory_gb=0)
    chosen = source.frames[..., exists].astype(np.float64)
    span = chosen.max((0, 2)) - chosen.min((0, 2))
    apart = np.abs(read.frames[0:60][..., exists] - chosen).max((0, 2))
    half = span / 65534 / 2
    float32 = np.abs(chosen).max((0, 2)) * 2.0**-23
    assert (apart <= half + float32).all()
    assert (apart >= 0.5 * half).all()  # it is rounded, and not finer than said
    np.testing.assert_allclose(facts["frames"]["largest_error"], apart, rtol=1e-3, atol=1e-6)
    assert np.isfinite(read.frames[0:60]).all()
    assert read.fingerprint != source.fingerprint
    assert facts["source_fingerprint"] == source.fingerprint
    assert np.load(tmp_path / "out" / "frames.npy", mmap_mode="r").dtype == np.int16


def test_a_channel_that_never_changes_survives_int16(tmp_path):
    frames = world().frames.copy()
    frames[:, 1] = 3.25
    written(world(frames=frames), tmp_path / "out", "int16")
    read = datasets.build("prepared", path=tmp_path / "out")
    assert (read.frames[:, 1][..., np.array(MASK)] == 3.25).all()


def test_other_calendars_and_window_shapes_are_kept(tmp_path):
    times = np.array([cftime.DatetimeNoLeap(2001, 2, 28, h % 24) for h in range(20)] * 3)
    source = world(times=times, window=(4, 4), context=None, local_time=False)
    written(source, tmp_path / "out")
    read = datasets.build("prepared", path=tmp_path / "out")
    assert (read.times == times).all()
    assert read.times[0].calendar == "noleap"
    assert read.window == (4, 4)
    assert read.context is None


def test_values_that_are_not_finite_are_refused(tmp_path):
    frames = world().frames.copy()
    frames[33, 1, 0, 1] = np.nan
    for dtype in ("float32", "int16"):
        with pytest.raises(
            S2KDError, match="'humidity' is not finite in frame 33, row 0, column 1"
        ):
            written(world(frames=frames), tmp_path / dtype, dtype)
        with pytest.raises(S2KDError, match="is not finished; give the same"):
            datasets.build("prepared", path=tmp_path / dtype)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_what_was_killed_goes_on_from_where_it_was(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(preparing, "BLOCK_BYTES", 5 * 2 * 4 * 5 * 4)
    source, read = world(), []

    class Stops:
        """Frames that end the program at number `at`."""

        shape, at = source.frames.shape, 33

        def __getitem__(self, frames):
            read.append(frames.start)
            if read.count(frames.start) > (dtype == "int16") and frames.start >= Stops.at:
                raise KeyboardInterrupt
            return source.frames[frames]

    with pytest.raises(KeyboardInterrupt):
        write(replace(source, frames=Stops()), tmp_path / "out", dtype=dtype, key="key")
    journal = tmp_path / "out" / "unfinished" / "blocks.txt"
    assert len(journal.read_text().split()) == 7
    journal.write_text(journal.read_text() + "torn")  # as a line that was being written
    read.clear()
    Stops.at = 1000
    monkeypatch.setattr(
        Stops, "__getitem__", lambda self, f: (read.append(f.start), source.frames[f])[1]
    )
    facts = write(replace(source, frames=Stops()), tmp_path / "out", dtype=dtype, key="key")
    preparing._finish(tmp_path / "out", facts)
    if dtype == "float32":
        assert read == [0, 30, 35, 40, 45, 50, 55]  # the first and last of what was found, the rest
    again = tmp_path / "again"
    whole = written(source, again, dtype)
    assert {k: v for k, v in facts["frames"].items() if k != "largest_error"} == {
        k: v for k, v in whole["frames"].items() if k != "largest_error"
    }
    assert (again / "frames.npy").read_bytes() == (tmp_path / "out/frames.npy").read_bytes()


def test_what_was_found_is_not_trusted(tmp_path, monkeypatch):
    """Blocks that changed on disk, or a source that did, are written again."""
    monkeypatch.setattr(preparing, "BLOCK_BYTES", 5 * 2 * 4 * 5 * 4)
    facts = write(world(), tmp_path / "out", dtype="float32", key="key")
    path = tmp_path / "out" / "unfinished" / "frames.npy"
    content = bytearray(path.read_bytes())
    content[128 + 11 * 160 + 3] ^= 0xFF
    path.write_bytes(content)
    assert write(world(), tmp_path / "out", dtype="float32", key="key")["frames"] == facts["frames"]
    other = world(seed=1)
    changed = write(other, tmp_path / "out", dtype="float32", key="key")
    assert changed["fingerprint"] == other.fingerprint
    elsewhere = write(world(), tmp_path / "out", dtype="int16", key="other")
    assert elsewhere["frames"]["dtype"] == "int16"


def test_a_folder_that_changed_is_refused(tmp_path):
    written(world(), tmp_path / "out")
    path = tmp_path / "out" / "frames.npy"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-40])
    with pytest.raises(S2KDError, match=r"frames.npy: cut short, 40 bytes"):
        datasets.build("prepared", path=tmp_path / "out")
    content[500] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(S2KDError, match=r"frames.npy: frames 0 to 59 are not those that were"):
        datasets.build("prepared", path=tmp_path / "out")
    facts = json.loads((tmp_path / "out/prepared.json").read_text())
    (tmp_path / "out/prepared.json").write_text(json.dumps(facts | {"layout": 0}))
    with pytest.raises(S2KDError, match="not of layout 1, so another version wrote it"):
        datasets.build("prepared", path=tmp_path / "out")
    with pytest.raises(S2KDError, match=r"holds no prepared.json"):
        datasets.build("prepared", path=tmp_path)


def test_other_things_in_the_folder_are_left_alone(tmp_path):
    part = Part(name="blobs", params={"size": 8, "runs": 5, "length": 16})
    first = prepare(part, tmp_path / "out")
    assert prepare(part, tmp_path / "out") == first
    with pytest.raises(S2KDError, match=r"holds other prepared data .* choose another --out"):
        prepare(part, tmp_path / "out", dtype="int16")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(S2KDError, match="is not empty and holds no prepared data"):
        prepare(part, tmp_path / "mine")
    with pytest.raises(S2KDError, match="dtype='float16' must be one of float32, int16"):
        prepare(part, tmp_path / "new", dtype="float16")
    read = datasets.build("prepared", path=tmp_path / "out")
    assert read.fingerprint == datasets.build("blobs", **part.params).fingerprint


def test_what_the_part_copied_becomes_the_frames(tmp_path, monkeypatch):
    """A NetCDF series above memory_gb is streamed to disk on its way: once is enough."""
    xr = pytest.importorskip("xarray")
    values = np.random.default_rng(0).normal(280, 9, (300, 8, 8)).astype("f4")
    times = np.datetime64("2001-01-01", "ns") + np.arange(300) * np.timedelta64(6, "h")
    xr.Dataset(
        {"air": (("time", "lat", "lon"), values, {"units": "K"})},
        {"time": times, "lat": np.arange(8.0)[::-1], "lon": np.arange(8.0)},
    ).to_netcdf(tmp_path / "air.nc", engine="h5netcdf")
    params = {"path": str(tmp_path / "air.nc"), "memory_gb": 0.0}
    facts = prepare(Part(name="netcdf", params=params), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "frames.npy", "prepared.json", "times.npy",
    ]  # fmt: skip
    assert not (tmp_path / ".s2kd-cache").exists()
    read = datasets.build("prepared", path=tmp_path / "out", memory_gb=0)
    np.testing.assert_array_equal(read.frames[0:300][:, 0], values)
    assert read.attributes["air"]["units"] == "K"
    assert read.fingerprint == facts["fingerprint"]
    assert read.fingerprint == datasets.build("netcdf", path=params["path"]).fingerprint


def test_the_verb_makes_a_recipe_that_runs(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "flows.npz",
        flow=rng.integers(0, 50, (10 * 48, 2, 8, 8)),
        time=(np.datetime64("2015-03-02", "s").astype(int) + 1800 * np.arange(480)),
    )
    out = tmp_path / "fast"
    command = [
        "data",
        "prepare",
        str(tmp_path / "flows.npz"),
        "--out",
        str(out),
        "--dtype",
        "int16",
    ]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "480 × 2 × 8 × 8 int16" in told.stdout
    assert "Largest rounding: inflow 0.000" in told.stdout
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["dataset"] == {"name": "prepared", "params": {"path": str(out)}}
    assert datasets.build("prepared", path=out).context[0] == ("weekday",)
    assert CliRunner().invoke(app, command).exit_code == 0


PART = Part(name="blobs", params={"size": 8, "runs": 5, "length": 16})


def slowly(out):
    """In a process of its own: stops for good once a dozen blocks are noted."""
    preparing.BLOCK_BYTES = 4 * 8 * 8 * 4
    real, noted = preparing._Writer._note, []

    def note(self, *given):
        real(self, *given)
        noted.append(given)
        if len(noted) == 12:
            (out.parent / "reached").touch()
            time.sleep(60)

    preparing._Writer._note = note
    prepare(PART, out)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_leaves_what_the_next_one_finishes(tmp_path, monkeypatch):
    child = multiprocessing.get_context("fork").Process(target=slowly, args=(tmp_path / "out",))
    child.start()
    while not (tmp_path / "reached").exists():
        assert child.is_alive()
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / "out" / "prepared.json").exists()
    assert len((tmp_path / "out/unfinished/blocks.txt").read_text().split()) == 12
    monkeypatch.setattr(preparing, "BLOCK_BYTES", 4 * 8 * 8 * 4)
    told = []
    facts = prepare(PART, tmp_path / "out", report=lambda *given: told.append(given))
    assert [word for _, _, word in told] == ["found"] * 12 + [""] * 8
    assert facts["fingerprint"] == datasets.build("blobs", **PART.params).fingerprint
