"""Foreign files that crash, hang or lie: refused in one sentence, and before anything is read."""

import io
import json
import os
import socket
import zipfile

import h5py
import numpy as np
import pytest
import zarr

from s2kd.core.types import S2KDError
from s2kd.data.describe import describe
from s2kd.data.readers import _foreign
from s2kd.data.readers.files import files_of

HUGE = (200_000, 100, 100)


@pytest.fixture
def hdf5(tmp_path):
    """A file of two days on 8×8 cells, and the text that another file holds."""
    (tmp_path / "secret").write_bytes(b"root:x:0:0" * 1000)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["t2m"] = np.random.default_rng(0).random((48, 8, 8), np.float32)
    return path


def external_values(path):
    with h5py.File(path, "a") as file:
        places = [(str(path.parent / "secret"), 0, 8192)]
        file.create_dataset("x", (32, 8, 8), "f4", external=places)


def external_link(path):
    with h5py.File(path, "a") as file:
        file["x"] = h5py.ExternalLink("other.h5", "/t2m")


def virtual_values(path):
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((48, 8, 8), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "t2m", (48, 8, 8))
        file.create_virtual_dataset("x", layout)


def never_written(path):
    with h5py.File(path, "a") as file:
        file.create_dataset("x", HUGE, "f4", chunks=(100, 100, 100))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (external_values, "the values of x lie in another file"),
        (external_link, "x lies in another file"),
        (virtual_values, "the values of x lie in another file"),
        (never_written, "x claims 7.45 GiB that were never written"),
    ],
)
def test_hdf5_that_leads_elsewhere_or_claims_what_it_lacks(hdf5, change, problem):
    assert describe(hdf5).frames == 48
    change(hdf5)
    with pytest.raises(S2KDError, match=rf"a\.h5: {problem}"):
        describe(hdf5)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_that_was_never_written(tmp_path, version):
    for name, shape in (("small.zarr", (24, 8, 8)), ("huge.zarr", HUGE)):
        group = zarr.create_group(tmp_path / name, zarr_format=version)
        group.create_array("x", shape=shape, chunks=(100, 100, 100), dtype="f4")
    assert files_of(tmp_path / "small.zarr")
    with pytest.raises(S2KDError, match=r"huge\.zarr/x/.*: claims 2e\+09 values that were never"):
        files_of(tmp_path / "huge.zarr")


@pytest.mark.parametrize("shape", ["null", '["a", 3]', "[3.5]", "7"])
def test_a_zarr_array_without_a_shape(tmp_path, shape):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("x", shape=(24, 8, 8), dtype="f4")
    file = tmp_path / "a.zarr/x/.zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shape": json.loads(shape)}))
    with pytest.raises(S2KDError, match=r"a\.zarr"):
        describe(tmp_path / "a.zarr")


def test_an_npz_that_claims_more_than_it_stores(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros((48, 8, 8), np.float32))
    claim = content.getvalue().replace(b"(48, 8, 8), }", b"(480000, 8,8)}", 1)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("t2m.npy", claim)
    with pytest.raises(S2KDError, match=r"a\.npz: t2m\.npy claims \d+ bytes"):
        describe(tmp_path / "a.npz")


def test_pipes_sockets_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.nc")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket.nc"))
        for path in (tmp_path / "pipe.nc", tmp_path / "socket.nc", tmp_path, "/dev/zero"):
            with pytest.raises(S2KDError, match="a pipe, socket or device"):
                files_of(path)


@pytest.mark.parametrize(
    ("library", "problem"),
    [
        ("import os; os.abort()", "is damaged, since the library that reads it crashes"),
        ("while True: pass", "is damaged, since the library that reads it does not end in 2 s"),
        ("bytearray(2**40)", "a part of it needs more than 4 GiB"),
    ],
)
def test_a_library_that_crashes_hangs_or_takes_all_memory(
    hdf5, tmp_path, monkeypatch, library, problem
):
    """A library that behaves like HDF5 on a hostile file stands in for it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/h5py.py").write_text(library)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    if "while" in library:
        monkeypatch.setattr(_foreign, "SECONDS", 2)
    with pytest.raises(S2KDError, match=rf"a\.h5: {problem}"):
        describe(hdf5)
