"""Fetching from a local server that misbehaves in every way that servers do."""

import hashlib
import io
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import xarray as xr
from benchmark_files import field, save, times_of_year, weatherbench2
from hypothesis import given, settings
from hypothesis import strategies as st

from s2kd import cli
from s2kd.core.types import S2KDError
from s2kd.data import datasets, fetch_zarr
from s2kd.data.download import Remote, Unreachable, download, look, sha256
from s2kd.data.fetch import SUMS, fetch
from s2kd.data.unpack import unzip

WAITS = (0.0, 0.0)
DATA = np.random.default_rng(0).bytes(300_000)


class Server:
    """Files by path; `faults` are taken one a GET, `asked` is what was asked (method, path, range).

    A fault is a status (int), `cut:N` (N bytes, then the line drops), `whole` (the range is
    ignored), `html`, `page` (a page that calls itself data), `long:N` or `short:N` (a length N
    bytes off), `slow`.
    """

    def __init__(self):
        self.files, self.etags, self.faults, self.asked = {}, {}, [], []
        self.head, self.ranges = True, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                server.asked.append(("HEAD", self.path, None))
                if not server.head:
                    self._end(405)
                    return
                self._answer(body=False)

            def do_GET(self):
                server.asked.append(("GET", self.path, self.headers.get("Range")))
                self._answer(body=True)

            def _end(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _answer(self, *, body):
                data = server.files.get(self.path)
                if data is None:
                    self._end(404)
                    return
                fault = str(server.faults.pop(0)) if body and server.faults else ""
                kind, _, number = fault.partition(":")
                if kind.isdigit():
                    self._end(int(kind), Retry_After="0")
                    return
                if kind in ("html", "page"):
                    told = "text/html" if kind == "html" else "application/octet-stream"
                    self._end(200, b"<!DOCTYPE html><html>sign in</html>", Content_Type=told)
                    return
                first, status = 0, 200
                etag = server.etags.get(self.path, "")
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
                same = self.headers.get("If-Range") in (None, etag)
                if asked and server.ranges and same and kind != "whole":
                    first, status = int(asked[1]), 206
                    if first >= len(data):
                        self._end(416, Content_Range=f"bytes */{len(data)}")
                        return
                last = int(asked[2]) + 1 if status == 206 and asked[2] else len(data)
                part = data[first:last]
                length = len(part) + {"long": 1, "short": -1}.get(kind, 0) * int(number or 0)
                self.send_response(status)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(length))
                if etag:
                    self.send_header("ETag", etag)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(data)}")
                self.end_headers()
                if body:
                    self._send(kind, number, part, length)

            def _send(self, kind, number, part, length):
                if kind == "slow":
                    for block in range(0, len(part), 2000):
                        self.wfile.write(part[block : block + 2000])
                        time.sleep(0.02)
                    return
                self.wfile.write(part[: int(number) if kind == "cut" else length])
                if kind in ("cut", "long"):
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.base = f"http://127.0.0.1:{self.http.server_port}"

    def gets(self):
        return [asked for method, _, asked in self.asked if method == "GET"]

    def put(self, path, data, etag='"one"'):
        self.files[path], self.etags[path] = data, etag
        return self.base + path


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def got(url, path, **more):
    download(look(url, waits=WAITS), path, waits=WAITS, **more)
    return path.read_bytes()


# --- one file ------------------------------------------------------------------------------------


def test_a_file_arrives_whole(server, tmp_path):
    url = server.put("/a.bin", DATA)
    told = []
    assert got(url, tmp_path / "in" / "a.bin", report=lambda *x: told.append(x)) == DATA
    assert sha256(tmp_path / "in" / "a.bin") == hashlib.sha256(DATA).hexdigest()
    assert told[-1] == (len(DATA), len(DATA))
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a.bin"]
    assert look(url) == Remote(url=url, size=len(DATA), validator='"one"')


