"""The HTTP service: the forecaster's numbers in three kinds, refusals, bounds, who may ask."""

import asyncio
import io
import json
import multiprocessing
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import h5py
import numpy as np
import psutil
import pytest
import xarray as xr
import zarr

from s2kd.cli.serve import serve
from s2kd.core.types import GridSpec, S2KDError
from s2kd.deploy.forecaster import Forecaster
from s2kd.deploy.inputs import input_frames

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from s2kd.deploy.service.app import create_app
from s2kd.deploy.service.reading import frames_of, start_reader
from s2kd.deploy.service.service import Limits, Service

PAST, LEAD, HEIGHT, WIDTH = 3, 2, 4, 5
MASK = tuple(tuple((row, column) != (1, 2) for column in range(WIDTH)) for row in range(HEIGHT))
GRID = GridSpec(
    channels=("t2m", "u@850"),
    units=("K", "m s-1"),
    height=HEIGHT,
    width=WIDTH,
    step_seconds=3600.0,
    latitude=(60.0, 50.0, 40.0, 30.0),
    longitude=(0.0, 10.0, 20.0, 30.0, 40.0),
    mask=MASK,
)
METADATA = {
    "grid": GRID.to_dict(),
    "past": PAST,
    "lead": LEAD,
    "missing": "error",
    "reader": {"name": "cf", "params": {}},
    "statistics": {"minimum": [200.0, -50.0], "maximum": [320.0, 50.0]},
    "student": "student",
    "versions": {"s2kd": "0.1.0"},
    "validation": float("nan"),
}
NETCDF, ZARR, JSON = "application/x-netcdf", "application/zip", "application/json"


def step(past):
    """The last frame plus 1 and plus 2."""
    return past[:, -1:] + np.arange(1, LEAD + 1, dtype=np.float32)[:, None, None, None]


FORECASTER = Forecaster(METADATA, step)


def record(frames=PAST, seed=0):
    rng = np.random.default_rng(seed)
    shape, dims = (frames, HEIGHT, WIDTH), ("time", "latitude", "longitude")
    t2m, wind = rng.uniform(270, 290, shape), rng.uniform(-9, 9, shape)
    return xr.Dataset(
        {
            "t2m": (dims, t2m.astype("f4"), {"units": "K"}),
            "u@850": (dims, wind.astype("f4"), {"units": "m s-1"}),
        },
        {
            "time": np.datetime64("2020-02-28T20", "ns")
            + np.arange(frames) * np.timedelta64(1, "h"),
            "latitude": ("latitude", list(GRID.latitude), {"units": "degrees_north"}),
            "longitude": ("longitude", list(GRID.longitude), {"units": "degrees_east"}),
        },
    )


def netcdf(dataset, **settings):
    return bytes(dataset.to_netcdf(**{"engine": "h5netcdf", **settings}))


def zipped(dataset, zarr_format, prefix=""):
    files, content = {}, io.BytesIO()
    store = zarr.storage.MemoryStore(files)
    dataset.to_zarr(store, zarr_format=zarr_format, consolidated=zarr_format == 2)
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            archive.writestr(prefix + name, value.to_bytes())
    return content.getvalue()


def as_json(dataset):
    plain = dataset.where(xr.DataArray(list(map(list, MASK)), dims=("latitude", "longitude")))
    return json.dumps(plain.to_dict(), default=str).replace("NaN", "null").encode()


def opened(answer):
    if answer.headers["content-type"] == NETCDF:
        return xr.load_dataset(io.BytesIO(answer.content))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        buffer = zarr.core.buffer.default_buffer_prototype().buffer
        files = {name: buffer.from_bytes(archive.read(name)) for name in archive.namelist()}
    return xr.open_zarr(zarr.storage.MemoryStore(files)).load()


