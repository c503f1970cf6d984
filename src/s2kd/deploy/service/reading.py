"""Reading of foreign bytes in a process apart, which may crash, hang or eat memory."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2kd.core.errors import S2KDError, first_line
from s2kd.data.latest import LatestFrames
from s2kd.data.readers.files import IN_MEMORY
from s2kd.data.readers.in_memory import open_bytes
from s2kd.deploy.inputs import input_frames

MEMORY = 2**30
"""Bytes that a process may take beyond those of its imports."""


def start_reader() -> ProcessPoolExecutor:
    """A process for `frames_of`."""
    reader = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare)
    reader.submit(int)  # so that no request waits for its imports
    return reader


def _prepare() -> None:
    import xarray  # noqa: F401

    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def frames_of(
    source: bytes | Path,
    counts: Sequence[int],
    metadata: Mapping[str, Any],
    seconds: int,
    settings: Mapping[str, bool],
) -> LatestFrames:
    """The first of these `counts` of input frames that a body or file holds.

    The process ends where that takes more than `seconds`; `settings` are those of `input_frames`.
    Raises S2KDError where the frames are refused or the body cannot be read.
    """
    if sys.platform != "win32":
        signal.alarm(seconds)  # nobody handles it, so what hangs in C ends too
    try:
        latest = source if isinstance(source, Path) else open_bytes(source)
        past = input_frames(latest, metadata, counts=counts, **settings)
        return past if past.places is None else replace(past, places=past.places.load())
    except S2KDError:
        raise
    except Exception as error:  # each library raises its own kinds
        raise S2KDError(f"{IN_MEMORY}: cannot be read ({first_line(error)})") from None
    finally:
        if sys.platform != "win32":
            signal.alarm(0)
