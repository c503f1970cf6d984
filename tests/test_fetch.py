"""Downloads from a local server that misbehaves in the ways that servers do."""

import io
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import requests
import xarray as xr
from benchmark_files import times_of_year, weatherbench2

from s2kd import cli
from s2kd.core.console import Quiet
from s2kd.core.recipe import Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import fetch as fetching
from s2kd.data import load
from s2kd.data.fetch import SUMS, fetch, resume, session_for, unpack

WAITS = (0.0, 0.0)
DATA = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Files by path; one of `faults` is used up per request, `ranges` lists what was requested.

    A fault is a status, `cut:N` (N bytes, then the connection drops), `ignore` (of the range),
    `page`, or `to:ADDRESS` (a redirect).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.etags, self.faults, self.ranges = {}, {}, [], []
        self.base = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def put(self, path, data, etag='"one"'):
        self.files[path], self.etags[path] = data, etag
        return self.base + path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        self._answer(body=True)

    def _send(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, *, body):
        data = self.server.files.get(self.path)
        if data is None:
            return self._send(404)
        fault = str(self.server.faults.pop(0)) if body and self.server.faults else ""
        kind, _, number = fault.partition(":")
        if kind.isdigit():
            return self._send(int(kind))
        if kind == "to":
            return self._send(302, Location=number)
        if kind == "page":
            return self._send(200, b"<!DOCTYPE html><html>sign in</html>")
        etag, first, headers = self.server.etags[self.path], 0, {}
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if requested and kind != "ignore" and self.headers.get("If-Range") in (None, etag):
            first = int(requested[1])
            if first >= len(data):
                return self._send(416)
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        part = data[first:]
        stop = int(number) if kind == "cut" else len(part) if body else 0
        if etag:
            headers["ETag"] = etag
        self._send(206 if "Content_Range" in headers else 200, part[:stop], len(part), **headers)
        if kind == "cut":
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        return None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        yield running
        running.shutdown()


def download(url, path, waits=WAITS):
    part = path.with_name(f"{path.name}.part")
    resume(url, str(path), part=part, progress=Quiet().progress(""), waits=waits)
    return path.read_bytes()


# --- what is not trusted --------------------------------------------------------------------------


def test_redirects_stay_on_http_and_do_not_step_down(server, tmp_path):
    (tmp_path / "secret").write_text("key")
    url = server.put("/a.bin", DATA)
    server.faults = [f"to:{server.base}/a.bin"]
    assert download(url, tmp_path / "a.bin") == DATA
    for address in ("file://" + str(tmp_path / "secret"), "ftp://127.0.0.1/a.bin"):
        server.faults = [f"to:{address}"]
        with pytest.raises(S2KDError, match=r"/a\.bin: No connection adapters were found"):
            download(url, tmp_path / "b.bin")
    assert session_for("http://a.org").get_adapter("https://a.org")
    with pytest.raises(requests.exceptions.InvalidSchema):
        session_for("https://a.org").get_adapter("http://a.org")


@pytest.mark.parametrize("name", ["openstl", "taxibj_dataset.zip.part"])
def test_symbolic_links_below_the_folder_are_not_written_through(server, tmp_path, name):
    out, outside = tmp_path / "out", tmp_path / "outside"
    link = out / name
    link.parent.mkdir(parents=True)
    outside.mkdir()
    link.symlink_to(outside if name == "openstl" else outside / "file")
    with pytest.raises(S2KDError, match=f"{name}: is a symbolic link"):
        fetch("taxibj", out, base=server.base, waits=WAITS)
    assert not list(outside.iterdir())


def test_a_part_from_another_address_is_not_continued(server, tmp_path):
    first = server.put("/a.bin", DATA[::-1], etag="")
    server.faults = ["cut:140000", 404]
    with pytest.raises(S2KDError):
        download(first, tmp_path / "a.bin")
    assert download(server.put("/b.bin", DATA, etag=""), tmp_path / "a.bin") == DATA


# --- the resuming downloader ---------------------------------------------------------------------


