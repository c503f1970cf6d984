"""Files with known faults, and what is said of them."""

import io
import json
import os

import h5py
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from s2kd.core.recipe import Keep, Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import describe as looking
from s2kd.data import load, readers
from s2kd.data.describe import describe, detect_layout, render
from s2kd.data.windows import WindowDataset

REAL = os.environ.get("S2KD_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="S2KD_REAL_DATA is not set")
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(300) * np.timedelta64(3600, "s")


def made(**fields):
    rng = np.random.default_rng(0)
    fields = fields or {"t": rng.normal(280, 3, (300, 3, 4)).astype(np.float32)}
    axes = ("time", "lat", "lon")
    return xr.Dataset(
        {
            name: (axes, values, {"units": "K", "long_name": f"field {name}"})
            for name, values in fields.items()
        },
        {
            "time": TIMES,
            "lat": ("lat", [-30.0, 0.0, 30.0], {"units": "degrees_north"}),
            "lon": ("lon", [0.0, 90.0, 180.0, 270.0], {"units": "degrees_east"}),
        },
    )


def save(data, path, **options):
    data.to_netcdf(path, engine="h5netcdf", **options)
    return str(path)


def spoken(description):
    console = Console(file=io.StringIO(), width=300)
    console.print(render(description))
    return console.file.getvalue()


def built(description):
    """The dataset that the suggested settings read."""
    part = Part(**description.dataset)
    return load(part, Split(**description.split), Keep(**description.keep))


def test_a_sound_file(tmp_path):
    data = made()
    path = save(data, tmp_path / "a.nc")
    found = describe(path)
    (variable,) = found.variables
    assert (variable.name, variable.units, variable.long_name) == ("t", "K", "field t")
    assert variable.dims == ("time", "lat", "lon")
    assert variable.minimum == float(data["t"].min())
    assert variable.maximum == float(data["t"].max())
    assert variable.mean == pytest.approx(float(data["t"].astype(float).mean()), abs=1e-9)
    assert (found.frames, found.step_seconds, found.calendar) == (300, 3600, "standard")
    assert (found.first_time, found.last_time) == ("2001-01-01T00:00:00", "2001-01-13T11:00:00")
    assert (found.height, found.width, found.wraps) == (3, 4, True)
    assert found.latitude == (30, -30)
    assert found.problems == ()
    assert found.chosen == ("t",)
    assert found.kind == "NetCDF-4"


def test_the_settings_it_gives_make_a_dataset(tmp_path):
    found = describe(save(made(), tmp_path / "a.nc"))
    # 10 % of 300 hours less the gap of 2 × 6 leaves 18 frames, 7 windows of 12; 8 + 8 would not fit
    assert (found.past, found.lead) == (6, 6)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["dataset"]["name"] == "cf"
    dataset = built(found)
    for split in ("train", "val", "test"):
        assert len(WindowDataset(dataset, split, past=found.past, lead=found.lead)) >= 2


def test_what_is_wrong_with_the_values(tmp_path):
    rng = np.random.default_rng(0)
    holed, sea, flat, void = (rng.normal(size=(300, 3, 4)).astype(np.float32) for _ in range(4))
    holed[5, 1, 1] = holed[9, 2, 2] = np.nan
    sea[:, 0, 1] = np.nan
    flat[:] = 7
    void[:] = np.nan
    data = made(holed=holed, sea=sea, flat=flat, void=void)
    found = describe(save(data, tmp_path / "a.nc"))
    assert found.problems == (
        "'holed' has 2 missing values",
        "'sea' has 300 missing values, 1 cells at every time",
        "'flat' is 7 at every time and place",
        "'void' is missing at every time and place",
    )
    assert found.chosen == ("holed", "sea")
    assert found.keep == {"missing": "fill"}
    assert built(found).grid.exists.sum() == 11
    only = describe(save(data[["sea"]], tmp_path / "b.nc"))
    assert only.keep == {"missing": "mask"}
    json.dumps(found.to_dict(), allow_nan=False)
    assert "Problem: 'void' is missing" in spoken(found)


def test_values_that_are_no_values(tmp_path):
    """Marks that nobody declared, spikes, and what only looks like either."""
    rng = np.random.default_rng(0)
    land, huge, spike, tail, near = (
        rng.normal(280, 3, (300, 3, 4)).astype(np.float32) for _ in range(5)
    )
    land[:, 0, 1] = -9999
    huge[5:7] = 9.969209968386869e36
    spike[8, 1, 1] = 5e4
    tail[:] = rng.exponential(1, tail.shape) ** 2
    near[:] = rng.choice([9997, 9998, 9999], near.shape)
    data = made(land=land, huge=huge, spike=spike, tail=tail, near=near)
    found = describe(save(data, tmp_path / "a.nc")).problems
    assert len(found) == 5, found
    assert found[0].startswith("'land' is -9999 at 300 times and places, 1 cells at every time")
    assert found[1] == "'land' has 300 missing values, 1 cells at every time"
    assert found[2].startswith("'huge' is 9.96921e+36 at 24 times and places")
    assert found[3] == "'huge' has 24 missing values"
    assert found[4].startswith("'spike' reaches 50000, far from nearly all of its values (27")


def test_gaps_in_time(tmp_path):
    keep = [*range(100), *range(103, 200), *range(201, 300)]
    found = describe(save(made().isel(time=keep), tmp_path / "a.nc"))
    (problem,) = found.problems
    assert problem == (
        "4 times are missing in 2 gaps (2001-01-05T03:00:00 to 2001-01-05T07:00:00, "
        "2001-01-09T07:00:00 to 2001-01-09T09:00:00); no window bridges them"
    )
    assert found.dataset is not None


def test_times_that_rule_a_recipe_out(tmp_path):
    order = [*range(100), 99, *range(100, 150), 152, 151, *range(153, 300)]
    found = describe(save(made().isel(time=order), tmp_path / "a.nc"))
    order = "; sort the file by time and drop repeated times"
    assert found.problems[:2] == (
        "1 times repeat the one before, the first is 2001-01-05T03:00:00" + order,
        "1 times lie before the one that precedes them, the first is 2001-01-07T07:00:00" + order,
    )
    assert len(found.problems) == 3, "each is said once, and the one gap"
    assert found.dataset is None
    assert (found.past, found.lead) == (0, 0)
    short = describe(save(made().isel(time=slice(0, 20)), tmp_path / "b.nc"))
    assert short.dataset is None
    assert "20 frames are too few" in short.problems[0]


def test_levels(tmp_path):
    rng = np.random.default_rng(0)
    dims = ("time", "level", "lat", "lon")
    fields = {
        n: (dims, rng.normal(size=(300, 3, 3, 4)).astype(np.float32))
        for n in ("z", "t", "humidity")
    }
    data = made().drop_vars("t").assign(fields).assign_coords(level=[500, 700, 850])
    found = describe(save(data, tmp_path / "a.nc"))
    assert found.chosen == ("z@500", "t@850")
    assert found.variables[0].levels == (500, 700, 850)
    assert found.variables[0].maximum == float(data["z"].max())
    assert built(found).grid.channels == found.chosen
    found = describe(save(data[["humidity"]], tmp_path / "b.nc"))
    assert found.chosen == ("humidity@700",)
    assert "3 levels 500…850" in spoken(found)


def test_a_large_store_is_sampled_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "SCANNED_BYTES", 4 * 12 * 60)
    ramp = np.broadcast_to(np.arange(300.0, dtype=np.float32)[:, None, None], (300, 3, 4))
    path = tmp_path / "a.zarr"
    made(t=ramp).to_zarr(path, zarr_format=2, encoding={"t": {"chunks": (10, 3, 4)}})
    found = describe(path)
    (variable,) = found.variables
    assert variable.frames_read == 60
    assert (variable.minimum, variable.maximum) == (0, 299)
    assert variable.mean == pytest.approx(149.5, abs=8)
    assert found.scanned == "an even sample of the frames"
    assert "an even sample" in spoken(found)


