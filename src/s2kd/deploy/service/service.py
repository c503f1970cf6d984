"""What the requests of a service share: bounds, readers, batches."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fastapi import FastAPI, HTTPException, Request

from s2kd.core.types import S2KDError
from s2kd.data.latest import LatestFrames
from s2kd.data.readers.files import IN_MEMORY
from s2kd.deploy.forecaster import Forecaster
from s2kd.deploy.service.reading import frames_of, start_reader

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on a body (bytes), an answer (steps; values: steps × channels × cells) and its time.

    `active` requests are worked on at a time by `readers` processes; at most `waiting` are open.
    """

    body: int = 2**25
    steps: int = 100
    values: int = 2**23
    seconds: int = 30
    active: int = 8
    readers: int = 2
    waiting: int = 256


class Service:
    """A forecaster for many at a time; `steps` is the largest number of frames of an answer."""

    def __init__(self, forecaster: Forecaster, limits: Limits) -> None:
        self._forecaster, self.limits = forecaster, limits
        grid = forecaster.grid
        frame = len(grid.channels) * grid.height * grid.width
        self.steps = max(forecaster.lead, min(limits.steps, limits.values // frame))
        self._slots, self._open = asyncio.Semaphore(limits.active), 0
        self._turn, self._waiting = asyncio.Lock(), dict[int, list[list[np.ndarray]]]()

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """With its processes."""
        self._readers = asyncio.Queue[ProcessPoolExecutor]()
        for _ in range(self.limits.readers):
            self._readers.put_nowait(start_reader())
        yield
        while not self._readers.empty():
            self._readers.get_nowait().shutdown(wait=False)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """One request: bounded in time and number."""
        self._open += 1
        try:
            if self._open > self.limits.waiting:
                raise _busy(429, f"{self.limits.waiting} requests are open")
            async with asyncio.timeout(self.limits.seconds), self._slots:
                yield
        except TimeoutError:
            raise _busy(503, f"the answer takes longer than {self.limits.seconds} s") from None
        finally:
            self._open -= 1

    async def body(self, request: Request) -> bytes:
        """The body of a request, refused as soon as it is too large."""
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > self.limits.body:
                raise HTTPException(413, f"the body has more than {self.limits.body} bytes")
        return bytes(content)

    async def read(self, source: bytes | Path, *counts: int, **settings: bool) -> LatestFrames:
        """The first of `counts` of frames that a body or file holds, read in a process apart.

        Raises S2KDError where they are refused, or reading them ends the process.
        """
        reader, metadata = await self._readers.get(), self._forecaster.metadata
        task = partial(frames_of, source, counts, metadata, self.limits.seconds, settings)
        try:
            return await asyncio.get_running_loop().run_in_executor(reader, task)
        except asyncio.CancelledError:  # out of time: it ends by itself, and is not waited for
            reader.shutdown(wait=False)
            reader = start_reader()
            raise
        except BrokenProcessPool:
            reader = start_reader()
            raise S2KDError(
                f"{IN_MEMORY}: is damaged, since the library that reads it crashes or hangs"
            ) from None
        finally:
            self._readers.put_nowait(reader)

    async def forecast(self, past: LatestFrames, steps: int) -> "xr.Dataset":
        """As `Forecaster.forecast`; windows that wait for as many steps share a batch."""
        job = [past.frames]
        self._waiting.setdefault(steps, []).append(job)
        async with self._turn:
            if len(job) == 1:  # no batch before had it, or that batch came to nothing
                batch = self._waiting.pop(steps, [])
                batch += [] if any(member is job for member in batch) else [job]
                windows = np.stack([window for window, *_ in batch])
                future = await asyncio.to_thread(self._forecaster.predict, windows, steps=steps)
                for member, frames in zip(batch, future, strict=True):
                    member.append(frames)
        to_dataset = partial(self._forecaster.to_dataset, origin=IN_MEMORY)
        return await asyncio.to_thread(to_dataset, job[1][None], past)


def _busy(status: int, reason: str) -> HTTPException:
    return HTTPException(status, f"{reason}; try again later", {"Retry-After": "1"})