def test_cut_connections_and_busy_servers_are_continued(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = ["cut:140000", 500, "cut:70000", 429, "cut:1"]
    assert download(url, tmp_path / "a.bin") == DATA
    block = 2**16  # what is read at once may be lost
    starts = [None, 2 * block, 2 * block, 3 * block, 3 * block, 3 * block]
    assert server.ranges == [start and f"bytes={start}-" for start in starts]
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_server_that_ignores_ranges_sends_everything_again(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = ["cut:200000", "ignore"]
    assert download(url, tmp_path / "a.bin") == DATA
    server.faults = ["cut:200000", *[500] * 5]
    with pytest.raises(S2KDError, match=r"gave up after 3 .*500.* with 196608 bytes in"):
        download(url, tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()
    # a later call, after this process or another has ended, continues
    assert download(url, tmp_path / "b.bin") == DATA
    assert server.ranges[-1] == "bytes=196608-"


def test_another_version_is_not_joined_to_the_first(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = ["cut:100000", *[500] * 3]
    with pytest.raises(S2KDError, match="gave up"):
        download(url, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").stat().st_size == 65_536
    server.put("/a.bin", bytes(50_000), etag='"two"')
    assert download(url, tmp_path / "a.bin") == bytes(50_000)
    # without a validator, a part that is too long is refused by the server
    server.put("/b.bin", DATA, etag="")
    (tmp_path / "b.bin.part").write_bytes(DATA + b"more")
    (tmp_path / "b.bin.part.json").write_text('{"validator": ""}')
    assert download(server.base + "/b.bin", tmp_path / "b.bin") == DATA


def test_missing_files_and_pages_are_refused_at_once(server, tmp_path):
    with pytest.raises(S2KDError, match="the server answers 404"):
        download(server.base + "/none.zip", tmp_path / "a", waits=(9.0,))
    server.put("/a.npy", DATA)
    server.faults = ["page"]
    with pytest.raises(S2KDError, match=r"a\.npy: gives a web page instead of a file"):
        download(server.base + "/a.npy", tmp_path / "a", waits=(9.0,))
    assert not (tmp_path / "a").exists()
    with pytest.raises(S2KDError, match="gave up after 1 "):
        download("http://127.0.0.1:1/a.zip", tmp_path / "a", waits=())


# --- archives ------------------------------------------------------------------------------------


def zipped(files):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data)
    return memory.getvalue()


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_the_member_of_an_archive_lands_at_its_path_whatever_its_own(tmp_path):
    files = [("evil.nc", b"2"), ("../../top/one.nc", b"1"), ("two.nc", b"22")]
    (tmp_path / "a.zip").write_bytes(zipped(files))
    unpack(tmp_path / "a.zip", tmp_path / "out" / "x" / "one.nc")
    assert tree(tmp_path / "out") == {"x/one.nc": b"1"}
    with pytest.raises(S2KDError, match=r"a\.zip: holds no three\.nc"):
        unpack(tmp_path / "a.zip", tmp_path / "out" / "three.nc")


def test_a_damaged_archive_leaves_nothing(tmp_path):
    content = bytearray(zipped([("a.nc", DATA[:5000]), ("b.nc", DATA[5000:9000])]))
    content[6000] ^= 255  # in b.nc
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(S2KDError, match=r"a damaged archive .*fetch it again"):
        unpack(tmp_path / "a.zip", tmp_path / "out" / "b.nc")
    assert tree(tmp_path) == {}


# --- data sets -----------------------------------------------------------------------------------


def npy():
    memory = io.BytesIO()
    np.save(memory, np.arange(24.0).reshape(2, 3, 4))
    return memory.getvalue()


def test_prometheus_is_downloaded_once_and_checked(server, tmp_path, monkeypatch):
    server.put("/a2_fds.npy", npy())
    server.put("/Prometheus-P/b1_fds.npy", npy())
    options = {"variables": ["a2", "b1"], "base": server.base, "waits": WAITS}
    out = tmp_path / "p"
    fetched = fetch("prometheus", out, **options)
    assert fetched.files == ("a2_fds.npy", "Prometheus-P/b1_fds.npy")
    assert np.load(out / "Prometheus-P" / "b1_fds.npy").shape == (2, 3, 4)
    check = subprocess.run(["sha256sum", "-c", SUMS], cwd=out, capture_output=True, text=True)
    assert check.stdout.count(": OK") == 2
    count = len(server.ranges)
    assert fetch("prometheus", out, **options) == fetched
    assert len(server.ranges) == count, "nothing is downloaded twice"
    (out / "a2_fds.npy").write_bytes(npy()[:-1] + b"x")
    with pytest.raises(S2KDError, match=r"a2_fds.npy: has changed since .*; delete it"):
        fetch("prometheus", out, **options)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(S2KDError, match=r"GiB are needed, 9.31e-08 GiB are free"):
        fetch("prometheus", tmp_path / "q", **options)
    with pytest.raises(S2KDError, match=r"answers 404.*by hand: the files are at https://hugging"):
        fetch("prometheus", tmp_path / "r", **options | {"variables": ["a3"]})
    assert not (tmp_path / "r").exists()


def test_taxibj_windows_and_what_must_be_downloaded_by_hand(server, tmp_path, capsys):
    memory = io.BytesIO()
    np.savez(memory, X_train=np.zeros((1, 4, 2, 32, 32), np.float32))
    server.put("/taxibj_dataset.zip", zipped([("taxibj/dataset.npz", memory.getvalue())]))
    assert fetch("taxibj", tmp_path / "t", base=server.base).files == ("openstl/dataset.npz",)
    assert sorted(tree(tmp_path / "t")) == [".lock", SUMS, "openstl/dataset.npz"]
    raw = tmp_path / "raw"
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "fetch", "taxibj", "--variables", "raw", "--out", str(raw)])
    assert end.value.code == 2
    message = capsys.readouterr().err
    for words in ("BJ13_M32x32_T30_InOut.h5", "BJ_Holiday.txt", "1drv.ms", str(raw)):
        assert words in message
    assert not raw.exists()
    raw.mkdir()
    names = re.findall(r"BJ\w+\.(?:h5|txt)", message)
    for name in names[:-1]:
        (raw / name).write_bytes(b"x")
    with pytest.raises(S2KDError, match=f"fetch: {names[-1]} must be downloaded by hand"):
        fetch("taxibj", raw, variables=["raw"])
    (raw / names[-1]).write_bytes(b"x")
    assert fetch("taxibj", raw, variables=["raw"]).files == tuple(names)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wetherbench", {}, "did you mean 'weatherbench'"),
        ("weatherbench", {}, "not served any more .*s2kd data fetch weatherbench2"),
        ("taxibj", {"years": "2016"}, "--years does not apply"),
        ("taxibj", {"variables": ["raw", "plus"]}, "one of openstl, raw, plus"),
        ("prometheus", {"variables": ["a26"]}, "no environment 'a26'"),
        ("weatherbench2", {"years": "2018-1979"}, "must be years such as"),
        ("weatherbench2", {"years": "79"}, "must be years such as"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(tmp_path, name, options, message):
    with pytest.raises(S2KDError, match=message):
        fetch(name, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_official_addresses_are_those_of_the_publishers():
    files = fetching.SOURCES["prometheus"].files((), "")
    assert len(files) == 50
    assert files[25].url.endswith("/resolve/main/Prometheus-P/b1_fds.npy")
    (archive,) = fetching.SOURCES["taxibj"].files((), "")
    assert archive.url.endswith("OpenSTL/releases/download/v0.1.0/taxibj_dataset.zip")


def ncep_year(year, *, lat=None):
    """A year of PSL's file in miniature: four times, packed, the whole globe of 2.5°."""
    lat = np.arange(90, -90.1, -2.5) if lat is None else lat
    lon = np.arange(0, 360, 2.5)
    time = np.datetime64(f"{year}-01-01") + np.arange(4) * np.timedelta64(6, "h")
    values = 250 + np.add.outer(np.arange(4), np.add.outer(lat / 10, lon / 20))
    air = xr.DataArray(
        values, coords={"time": time, "lat": lat, "lon": lon}, dims=("time", "lat", "lon"),
        attrs={"units": "degK"}, name="air",
    )  # fmt: skip
    packing = {
        "air": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -32768}
    }
    return bytes(air.to_dataset().to_netcdf(encoding=packing, engine="h5netcdf"))


def test_ncep_is_cut_to_the_file_of_the_recipe(server, tmp_path):
    for year in (2013, 2014):
        server.put(f"/air.sig995.{year}.nc", ncep_year(year))
    fetched = fetch("ncep_air", tmp_path / "data", base=server.base, waits=WAITS)
    assert fetched.files[-1] == "ncep_air_sig995_6h_2013_2014.nc"
    with xr.open_dataset(tmp_path / "data" / fetched.files[-1]) as part:
        assert dict(part.sizes) == {"time": 8, "lat": 25, "lon": 53}
        assert part["air"].dtype == np.float32
        assert [float(part.lat[0]), float(part.lat[-1])] == [75.0, 15.0]
        assert [float(part.lon[0]), float(part.lon[-1])] == [200.0, 330.0]
        expected = 250 + 3 + 7.5 + 200 / 20
        np.testing.assert_allclose(part["air"][3, 0, 0], expected, atol=0.006)
        assert str(part.time.values[4])[:10] == "2014-01-01"
    assert fetched.next_command.startswith("s2kd distill ncep_air --data ")


def test_ncep_on_another_grid_is_refused(server, tmp_path):
    for year in (2013, 2014):
        server.put(f"/air.sig995.{year}.nc", ncep_year(year, lat=np.arange(90, -90.1, -5)))
    with pytest.raises(S2KDError, match="another grid"):
        fetch("ncep_air", tmp_path / "data", base=server.base, waits=WAITS)


# --- WeatherBench 2 ------------------------------------------------------------------------------


@pytest.fixture
def store(server, tmp_path):
    """A miniature of the bucket, served over HTTP."""
    times = np.concatenate([times_of_year(y, hours=6) for y in (1990, 1991)])[1400:1540]
    folder = weatherbench2(tmp_path / "bucket.zarr", times, levels=(500, 700, 850))
    for path, data in tree(folder).items():
        server.put(f"/bucket.zarr/{path}", data)
    return server.base + "/bucket.zarr"


def test_weatherbench2_is_copied_field_by_field(store, server, tmp_path):
    pytest.importorskip("aiohttp")
    out = tmp_path / "wb2"
    options = {"base": store, "years": "1990-1991", "variables": ["z500", "temperature@850"]}
    assert fetch("weatherbench2", out, **options).files == ("weatherbench2.zarr",)
    with xr.open_zarr(out / "weatherbench2.zarr", consolidated=False) as copy:
        assert set(copy.data_vars) == {"geopotential_500", "temperature_850"}
        assert copy.latitude[0] == 87.1875
        assert copy.geopotential_500.units == "m**2 s**-2"
        with xr.open_zarr(tmp_path / "bucket.zarr") as bucket:
            expected = bucket.temperature.sel(level=850).transpose("time", "latitude", "longitude")
            np.testing.assert_array_equal(copy.temperature_850[:, ::-1], expected)
            np.testing.assert_array_equal(copy.time, bucket.time)
    dates = Split(
        train=("1990", "1990"),
        val=("1991-01-01", "1991-01-10"),
        test=("1991-01-11", "1991-01-20"),
        gap=0,
    )
    part = Part(name="weatherbench", params={"path": str(out / "weatherbench2.zarr")})
    dataset = load(part, dates)
    assert dataset.grid.channels == ("geopotential@500", "temperature@850")
    count = len(server.ranges)
    fetch("weatherbench2", out, **options)
    assert len(server.ranges) == count
    with pytest.raises(S2KDError, match="give another --out, or delete it"):
        fetch("weatherbench2", out, **{**options, "variables": ["z500"]})
    with pytest.raises(S2KDError, match="holds no frames of 1992"):
        fetch("weatherbench2", tmp_path / "b", **{**options, "years": "1990-1992"})
    with pytest.raises(S2KDError, match=r"no variable|has no|no field"):
        fetch("weatherbench2", tmp_path / "b", **{**options, "variables": ["u@10"]})


def test_an_interrupted_copy_is_continued(store, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "FRAMES_PER_BLOCK", 128)
    bucket, frames = str(tmp_path / "bucket.zarr"), []
    options = {"base": bucket, "years": "1990-1991"}

    class Stopping(Quiet):
        def progress(self, stage):
            def call(done, total, word=""):
                frames.append(done)
                if len(frames) == 1:
                    raise KeyboardInterrupt

            return call

    out = tmp_path / "wb2"
    with pytest.raises(KeyboardInterrupt):
        fetch("weatherbench2", out, shown=Stopping(), **options)
    assert not (out / "weatherbench2.zarr").exists()
    fetch("weatherbench2", out, shown=Stopping(), **options)
    assert frames == [128, 140], "no block is copied twice"
    fetch("weatherbench2", tmp_path / "once", **options)
    with (
        xr.open_zarr(out / "weatherbench2.zarr", consolidated=False) as first,
        xr.open_zarr(tmp_path / "once" / "weatherbench2.zarr", consolidated=False) as second,
    ):
        xr.testing.assert_identical(first.load(), second.load())


def test_the_cloud_extra_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(S2KDError, match=r"pip install 's2kd\[cloud\]'"):
        fetch("weatherbench2", tmp_path / "out")