def test_chunks_that_are_slow_to_read_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "BLOCK_BYTES", 4 * 12 * 5)
    path = tmp_path / "a.zarr"
    made().to_zarr(path, zarr_format=2, encoding={"t": {"chunks": (21, 2, 2)}})
    (problem,) = describe(path).problems
    assert problem.startswith("'t' is stored 21 frames to a chunk")
    assert problem.endswith("with at most 20 to a chunk")
    made().to_zarr(path, zarr_format=2, mode="w", encoding={"t": {"chunks": (20, 2, 2)}})
    assert describe(path).problems == ()


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_a_store_lacks_are_told(tmp_path, version):
    path = tmp_path / "a.zarr"
    chunks = {"t": {"chunks": (50, 3, 4)}}
    made().to_zarr(path, zarr_format=version, encoding=chunks, consolidated=False)
    (path / "t" / {2: "2.0.0", 3: "c/2/0/0"}[version]).unlink()
    assert any("'t' lacks 1 of 6 stored chunks" in problem for problem in describe(path).problems)


def test_layouts_of_other_readers(tmp_path):
    with h5py.File(tmp_path / "BJ16_M32x32_T30_InOut.h5", "w") as file:
        file["data"], file["date"] = np.zeros((3, 2, 4, 4)), np.array([b"2015110101"] * 3)
    np.savez(tmp_path / "dataset.npz", X_train=np.zeros((1, 4, 2, 4, 4)), Y_train=np.zeros(1))
    np.savez(tmp_path / "fire.npz", vol_u8=np.zeros((2, 1, 3, 3, 3), "u1"), time=np.zeros(2))
    np.save(tmp_path / "a1_fds.npy", np.zeros((5, 3, 4, 4), np.float16))
    np.savez(tmp_path / "any.npz", speed=np.zeros((40, 4, 4)))
    (tmp_path / "runs" / "T").mkdir(parents=True)
    (tmp_path / "runs" / "environments.json").write_text("{}")
    for name, reader, recipe in (
        ("BJ16_M32x32_T30_InOut.h5", "taxibj", "taxibj"),
        ("dataset.npz", "taxibj", "taxibj"),
        ("fire.npz", "fds", "fds_pool"),
        ("a1_fds.npy", "prometheus", "prometheus"),
        ("runs", "fds", "fds_runs"),
        ("runs/T", "fds", "fds_runs"),
        ("any.npz", "arrays", ""),
    ):
        layout = detect_layout(tmp_path / name)
        assert (layout.reader, layout.recipe) == (reader, recipe), name
        readers.check(layout.reader, layout.settings)
        assert describe(tmp_path / name).problems, "nothing of these can be trained on"
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(S2KDError, match=r"other\.npz: holds no numbers over time"):
        describe(tmp_path / "other.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "fire.npz").read_bytes()[:100])
    with pytest.raises(S2KDError, match=r"torn\.npz: not readable as \.npz"):
        describe(tmp_path / "torn.npz")


def test_what_is_no_gridded_file(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(S2KDError, match=r"notes\.txt: neither NetCDF, Zarr nor GRIB"):
        describe(tmp_path / "notes.txt")
    with pytest.raises(S2KDError, match="no such file"):
        describe(tmp_path / "absent.nc")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer"] = np.zeros((3, 3))
    with pytest.raises(S2KDError, match=r"weights\.h5: "):
        describe(tmp_path / "weights.h5")


@real
def test_ncep():
    found = describe(f"{REAL}/ncep_air_sig995_6h_2013_2014.nc")
    assert (found.frames, found.step_seconds) == (2920, 21600)
    assert found.latitude == (75, 15)
    assert found.longitude == (200, 330)
    assert not found.wraps
    assert found.problems == ()
    assert (found.variables[0].minimum, found.variables[0].units) == (221, "degK")
    assert (found.past, found.chosen) == (12, ("air",))


@real
def test_a_single_snapshot_is_described_but_has_no_recipe():
    found = describe(f"{REAL}/era5_tl31_19590102T00.nc")
    assert found.chosen == ("geopotential@500", "temperature@850")
    assert found.latitude[0] > found.latitude[1]
    assert found.wraps
    assert found.dataset is None
    assert "holds a single time" in found.problems[0]


@real
@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("taxi_sf_32x32_30min.npz", "taxibj"),
        ("SF08_M32x32_T30_InOut.h5", "taxibj"),
        ("fds_pool_fire_hfg_21x21x21.npz", "fds"),
        ("fds_runs", "fds"),
        ("fds_runs/P/b01.npy", "fds"),
    ],
)
def test_real_files_of_other_readers(name, reader):
    description = describe(f"{REAL}/{name}")
    assert description.dataset["name"] == reader
    assert built(description).splits["train"]
