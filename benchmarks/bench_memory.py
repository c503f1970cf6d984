"""Peak resident memory of child processes that do what users do.

    python benchmarks/bench_memory.py [--gigabytes SIZE]

Two cases: `s2kd run ncep_air` with one epoch for every model (where S2KD_REAL_DATA names the
folder of the real files), wanted at most 2 GiB; and a Zarr store whose frames take SIZE GiB,
opened as a dataset, hashed, its statistics taken and every training frame read once in shuffled
batches of 16, wanted below 4 GiB. The store and its cache lie in the temporary folder and are
removed again; the cache takes SIZE GiB of disk.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WANTED_RUN, WANTED_STORE = 2.0, 4.0
HEIGHT, WIDTH, CHUNK, PAST, LEAD, BATCH = 181, 360, 16, 4, 4, 16
VARIABLES = ("height", "temperature")


def make_store(path: Path, gigabytes: float) -> int:
    """Write the store, chunk by chunk, and return its number of frames.

    Whole numbers that repeat every eighth chunk but for an offset: they pack well, so the store
    is small on disk while its frames are not.
    """
    import numpy as np
    import zarr

    frames = int(gigabytes * 2**30 / (4 * len(VARIABLES) * HEIGHT * WIDTH)) // CHUNK * CHUNK
    latitude, longitude = np.linspace(90, -90, HEIGHT), np.arange(WIDTH, dtype=float)
    store = zarr.open_group(path, mode="w", zarr_format=2)
    known = {
        "latitude": (latitude, {"units": "degrees_north"}),
        "longitude": (longitude, {"units": "degrees_east"}),
        "time": (np.arange(frames), {"units": "hours since 1979-01-01", "calendar": "standard"}),
    }
    for name, (values, attributes) in known.items():
        array = store.create_array(name, shape=values.shape, dtype=values.dtype, fill_value=None)
        array[:] = values
        array.attrs.update({**attributes, "_ARRAY_DIMENSIONS": [name]})
    when = np.arange(8 * CHUNK)[:, None, None] / (8 * CHUNK)
    waves = np.cos(np.deg2rad(latitude))[:, None] * np.sin(
        2 * np.pi * when + np.deg2rad(3 * longitude)
    )
    for name, unit in zip(VARIABLES, ("m", "K"), strict=True):
        array = store.create_array(
            name,
            shape=(frames, HEIGHT, WIDTH),
            chunks=(CHUNK, HEIGHT, WIDTH),
            dtype="float32",
            fill_value=float("nan"),
        )
        array.attrs.update({"units": unit, "_ARRAY_DIMENSIONS": ["time", "latitude", "longitude"]})
        base = (20 * waves).round().astype(np.float32)
        for first in range(0, frames, CHUNK):
            place = first % len(base)
            array[first : first + CHUNK] = base[place : place + CHUNK] + np.float32(first % 7)
    return frames


def use_store(path: Path, cache: Path) -> None:
    """What a training does with its data, without the training."""
    import torch

    from s2kd.core.recipe import Keep, Part, Split
    from s2kd.data import load
    from s2kd.data.statistics import statistics
    from s2kd.data.windows import WindowDataset

    torch.set_num_threads(1)
    dataset = load(
        Part(name="cf", params={"path": str(path), "variables": VARIABLES}),
        Split(),
        Keep(cache=str(cache)),
    )
    print(f"  {dataset.frames.shape} frames, fingerprint {dataset.fingerprint[:8]}", flush=True)
    known = statistics(dataset, lead=LEAD)
    print(f"  std {known.std}", flush=True)
    windows = WindowDataset(dataset, "train", past=PAST, lead=LEAD, stride=PAST + LEAD)
    total = 0.0
    for index in torch.randperm(len(windows)).split(BATCH):
        total += float(windows.gather(index).past.mean())
    print(f"  {len(windows)} windows read, sum of means {total:.1f}", flush=True)


def peak(command: list[str], *, quiet: bool = False) -> tuple[float, float]:
    """Peak resident memory in GiB and wall seconds of a child; a child that fails ends it all."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: failed with {child.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return used.ru_maxrss * unit / 2**30, time.perf_counter() - start


def run_case(data: str) -> dict:
    """The whole road on the air temperature recipe, short."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "s2kd", "run", "ncep_air", "--data", data]
        command += ["--out", str(Path(folder) / "run"), "--json"]
        settings = ["teacher_training.epochs=1", "student_training.epochs=1"]
        for setting in [*settings, "stride=8", "test_stride=8"]:
            command += ["--set", setting]
        gib, seconds = peak(command, quiet=True)
    return {
        "case": "s2kd run ncep_air, one epoch",
        "peak_gib": gib,
        "wanted_gib": WANTED_RUN,
        "seconds": seconds,
        "met": gib <= WANTED_RUN,
    }


def store_case(gigabytes: float) -> dict:
    """The large store."""
    with tempfile.TemporaryDirectory() as folder:
        store, cache = Path(folder) / "large.zarr", Path(folder) / "cache"
        me = str(Path(__file__).resolve())
        peak([sys.executable, me, "--make", str(store), "--gigabytes", str(gigabytes)])
        gib, seconds = peak([sys.executable, me, "--use", str(store), str(cache)])
    return {
        "case": f"a Zarr store of {gigabytes:g} GiB: open, hash, statistics, one epoch of batches",
        "gigabytes": gigabytes,
        "peak_gib": gib,
        "wanted_gib": WANTED_STORE,
        "seconds": seconds,
        "met": gib < WANTED_STORE,
    }


def main(gigabytes: float) -> int:
    """Measure, print and store both; 0 where both meet their targets."""
    cases, data = [], os.environ.get("S2KD_REAL_DATA", "")
    if data:
        cases.append(run_case(data))
    else:
        print("s2kd run ncep_air: left out, S2KD_REAL_DATA is not set")
    cases.append(store_case(gigabytes))
    for case in cases:
        print(
            f"{case['case']}: {case['peak_gib']:.2f} GiB (wanted {case['wanted_gib']:g}), "
            f"{case['seconds']:.0f} s"
        )
    from common import save

    result = {
        "what": "peak resident memory of a child process (ru_maxrss)",
        "cases": cases,
        "ratio": max(case["peak_gib"] / case["wanted_gib"] for case in cases),
        "peer": f"{WANTED_RUN:g} GiB for a run, {WANTED_STORE:g} GiB for a store",
        "limit": "imports (0.4 GiB), activations of a batch",
        "target": "at most 1",
        "met": all(case["met"] for case in cases),
    }
    name = "bench_memory" if gigabytes <= 2 else f"bench_memory_{gigabytes:g}_gib"
    lost = save(name, result, better="lower", packages=("zarr", "xarray"))
    return lost or int(not result["met"])


def arguments() -> argparse.Namespace:
    """What the command line says; --make and --use are for the children."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the store's frames")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--use", type=Path, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    if given.make:
        print(f"  {make_store(given.make, given.gigabytes)} frames written", flush=True)
    elif given.use:
        use_store(*given.use)
    else:
        sys.exit(main(given.gigabytes))
