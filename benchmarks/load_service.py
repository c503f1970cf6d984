"""Load on `s2kd serve`: many clients with frames of their own, every answer checked.

`python benchmarks/load_service.py STUDENT FILE [--clients 200] [--seconds 60]` prints answers per
second, times, failures, and the memory of the service's processes halfway and at the end.
"""

import argparse
import asyncio
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import psutil
import xarray as xr

from s2kd import Forecaster


def memory(server: psutil.Process) -> float:
    """Resident MiB of the service and its readers."""
    return sum(p.memory_info().rss for p in [server, *server.children(recursive=True)]) / 2**20


def windows(forecaster: Forecaster, path: Path, count: int) -> list[tuple[bytes, np.ndarray]]:
    """Bodies of distinct frames with the values that must come back."""
    record, pairs = xr.open_dataset(path), []
    names = [channel for channel in forecaster.grid.channels if channel in record]
    for start in np.linspace(0, record.sizes["time"] - forecaster.past, count).astype(int):
        latest = record.isel(time=slice(start, start + forecaster.past)).load()
        expected = forecaster.forecast(latest, beyond_training=True)[names[0]].values
        pairs.append((bytes(latest.to_netcdf(engine="h5netcdf")), expected))
    return pairs


async def client(
    address: str, pairs: list[tuple[bytes, np.ndarray]], first: int, end: float
) -> list[tuple[float, str]]:
    """Seconds and outcome of each request until `end`."""
    answers = []
    async with httpx2.AsyncClient(base_url=address, timeout=60) as session:
        for number in range(first, sys.maxsize):
            if time.monotonic() > end:
                return answers
            body, expected = pairs[number % len(pairs)]
            start = time.monotonic()
            answer = await session.post("/forecast?beyond_training=true", content=body)
            seconds = time.monotonic() - start
            outcome = str(answer.status_code)
            if answer.status_code == 200 and number % 7 == 0:  # reading costs as much as serving
                values = xr.load_dataset(io.BytesIO(answer.content))
                field = values[next(iter(values.data_vars))].values
                outcome = "200" if np.allclose(field, expected, rtol=1e-4) else "mixed up"
            answers.append((seconds, outcome))
    return answers


async def load(
    address: str, pairs: list, clients: int, seconds: float, server: psutil.Process
) -> tuple[list[tuple[float, str]], float]:
    """All answers, and MiB halfway."""
    end = time.monotonic() + seconds
    tasks = [asyncio.create_task(client(address, pairs, n, end)) for n in range(clients)]
    await asyncio.sleep(seconds / 2)
    early = memory(server)
    return [answer for answers in await asyncio.gather(*tasks) for answer in answers], early


def start(student: Path, port: int) -> tuple[subprocess.Popen, float]:
    """A service, and the seconds until its first forecast could be asked for."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "s2kd", "serve", str(student), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/health").raise_for_status()
            return process, time.monotonic() - begin
        except httpx2.TransportError:
            time.sleep(0.05)


def main() -> None:
    """Run it and print a table of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    pairs = windows(Forecaster.load(options.student), options.file, 32)
    process, _ = start(options.student, port)
    server = psutil.Process(process.pid)
    answers, early = asyncio.run(load(address, pairs, options.clients, options.seconds, server))
    late = memory(server)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process, restart = start(options.student, port)
    begin = time.monotonic()
    httpx2.post(
        f"{address}/forecast?beyond_training=true", content=pairs[0][0], timeout=60
    ).raise_for_status()
    first = time.monotonic() - begin
    process.terminate()
    process.wait()
    times = sorted(seconds for seconds, _ in answers)
    failures = [outcome for _, outcome in answers if outcome != "200"]
    for name, value in (
        ("processors", os.cpu_count()),
        ("clients", options.clients),
        ("answers", len(answers)),
        ("answers per second", f"{len(answers) / options.seconds:.1f}"),
        ("failed or mixed up", f"{len(failures)} {sorted(set(failures))}"),
        (
            "median, 99 % (s)",
            f"{statistics.median(times):.2f}, {times[int(0.99 * len(times))]:.2f}",
        ),
        ("MiB halfway, at the end", f"{early:.0f}, {late:.0f}"),
        ("killed and started: answers after (s)", f"{restart:.1f} + {first:.2f}"),
    ):
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