def client_of(**settings):
    return TestClient(create_app(FORECASTER, **settings), base_url="http://localhost")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    latest = tmp_path_factory.mktemp("data") / "latest.nc"
    latest.write_bytes(netcdf(record(4)))
    with client_of(latest=latest, limits=Limits(readers=1)) as running:
        yield running


BODIES = {
    "NetCDF-4": (netcdf, NETCDF),
    "NetCDF-3": (partial(netcdf, engine="scipy", format="NETCDF3_64BIT"), NETCDF),
    "Zarr 2": (partial(zipped, zarr_format=2), ZARR),
    "Zarr 3": (partial(zipped, zarr_format=3, prefix="latest.zarr/"), ZARR),
    "JSON": (as_json, JSON),
}


@pytest.mark.parametrize("kind", BODIES)
def test_the_answer_is_the_forecasters_in_the_kind_of_the_body(client, kind):
    write, content_type = BODIES[kind]
    latest = (
        record()
        if kind != "NetCDF-3"
        else record().rename({"u@850": "u_850"}).rename({"u_850": "u@850"})
    )
    expected = FORECASTER.forecast(latest, steps=5)
    answer = client.post("/forecast?steps=5", content=write(latest))
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    if content_type == JSON:
        answer = client.post(
            "/forecast?steps=5", content=write(latest), headers={"Accept": f"{NETCDF}, */*"}
        )
    predicted = opened(answer)
    for name, units in (("t2m", "K"), ("u_850", "m s-1")):
        np.testing.assert_array_equal(predicted[name].values, expected[name].values)
        assert predicted[name].attrs["units"] == units
    assert (predicted["valid_time"].values == expected["valid_time"].values).all()
    assert (predicted["latitude"].values == latest["latitude"].values).all()


def test_json_has_null_where_no_cell_exists_and_dates_by_iso_8601(client):
    def refuse(constant):
        raise AssertionError(constant)

    latest = record()
    answer = client.post("/forecast", content=netcdf(latest), headers={"Accept": JSON})
    forecast = json.loads(answer.content, parse_constant=refuse)
    field = forecast["data_vars"]["t2m"]["data"][0][1]
    assert [[value is not None for value in row] for row in field] == list(map(list, MASK))
    assert field[0][0] == pytest.approx(float(latest["t2m"][-1, 0, 0]) + 2, abs=1e-4)
    assert forecast["coords"]["valid_time"]["data"] == [
        ["2020-02-28T23:00:00", "2020-02-29T00:00:00"]
    ]
    assert forecast["data_vars"]["u_850"]["attrs"]["channel"] == "u@850"


def test_frames_of_a_file_are_the_record_as_the_student_takes_it(client):
    latest = record(9)
    plain = client.post("/frames", content=netcdf(latest), headers={"Accept": JSON})
    frames = xr.Dataset.from_dict(plain.json())
    assert frames.sizes["time"] == PAST + 3 * LEAD
    expected = np.where(MASK, latest["u@850"].values, np.nan)
    np.testing.assert_array_equal(frames["u@850"].values.astype(float), expected)
    fewer = client.post("/frames", content=netcdf(record(5)), headers={"Accept": JSON})
    assert len(fewer.json()["coords"]["time"]["data"]) == 5
    # what the page does: frames in, forecast out
    answer = client.post("/forecast", content=plain.content, headers={"Accept": NETCDF})
    expected = FORECASTER.forecast(latest)
    np.testing.assert_array_equal(opened(answer)["t2m"].values, expected["t2m"].values)


def test_the_operators_file_is_shown_and_no_other(client):
    frames = client.get("/frames").json()
    assert frames["coords"]["time"]["data"][-1] == "2020-02-28T23:00:00"
    assert client_of().get("/frames").status_code == 404
    assert client.get("/../app.py").status_code == client.get("/%2e%2e/app.py").status_code == 404


# --- refusals -------------------------------------------------------------------------------------