def test_cut_connections_are_gone_on_with(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = ["cut:100000", "cut:50000", "cut:0", "cut:1"]
    assert got(url, tmp_path / "a.bin") == DATA
    assert server.gets() == [None, *(f"bytes={n}-" for n in (100000, 150000, 150000, 150001))]


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 60_000), max_size=6), whole=st.lists(st.integers(0, 5)))
def test_wherever_it_is_cut_and_whatever_is_ignored(tmp_path_factory, cuts, whole):
    server, folder = Server(), tmp_path_factory.mktemp("cut")
    url = server.put("/a.bin", DATA[:100_000])
    server.faults = [f"cut:{n}" for n in cuts]
    for place in whole:
        server.faults.insert(place, "whole")
    assert got(url, folder / "a.bin") == DATA[:100_000]
    server.http.shutdown()
    server.http.server_close()


def test_a_server_that_ignores_ranges_sends_all_again(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.ranges = False
    server.faults = ["cut:200000"]
    assert got(url, tmp_path / "a.bin") == DATA
    assert server.gets() == [None, "bytes=200000-"]
    server.faults = ["cut:200000"] * 9
    with pytest.raises(S2KDError, match=r"gave up after 3 attempts .*200000 of 300000 bytes in"):
        got(url, tmp_path / "b.bin")


def test_a_length_that_is_never_reached(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = ["long:100"] * 9
    with pytest.raises(S2KDError, match="announced 300000 bytes and now sends 300100"):
        got(url, tmp_path / "a.bin")
    unknown = Remote(url=url)
    server.faults = ["long:100"] * 9
    with pytest.raises(S2KDError, match="gave up"):
        download(unknown, tmp_path / "b.bin", waits=WAITS)
    server.faults = ["short:100"]
    with pytest.raises(S2KDError, match="announced 300000 bytes and now sends 299900"):
        got(url, tmp_path / "c.bin")
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".bin"]


def test_a_server_that_is_ill_for_a_while(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = [500, 503, "cut:1000", 502, 429]
    assert got(url, tmp_path / "a.bin") == DATA
    server.faults = [500] * 9
    with pytest.raises(S2KDError, match=r"gave up after 3 attempts \(the server answers 500"):
        got(url, tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()


def test_what_is_not_there_is_not_asked_for_again(server, tmp_path):
    with pytest.raises(Unreachable, match="answers 404"):
        look(server.base + "/none.zip", waits=(0.0,) * 5)
    assert len(server.asked) == 2, "HEAD, and the first byte in case HEAD is not served"
    with pytest.raises(Unreachable, match="no connection"):
        look("http://127.0.0.1:1/a.zip", waits=(0.0,))
    with pytest.raises(Unreachable, match="must be an http"):
        look("file:///etc/passwd", waits=())


@pytest.mark.parametrize("fault", ["html", "page"])
def test_a_page_instead_of_a_file(server, tmp_path, fault):
    url = server.put("/a.npy", DATA)
    server.faults = [fault]
    with pytest.raises(S2KDError, match=r"a\.npy: gives a web page instead of a file"):
        download(Remote(url=url), tmp_path / "a.npy", waits=WAITS)
    assert not (tmp_path / "a.npy").exists()


def test_a_file_of_another_kind(server, tmp_path):
    url = server.put("/f?path=x&files=a.zip", b"Sorry, try again tomorrow")
    with pytest.raises(S2KDError, match=r"gives no \.zip file \(it starts with b'Sorry, t'\)"):
        got(url, tmp_path / "a.zip")


def test_another_version_is_not_joined_to_the_first(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.faults = ["cut:100000", 500, 500, 500]
    with pytest.raises(S2KDError, match="gave up"):
        got(url, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").stat().st_size == 100_000
    other = bytes(300_000)
    server.put("/a.bin", other, etag='"two"')
    assert got(url, tmp_path / "a.bin") == other
    # and if it changes between the question and the answer, If-Range makes the server say all
    before = look(url)
    server.faults = ["cut:1000", 500, 500, 500]
    with pytest.raises(S2KDError, match="gave up"):
        download(before, tmp_path / "b.bin", waits=WAITS)
    server.put("/a.bin", DATA, etag='"three"')
    download(before, tmp_path / "b.bin", waits=WAITS)
    assert (tmp_path / "b.bin").read_bytes() == DATA


def test_without_head_the_first_byte_tells_the_size(server, tmp_path):
    url = server.put("/a.bin", DATA)
    server.head = False
    assert look(url).size == len(DATA)
    assert server.gets() == ["bytes=0-0"]
    server.ranges = False
    assert look(url).size == len(DATA)
    assert got(url, tmp_path / "a.bin") == DATA


def test_a_part_that_is_too_long_is_begun_again(server, tmp_path):
    url = server.put("/a.bin", DATA, etag="")
    (tmp_path / "a.bin.part").write_bytes(DATA + b"more")
    assert got(url, tmp_path / "a.bin") == DATA
    assert server.gets() == [None]


def test_killed_and_gone_on_with(server, tmp_path):
    url, path = server.put("/a.bin", DATA), tmp_path / "a.bin"
    server.faults = ["slow"]
    code = f"""
from pathlib import Path
from s2kd.data.download import download, look
download(look({url!r}), Path({str(path)!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "a.bin.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 20_000):
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    there = part.stat().st_size
    assert 0 < there < len(DATA)
    assert got(url, path) == DATA
    assert server.gets()[-1] == f"bytes={there}-"


def test_one_process_a_file(server, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    url = server.put("/a.bin", DATA)
    with (tmp_path / "a.bin.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(S2KDError, match="another process is fetching this file"):
            got(url, tmp_path / "a.bin")
    assert got(url, tmp_path / "a.bin") == DATA


# --- archives ------------------------------------------------------------------------------------


def zipped(files, *, links=()):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            member = zipfile.ZipInfo(name)
            if name in links:
                member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, data)
    return memory.getvalue()


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_folder_appears_whole_and_its_own_name_is_left_out(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped([("top/x/one.nc", b"1"), ("top/two.nc", b"22")]))
    files = unzip(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == {"x/one.nc": b"1", "two.nc": b"22"}
    assert set(files) == {tmp_path / "out" / "x/one.nc", tmp_path / "out" / "two.nc"}
    (tmp_path / "b.zip").write_bytes(zipped([("two.nc", b"new"), ("three.nc", b"3")]))
    unzip(tmp_path / "b.zip", tmp_path / "out", keep=lambda name: "three" not in name)
    assert tree(tmp_path / "out") == {"x/one.nc": b"1", "two.nc": b"new"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip", "out"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.nc", "leads out"),
        ("a/../../evil.nc", "leads out"),
        ("/tmp/evil.nc", "leads out"),
        ("..\\evil.nc", "leads out"),
        ("C:/evil.nc", "leads out"),
        ("link.nc", "a link"),
    ],
)
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path, name, words):
    inside = tmp_path / "inside"
    inside.mkdir()
    made = zipped([("good.nc", b"1"), (name, b"2")], links=("link.nc",))
    (inside / "a.zip").write_bytes(made)
    with pytest.raises(S2KDError, match=words):
        unzip(inside / "a.zip", inside / "out")
    assert list(tree(tmp_path)) == ["inside/a.zip"]


def test_the_same_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        made = zipped([("a.nc", b"1"), ("a.nc", b"2")])
    (tmp_path / "a.zip").write_bytes(made)
    with pytest.raises(S2KDError, match=r"holds a\.nc twice"):
        unzip(tmp_path / "a.zip", tmp_path / "out")


def test_a_damaged_archive_leaves_no_folder(tmp_path):
    made = bytearray(zipped([("a.nc", DATA[:5000]), ("b.nc", DATA[5000:9000])]))
    made[6000] ^= 255  # in b.nc, after a.nc has been written
    (tmp_path / "a.zip").write_bytes(made)
    with pytest.raises(S2KDError, match=r"a damaged archive .*fetch it again"):
        unzip(tmp_path / "a.zip", tmp_path / "out")
    (tmp_path / "b.zip").write_bytes(made[:7000])
    with pytest.raises(S2KDError, match="a damaged archive"):
        unzip(tmp_path / "b.zip", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip"]


# --- whole data sets -----------------------------------------------------------------------------


def year_files(tmp_path, years):
    """Archives as WeatherBench's server has them, by path."""
    made = {}
    for name, level, folder in (("z", 500, "geopotential_500"), ("t", 850, "temperature_850")):
        files = []
        for year in years:
            times = times_of_year(year, hours=6)[:40]
            file = save(field(name, times, (level,)), tmp_path / f"{folder}{year}.nc")
            files.append((f"{folder}hPa_{year}_5.625deg.nc", file.read_bytes()))
        made[f"/{folder}/{folder}_5.625deg.zip"] = zipped(files)
    return made


def test_weatherbench_from_a_mirror_to_a_dataset(server, tmp_path):
    for path, data in year_files(tmp_path, (1990, 1991, 1992, 1993)).items():
        server.put(path, data)
    out = tmp_path / "wb"
    settings = {"years": "1990-1992", "base": server.base, "waits": WAITS}
    done = fetch("weatherbench", out, **settings)
    assert len(done.files) == 6
    assert set(done.files) == set(tree(out)) - {SUMS, ".lock"}
    assert not [p for p in out.iterdir() if p.suffix in (".zip", ".part")]
    told = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=out, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    made = datasets.build(
        "weatherbench", path=str(out), train=["1990", "1990"], val=["1991", "1991"],
        test=["1992", "1992"],
    )  # fmt: skip
    assert made.frames.shape == (120, 2, 32, 64)
    assert done.then == f"s2kd run weatherbench --data {out} --out runs/weatherbench"

    server.asked.clear()
    assert fetch("weatherbench", out, **settings) == done
    assert server.asked == [], "all is there: nothing is asked for"
    lost = out / "geopotential_500" / "geopotential_500hPa_1991_5.625deg.nc"
    lost.unlink()
    fetch("weatherbench", out, **settings)
    assert {path for _, path, _ in server.asked} == {
        "/geopotential_500/geopotential_500_5.625deg.zip"
    }
    lost.write_bytes(lost.read_bytes()[:-1])
    with pytest.raises(S2KDError, match=r"is not what was first fetched .* delete it"):
        fetch("weatherbench", out, **settings)


def test_a_publishers_file_that_has_changed_is_refused(server, tmp_path):
    first, other = (
        year_files(tmp_path / n, years) for n, years in (("a", (1990,)), ("b", (1990, 1991)))
    )
    for path, data in first.items():
        server.put(path, data)
    settings = {"base": server.base, "waits": WAITS}
    fetch("weatherbench", tmp_path / "wb", years="1990", **settings)
    for path, data in other.items():
        server.put(path, data, etag='"two"')
    with pytest.raises(S2KDError, match="is not the file that was first fetched"):
        fetch("weatherbench", tmp_path / "wb", years="1990,1991", **settings)


def test_years_that_an_archive_lacks_are_named_before_it_is_unpacked(server, tmp_path):
    for path, data in year_files(tmp_path, (1990,)).items():
        server.put(path, data)
    with pytest.raises(S2KDError, match="holds no file of 1991; set --years"):
        fetch("weatherbench", tmp_path / "wb", years="1990-1991", base=server.base, waits=WAITS)
    assert not (tmp_path / "wb" / "geopotential_500").exists()


def test_an_unpacking_that_was_killed_leaves_nothing_behind(server, tmp_path):
    for path, data in year_files(tmp_path, (1990,)).items():
        server.put(path, data)
    half = tmp_path / "wb" / ".geopotential_500.abc.part"
    half.mkdir(parents=True)
    (half / "geopotential_500hPa_1990_5.625deg.nc").write_bytes(b"half")
    archive = tmp_path / "wb" / "geopotential_500_5.625deg.zip"
    archive.write_bytes(server.files["/geopotential_500/geopotential_500_5.625deg.zip"])
    fetch("weatherbench", tmp_path / "wb", years="1990", base=server.base, waits=WAITS)
    assert not half.exists()
    assert "/geopotential_500/geopotential_500_5.625deg.zip" not in {
        path for method, path, _ in server.asked if method == "GET"
    }, "the archive was there already"


def test_too_small_a_disk_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    for path, data in year_files(tmp_path, (1990,)).items():
        server.put(path, data)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(S2KDError, match=r"about .* MiB are needed, 0.0 MiB are free"):
        fetch("weatherbench", tmp_path / "wb", years="1990", base=server.base, waits=WAITS)
    assert server.gets() == []


def test_prometheus_files_keep_their_names(server, tmp_path):
    memory = io.BytesIO()
    np.save(memory, np.arange(24.0).reshape(2, 3, 4))
    server.put("/a2_fds.npy", memory.getvalue())
    server.put("/Prometheus-P/b1_fds.npy", memory.getvalue())
    done = fetch(
        "prometheus", tmp_path / "p", variables=["a2", "b1"], base=server.base, waits=WAITS
    )
    assert done.files == ("a2_fds.npy", "Prometheus-P/b1_fds.npy")
    assert np.load(tmp_path / "p" / "Prometheus-P" / "b1_fds.npy").shape == (2, 3, 4)
    with pytest.raises(S2KDError, match="no environment 'a26'"):
        fetch("prometheus", tmp_path / "p", variables=["a26"])
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "a2_fds.npy").write_bytes(memory.getvalue()[:-8])
    with pytest.raises(S2KDError, match=r"a2_fds.npy: has 312 bytes, the file at .* has 320"):
        fetch("prometheus", tmp_path / "q", variables=["a2"], base=server.base, waits=WAITS)


def test_taxibj_windows_and_what_a_person_must_fetch(server, tmp_path, capsys):
    memory = io.BytesIO()
    np.savez(memory, X_train=np.zeros((1, 4, 2, 32, 32), np.float32))
    server.put("/taxibj_dataset.zip", zipped([("taxibj/dataset.npz", memory.getvalue())]))
    done = fetch("taxibj", tmp_path / "t", base=server.base, waits=WAITS)
    assert done.files == ("openstl/dataset.npz",)
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "fetch", "taxibj", "--variables", "raw", "--out", str(tmp_path / "raw")])
    assert end.value.code == 2
    said = capsys.readouterr().err
    for words in ("BJ13_M32x32_T30_InOut.h5", "BJ_Holiday.txt", "1drv.ms", str(tmp_path / "raw")):
        assert words in said
    assert not (tmp_path / "raw").exists(), "nothing was made for nothing"
    (tmp_path / "raw").mkdir()
    names = re.findall(r"BJ\w+\.(?:h5|txt)", said)
    for name in names[:-1]:
        (tmp_path / "raw" / name).write_bytes(b"x")
    with pytest.raises(S2KDError, match=f"Download {names[-1]} from"):
        fetch("taxibj", tmp_path / "raw", variables=["raw"])
    (tmp_path / "raw" / names[-1]).write_bytes(b"x")
    assert fetch("taxibj", tmp_path / "raw", variables=["raw"]).files == tuple(names)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("wetherbench", {}, "did you mean 'weatherbench'"),
        ("taxibj", {"years": "2016"}, "--years does not apply"),
        ("taxibj", {"variables": ["raw", "plus"]}, "one of openstl, raw, plus"),
        ("weatherbench", {"years": "2018-1979"}, "wants years such as"),
        ("weatherbench", {"years": "79"}, "wants years such as"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_asked(tmp_path, name, settings, words):
    with pytest.raises(S2KDError, match=words):
        fetch(name, tmp_path / "out", **settings)


def test_a_dead_official_address_says_what_to_do_instead(tmp_path, monkeypatch):
    from s2kd.data import fetch as module

    monkeypatch.setattr(module, "TUM", "http://127.0.0.1:1/download")
    with pytest.raises(S2KDError, match=r"no connection.*s2kd data fetch weatherbench2 --out"):
        fetch("weatherbench", tmp_path / "out", waits=())


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
    wishes = {"base": store, "years": "1990-1991", "variables": ["z500", "temperature@850"]}
    done = fetch("weatherbench2", out, waits=WAITS, **wishes)
    assert done.files == ("weatherbench2.zarr",)
    with xr.open_zarr(out / "weatherbench2.zarr", consolidated=False) as copy:
        assert set(copy.data_vars) == {"geopotential_500", "temperature_850"}
        assert copy.geopotential_500.dims == ("time", "latitude", "longitude")
        assert copy.latitude[0] == 87.1875
        assert copy.geopotential_500.units == "m**2 s**-2"
        with xr.open_zarr(tmp_path / "bucket.zarr") as bucket:
            want = bucket.temperature.sel(level=850).transpose("time", "latitude", "longitude")
            np.testing.assert_array_equal(copy.temperature_850[:, ::-1], want)
            np.testing.assert_array_equal(copy.time, bucket.time)
    made = datasets.build(
        "weatherbench", path=str(out / "weatherbench2.zarr"), train=["1990", "1990"],
        val=["1991-01-01", "1991-01-10"], test=["1991-01-11", "1991-01-20"],
    )  # fmt: skip
    assert made.grid.channels == ("geopotential@500", "temperature@850")
    server.asked.clear()
    fetch("weatherbench2", out, waits=WAITS, **wishes)
    assert server.asked == []
    with pytest.raises(S2KDError, match="holds another choice"):
        fetch("weatherbench2", out, waits=WAITS, **{**wishes, "variables": ["z500"]})
    with pytest.raises(S2KDError, match="holds no frames of 1992"):
        fetch("weatherbench2", tmp_path / "b", waits=WAITS, **{**wishes, "years": "1990-1992"})


def test_a_copy_that_was_cut_goes_on(store, server, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(fetch_zarr, "BLOCK_FRAMES", 32)
    monkeypatch.setattr(fetch_zarr, "CHUNK_FRAMES", 32)
    out, wishes = tmp_path / "wb2", {"base": store, "years": "1990-1991", "waits": ()}
    told = []

    class Stop(Exception):
        """As a signal would."""

    def report(done, total):
        told.append(done)
        if len(told) == 2:
            raise Stop

    from s2kd.core.console import Quiet

    class Stopping(Quiet):
        def report(self, stage):
            return lambda done, total, word: report(done, total)

    with pytest.raises(Stop):
        fetch("weatherbench2", out, shown=Stopping(), **wishes)
    assert not (out / "weatherbench2.zarr").exists()
    fetch("weatherbench2", out, shown=Stopping(), **wishes)
    assert told == [32, 64, 96, 128, 140], "what was there is not copied again"
    fetch("weatherbench2", tmp_path / "once", **wishes)
    with (
        xr.open_zarr(out / "weatherbench2.zarr", consolidated=False) as one,
        xr.open_zarr(tmp_path / "once" / "weatherbench2.zarr", consolidated=False) as other,
    ):
        xr.testing.assert_identical(one.load(), other.load())


@pytest.mark.parametrize(("module", "base"), [("gcsfs", "gs://bucket/a.zarr"), ("aiohttp", "")])
def test_the_cloud_extra_is_named_where_it_is_missing(tmp_path, monkeypatch, module, base):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(S2KDError, match=rf"needs {module} .*pip install 's2kd\[cloud\]'"):
        fetch("weatherbench2", tmp_path / "out", base=base, waits=())


def test_without_a_connection_a_bucket_is_told_soon(tmp_path, monkeypatch):
    pytest.importorskip("gcsfs")
    from s2kd.data import _remote

    monkeypatch.setattr(_remote, "GOOGLE", "http://127.0.0.1:1/")
    with pytest.raises(S2KDError, match=r"gs://bucket/a\.zarr: gave up after 2 .*no connection"):
        fetch("weatherbench2", tmp_path / "out", base="gs://bucket/a.zarr", waits=())
    assert not (tmp_path / "out").exists()


def test_official_addresses_are_those_of_the_publishers():
    from s2kd.data.fetch import SOURCES

    first, second = SOURCES["weatherbench"].items((), "")
    assert first.url == (
        "https://dataserv.ub.tum.de/s/m1524895/download?path=%2F5.625deg%2Fgeopotential_500"
        "&files=geopotential_500_5.625deg.zip"
    )
    assert second.url.endswith("%2Ftemperature_850&files=temperature_850_5.625deg.zip")
    (levels,) = SOURCES["weatherbench"].items(("z700",), "")
    assert levels.url.endswith("%2Fgeopotential&files=geopotential_5.625deg.zip")
    items = SOURCES["prometheus"].items((), "")
    assert len(items) == 50
    assert items[25].url.endswith("/resolve/main/Prometheus-P/b1_fds.npy")


def test_progress_is_told_in_mib_and_ends_once(server, tmp_path):
    from s2kd.core.console import Quiet

    server.put("/a1_fds.npy", b"\x93NUMPY" + bytes(5 * 2**20 // 2))
    told = {}

    class Keeping(Quiet):
        def report(self, stage):
            return lambda *numbers: told.setdefault(stage, []).append(numbers)

    fetch("prometheus", tmp_path, variables=["a1"], base=server.base, shown=Keeping(), waits=WAITS)
    assert set(told) == {"a1_fds.npy", "checksum of a1_fds.npy"}
    for numbers in told.values():
        assert numbers[-1] == (3, 3, "MiB")
        assert [done for done, _, _ in numbers] == sorted({done for done, _, _ in numbers})
