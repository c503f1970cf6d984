"""Checks of foreign files before a library opens them here: kind, claims, and a trial reading."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from s2kd.core.files import read_json
from s2kd.core.reading import read
from s2kd.core.types import S2KDError
from s2kd.data.readers import _probe

SECONDS, BYTES_PER_SECOND = 60, 2**24
"""Time of a trial reading, and further time by the size of the files."""
_passed: set[tuple[str, int, int]] = set()


def check_foreign(paths: Sequence[Path]) -> None:
    """Refuse files that are none, claim what they do not hold, or that crash or hang a library.

    HDF5 and GRIB files are read in part by `_probe.py`, once per process and version of a file.

    Raises:
        S2KDError: names the file and what is wrong with it.
    """
    tried = {}
    for path in paths:
        if path.is_dir():
            _check_zarr(path)
        elif path.exists() and not path.is_file():
            raise S2KDError(f"{path}: a pipe, socket or device; give a file or a folder")
        elif path.is_file() and _is_binary(path):
            status = path.stat()
            tried[str(path.resolve()), status.st_mtime_ns, status.st_size] = path
    tried = {stamp: path for stamp, path in tried.items() if stamp not in _passed}
    if tried:
        _try_reading(list(tried.values()))
        _passed.update(tried)


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"\x89HDF", b"GRIB")


def _try_reading(paths: Sequence[Path]) -> None:
    limit = SECONDS + sum(path.stat().st_size for path in paths) / BYTES_PER_SECOND
    try:
        trial = subprocess.run(
            [sys.executable, "-P", _probe.__file__],
            input=json.dumps([str(path) for path in paths]).encode(),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            timeout=limit,
            check=False,
        )
        output, failure = trial.stdout, "crashes"
    except subprocess.TimeoutExpired as error:
        output, failure = error.stdout or b"", f"does not end in {limit:.0f} s"
    problems = [json.loads(line) for line in output.splitlines()]
    for path, problem in zip(paths, problems, strict=False):
        if problem:
            raise S2KDError(f"{path}: {problem}; it is not read")
    if len(problems) < len(paths):
        raise S2KDError(
            f"{paths[len(problems)]}: is damaged, since the library that reads it {failure}; fetch "
            "or copy it again"
        )


class _Array(Struct):
    """What is needed of the metadata of a Zarr array; groups have no shape."""

    shape: tuple[int, ...] = ()


def _check_zarr(store: Path) -> None:
    """Refuse arrays whose shape is large, and whose chunks are nearly all absent."""
    for file in store.rglob("*zarr*"):
        if file.name not in (".zarray", "zarr.json"):
            continue
        size, stored = math.prod(read(_Array, read_json(file), str(file)).shape), 0
        if size <= _probe.LARGE_BYTES:
            continue
        for chunk in file.parent.rglob("*"):
            stored += chunk.stat().st_size if chunk.name != file.name else 0
            if not _probe.is_hollow(size, stored):
                break
        else:
            raise S2KDError(f"{file}: claims {size:.3g} values that were never written")