def hidden(kind, secret):
    """NetCDF-4 whose values lie in another file, by a link or by external storage."""
    content = io.BytesIO(netcdf(record()))
    with h5py.File(content, "r+") as file:
        if kind == "link":
            file["link"] = h5py.ExternalLink(str(secret), "/t2m")
        else:
            file.create_dataset("raw", (8,), "u1", external=[(str(secret), 0, 8)])
    return content.getvalue()


def pickled():
    metadata = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None,
        "fill_value": None, "order": "C", "filters": [{"id": "pickle"}],
    }  # fmt: skip
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        archive.writestr("t2m/.zarray", json.dumps(metadata))
    return content.getvalue()


def test_what_the_forecaster_refuses_is_422_with_its_sentence(client, tmp_path):
    secret, latest = tmp_path / "secret", record()
    secret.write_bytes(b"password")
    lacking = latest.where((latest["time"] < latest["time"][-1]) | (latest["t2m"] > 280))
    for body, sentence in (
        (netcdf(latest.rename(t2m="t")), "the dataset given: lacks t2m"),
        (netcdf(latest.isel(latitude=slice(3))), "frames are 3×5"),
        (netcdf(latest.isel(time=slice(2))), "holds 2 frames, the model needs the last 3"),
        (netcdf(lacking), "missing values"),
        (netcdf(latest - 273.15), "far outside"),
        (netcdf(latest)[:600], "cannot be read"),
        (zipped(latest, 2)[:600], "cannot be read"),
        (b"PK\5\6" + bytes(18), "holds no Zarr group"),
        (pickled(), "t2m/.zarray names pickles, which are not read"),
        (hidden("link", secret), "link lies in another file"),
        (hidden("storage", secret), "the values of raw lie in another file"),
        (b'{"data_vars": {"t2m": {"dims": ["x"], "data": [[1], [2, 3]]}}}', "cannot be read"),
        (b"[" * 10**5, "neither NetCDF"),
        (b"{" * 10**5, "cannot be read"),
        (b"", "neither NetCDF"),
    ):
        answer = client.post("/forecast", content=body)
        assert answer.status_code == 422
        assert sentence in answer.json()["detail"]
    filled = client.post("/forecast?fill=true", content=netcdf(lacking))
    expected = FORECASTER.forecast(lacking, fill=True)
    np.testing.assert_array_equal(opened(filled)["t2m"].values, expected["t2m"].values)
    assert (
        client.post("/forecast?beyond_training=1", content=netcdf(latest - 273.15)).status_code
        == 200
    )
    for query in ("steps=0", "steps=101", "steps=many", "fill=perhaps"):
        answer = client.post(f"/forecast?{query}", content=netcdf(latest))
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.json()["detail"]


def test_a_reader_that_dies_is_replaced(client):
    assert client.post("/forecast", content=netcdf(record())).status_code == 200
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    answer = client.post("/forecast", content=netcdf(record()))
    assert (answer.status_code, "crashes or hangs" in answer.text) == (422, True)
    assert client.post("/forecast", content=netcdf(record())).status_code == 200


@pytest.mark.slow
def test_a_reader_that_takes_too_long_ends():
    settings = {"fill": False, "beyond_training": False}
    task = (netcdf(record()), range(10**9, 0, -1), METADATA, 1, settings)
    with start_reader() as reader, pytest.raises(BrokenProcessPool):
        reader.submit(frames_of, *task).result()


@pytest.mark.slow
def test_readers_end_with_a_server_that_is_killed():
    script = (
        "import os\nfrom s2kd.deploy.service.reading import start_reader\n"
        "print(start_reader().submit(os.getpid).result(), flush=True)\ninput()"
    )
    command = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as server:
        reader = psutil.Process(int(server.stdout.readline()))
        server.kill()
    reader.wait(timeout=120)


