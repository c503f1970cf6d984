"""The built-in recipes on the real files they are made for, where these are at hand."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import road
import xarray as xr
from msgspec import to_builtins

from s2kd.cli import main
from s2kd.core.recipe import Part
from s2kd.data import load
from s2kd.data.fetch import cut_ncep
from s2kd.pipeline import recipes

FOLDER = os.environ.get("S2KD_REAL_DATA", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="S2KD_REAL_DATA does not say where the real files are"),
]
QUICK = {
    "teacher_training.epochs": 1,
    "student_training.epochs": 1,
    "text.name": "hashed",
    "teacher.backbone": to_builtins(road.TEACHER.backbone),
    "teacher.width": 16,
    "teacher.heads": 2,
    "students": [{"name": "unet", "params": {"width": 4}}],
    "methods": [
        {"name": "baseline"},
        {
            "name": "s2kd",
            "teacher": "text",
            "terms": [{"loss": {"name": "semantic"}}, {"loss": {"name": "spectral"}}],
        },
    ],
}
STRIDES = {"ncep_air": (48, 24), "taxi_sf": (32, 24), "fds_pool": (120, 60), "fds_runs": (60, 80)}


@pytest.mark.parametrize("name", STRIDES)
def test_a_built_in_recipe_goes_the_whole_road(name, tmp_path, capsys):
    stride, test_stride = STRIDES[name]
    changes = {**QUICK, "stride": stride, "test_stride": test_stride}
    settings = [a for key, value in changes.items() for a in ("--set", f"{key}={_text(value)}")]
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        main(["run", name, "--data", FOLDER, "--out", str(out), "--json", *settings])
    said = capsys.readouterr()
    assert stopped.value.code in (0, None), said.err
    assert json.loads(said.out)
    rows = json.loads((out / "scores.json").read_text())
    methods = {row["method"] for row in rows if row["split"] == "test"}
    assert methods >= {"persistence", "climatology", "teacher", "baseline", "s2kd"}
    for row in rows:
        mse, mae = row["mse"], row["mae"]
        assert np.isfinite([mse, mae, row["ssim"]]).all()
        assert mae**2 <= mse * (1 + 1e-9)
    words = [
        json.loads(line)["text"] for line in (out / "narratives.jsonl").read_text().splitlines()
    ]
    assert len(set(words)) > 0.5 * len(words), "the narrator says the same of every window"
    assert (out / "report.html").stat().st_size > 10_000


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _persistence(dataset, lag):
    """Root mean square of x(t + lag) − x(t) over every pair of frames that is there."""
    whole = np.asarray(dataset.frames[0 : dataset.frames.shape[0]], dtype=np.float64)
    step = np.timedelta64(round(dataset.grid.step_seconds * 1e9), "ns")
    _, later, earlier = np.intersect1d(
        dataset.times, dataset.times + lag * step, return_indices=True
    )
    assert len(later) > 500
    return float(np.sqrt(np.mean((whole[later] - whole[earlier]) ** 2)))


@pytest.mark.parametrize(("lag", "kelvin"), [(1, 2.49), (4, 3.27), (12, 4.64)])
def test_persistence_of_the_reanalysis_is_as_published(lag, kelvin):
    dataset = _dataset("ncep_air")
    assert dataset.grid.units in (("K",), ("degK",))
    assert _persistence(dataset, lag) == pytest.approx(kelvin, abs=0.01)


@pytest.mark.parametrize(("lag", "vehicles"), [(1, 3.64), (4, 5.73), (48, 4.93)])
def test_persistence_of_the_taxis_is_the_files_without_its_outages(lag, vehicles):
    """The published figures are over all slots; ours must be over those that are no outage."""
    file = np.load(Path(FOLDER) / "taxi_sf_32x32_30min.npz")
    flow, valid = file["flow"].astype(np.float64), file["valid"].astype(bool)
    squares, both = (flow[lag:] - flow[:-lag]) ** 2, valid[lag:] & valid[:-lag]
    assert np.sqrt(squares.mean()) == pytest.approx(vehicles, abs=0.01)
    ours = _persistence(_dataset("taxi_sf"), lag)
    assert ours == pytest.approx(np.sqrt(squares[both].mean()), rel=1e-9)
    assert ours < vehicles


def _taxis_in_hdf5():
    path = Path(FOLDER) / "SF08_M32x32_T30_InOut.h5"
    return load(Part(name="taxibj", params={"path": str(path)}))


@functools.cache
def _dataset(name):
    recipe = recipes.get(name, data=FOLDER)
    return load(recipe.dataset, recipe.split, recipe.keep)


def test_the_pool_fire_is_in_physical_units():
    dataset = _dataset("fds_pool")
    channel = [i for i, unit in enumerate(dataset.grid.units) if "C" in unit or "K" in unit]
    assert channel, dataset.grid.units
    frames = np.asarray(dataset.frames[0 : dataset.frames.shape[0]])[:, channel]
    assert 15 <= frames.min() <= 30, "20 °C of air"
    assert 300 < frames.max() <= 2000


def test_both_layouts_of_the_taxis_hold_the_same_flows():
    one, two = _dataset("taxi_sf"), _taxis_in_hdf5()
    shared, first, second = np.intersect1d(one.times, two.times, return_indices=True)
    assert len(shared) == one.frames.shape[0]
    np.testing.assert_array_equal(
        one.frames[0 : one.frames.shape[0]][first], two.frames[0 : two.frames.shape[0]][second]
    )


def test_the_years_of_ncep_are_cut_to_the_same_content(tmp_path):
    """The real part, put back into globes of one year each, as NOAA serves them."""
    (tmp_path / "ncep").mkdir()
    part = xr.load_dataset(Path(FOLDER) / "ncep_air_sig995_6h_2013_2014.nc")
    lat, lon = (np.arange(*ends, dtype="float32") for ends in ((90, -91, -2.5), (0, 360, 2.5)))
    globe = part.reindex(lat=lat, lon=lon).drop_encoding()
    for year in ("2013", "2014"):
        globe.sel(time=year).to_netcdf(tmp_path / "ncep" / f"air.sig995.{year}.nc")
    assert cut_ncep(tmp_path) == "ncep_air_sig995_6h_2013_2014.nc"
    prints = []
    for folder in (FOLDER, str(tmp_path)):
        recipe = recipes.get("ncep_air", data=folder)
        prints.append(load(recipe.dataset, recipe.split, recipe.keep).fingerprint)
    assert prints[0] == prints[1]