def test_bounds_of_body_requests_and_time():
    for limits, status in (
        (Limits(body=100), 413),
        (Limits(waiting=0), 429),
        (Limits(active=0, seconds=0), 503),
    ):
        answer = client_of(limits=limits).post("/forecast", content=netcdf(record()))
        assert answer.status_code == status
        assert isinstance(answer.json()["detail"], str)
        assert ("retry-after" in answer.headers) == (status != 413)
    # 2 channels of 20 cells
    assert Service(FORECASTER, Limits(values=400)).steps == 10
    assert Service(FORECASTER, Limits(values=4)).steps == LEAD


# --- who may ask ----------------------------------------------------------------------------------


def test_a_token_is_needed_where_one_is_set():
    closed = client_of(token="geheim-ü")
    for path in ("/model", "/metrics", "/frames"):
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic Og=="}):
            assert closed.get(path, headers=headers).status_code == 401
    assert closed.post("/forecast", content=netcdf(record())).status_code == 401
    assert closed.get("/health").json() == {"status": "ok"}
    bearer = {"Authorization": "Bearer geheim-ü".encode()}
    model = client_of(token="geheim-ü").get("/model", headers=bearer)
    assert model.json()["grid"]["channels"] == ["t2m", "u@850"]
    assert model.json()["validation"] is None


def test_it_listens_elsewhere_with_a_token_only(monkeypatch, tmp_path):
    monkeypatch.delenv("S2KD_TOKEN", raising=False)
    with pytest.raises(S2KDError, match="set S2KD_TOKEN"):
        serve(tmp_path, host="0.0.0.0")
    monkeypatch.setattr(Forecaster, "load", lambda *_, **__: FORECASTER)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(S2KDError, match=f"--port {port}: address already in use"):
            serve(tmp_path, port=port)


def test_without_a_token_no_other_name_is_answered(client):
    assert client.get("/model", headers={"Host": "attacker.example"}).status_code == 400
    assert client.get("/model", headers={"Host": "127.0.0.1:8000"}).status_code == 200


def test_the_page_needs_no_other_site(client):
    page = client.get("/").text
    assert "page.js" in page
    for name in ("page.js", "page.css"):
        assert "//" not in client.get(f"/{name}").text.replace("// ", "")
    assert set(client.get("/openapi.json").json()["paths"]) == {
        "/forecast", "/frames", "/health", "/metrics", "/model",
    }  # fmt: skip


# --- many at a time -------------------------------------------------------------------------------


def test_answers_of_many_clients_are_not_mixed_up(client):
    def ask(seed):
        latest, steps = record(seed=seed), 1 + seed % 3
        answer = client.post(f"/forecast?steps={steps}", content=netcdf(latest))
        expected = FORECASTER.forecast(latest, steps=steps)
        return np.array_equal(opened(answer)["t2m"], expected["t2m"], equal_nan=True)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(16)))
    metrics = client.get("/metrics").text
    assert 's2kd_answers_total{status="200"}' in metrics


def test_windows_that_wait_are_forecast_together_and_a_failure_is_not_shared():
    sizes = []

    def counted(past):
        sizes.append(len(past))
        if len(sizes) == 1:
            raise S2KDError("the first fails")
        return step(past)

    async def ask():
        service = Service(Forecaster(METADATA, counted), Limits())
        taxi, unknown = ({"reader": {"name": "taxibj", "params": {}}}, {"reader": None})
        windows = [  # in memory all data are CF, whatever the files of training were
            input_frames(record(seed=seed), METADATA | own, fill=False, beyond_training=False)
            for seed, own in enumerate(({}, taxi, unknown, {}, {}))
        ]
        tasks = [service.forecast(window, 2) for window in windows]
        return windows, await asyncio.gather(*tasks, return_exceptions=True)

    windows, (first, *others) = asyncio.run(ask())
    assert str(first) == "the first fails"
    assert sizes == [1, 4]
    for window, forecast in zip(windows[1:], others, strict=True):
        expected = np.where(MASK, step(window.frames[None])[0, :, 0], np.nan)
        np.testing.assert_array_equal(forecast["t2m"].values[0], expected)
