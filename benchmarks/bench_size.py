"""Training from a prepared store on disk against the same frames in memory, side by side.

    python benchmarks/bench_size.py [--gigabytes SIZE] [--dtype float32|int16] [--folder FOLDER]

A store of SIZE GiB (as float32) is written as `s2kd data prepare` writes it, into FOLDER (default:
the temporary folder) and removed again. Steps of a small U-Net, windows drawn at random, are timed
in interleaved rounds: from an array in memory (the store's first part, at most 1 GiB), from the
whole store, and from the whole store after the system was told to forget its pages, so that the
disk is read. Wanted: the store's windows a second at least 0.8 of memory's, cold as well.
A process of its own takes statistics of the store and trains from it: its peak resident memory is
wanted below 2 GiB whatever SIZE is. Exits 1 where a target is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench_memory import peak

WANTED_RATIO, WANTED_GIB = 0.8, 2.0
CHANNELS, HEIGHT, WIDTH, PAST, LEAD, BATCH = 2, 32, 64, 4, 4, 16
STEPS, ROUNDS = 4, 9


def make(folder: Path, gigabytes: float, dtype: str) -> None:
    """Write the store through `s2kd.data.store` from frames made on demand."""
    import numpy as np

    from s2kd.core.types import GridSpec
    from s2kd.data.dataset import Dataset
    from s2kd.data.dataset import Stretch as Run
    from s2kd.data.gaps import GapFilter
    from s2kd.data.splits import chronological
    from s2kd.data.store import write_store

    count = int(gigabytes * 2**30 / (4 * CHANNELS * HEIGHT * WIDTH))
    shape = (CHANNELS, HEIGHT, WIDTH)
    base = np.random.default_rng(0).standard_normal((256, *shape), dtype=np.float32)

    class Made:
        """Noise that repeats every 256 frames but for an offset, so that no two are equal."""

        def __init__(self) -> None:
            self.shape = (count, *shape)

        def __getitem__(self, frames: slice) -> np.ndarray:
            number = np.arange(*frames.indices(count))
            return base[number % 256] + (number / count).astype(np.float32)[:, None, None, None]

    names = tuple(f"field{n}" for n in range(CHANNELS))
    dataset = Dataset(
        name="noise",
        domain="generic",
        grid=GridSpec(
            channels=names,
            units=("1",) * CHANNELS,
            height=HEIGHT,
            width=WIDTH,
            step_seconds=3600.0,
        ),
        frames=Made(),
        times=np.datetime64("2000-01-01", "ns") + np.arange(count) * np.timedelta64(1, "h"),
        splits=chronological((Run(first=0, stop=count),), fractions=(0.8, 0.1, 0.1), gap=8),
    )
    gaps = GapFilter(dataset.name, dataset.grid, dataset.times)
    write_store(dataset, gaps, folder, dtype=dtype, key="bench")


def trainer(dataset, known):
    """A function that does `STEPS` steps of training on random windows, and one that only reads."""
    import torch

    from s2kd.data.windows import WindowDataset
    from s2kd.models.backbones import backbones
    from s2kd.models.forecasters import Student
    from s2kd.models.normaliser import Normaliser
    from s2kd.training.objectives import Forecasting

    windows = WindowDataset(dataset, "train", past=PAST, lead=LEAD)
    torch.manual_seed(0)
    backbone = backbones.build("unet", dataset.grid, past=PAST, lead=LEAD, width=12)
    objective = Forecasting(Student(backbone, Normaliser.from_statistics(known)), windows, None)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)

    def drawn():
        return torch.randint(len(windows), (BATCH,), generator=generator)

    def train() -> None:
        for _ in range(STEPS):
            loss, _ = objective(drawn())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def read() -> None:
        for _ in range(STEPS):
            windows.gather(drawn())

    return train, read


def forget(path: Path) -> bool:
    """Let the system drop the file's pages, so that the disk is read; false where it cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def cold(path: Path, work):
    """`work`, after the file's pages were forgotten (which takes no time worth the name)."""

    def done() -> None:
        forget(path)
        work()

    return done


def measure(folder: Path) -> dict:
    """Windows a second of every way, training and reading alone."""
    import torch
    from common import compare

    from s2kd.data.splits import chronological
    from s2kd.data.statistics import statistics
    from s2kd.data.store import open_store

    torch.set_num_threads(1)
    store = open_store(folder, memory_gb=0.0)
    frames = min(store.frames.shape[0], int(2**30 / (4 * CHANNELS * HEIGHT * WIDTH)))
    run = replace(store.splits["train"][0], first=0, stop=frames)
    memory = replace(
        store,
        frames=store.frames[0:frames],
        times=store.times[:frames],
        splits=chronological((run,), fractions=(0.8, 0.1, 0.1), gap=8),
    )
    known = statistics(memory, lead=LEAD)
    in_memory, on_disk = trainer(memory, known), trainer(store, known)
    path = folder / "frames.npy"
    seconds = {}
    for what, number in (("training", 0), ("reading", 1)):
        ways = {"memory": in_memory[number], "store": on_disk[number]}
        if forget(path):
            ways["store, pages forgotten"] = cold(path, on_disk[number])
        held = compare(ways, rounds=ROUNDS)
        seconds[what] = {way: STEPS * BATCH / taken for way, taken in held.items()}
    return seconds


def use(folder: Path) -> None:
    """What a training does: statistics in one pass, then steps."""
    import torch

    from s2kd.data.statistics import statistics
    from s2kd.data.store import open_store

    torch.set_num_threads(1)
    store = open_store(folder)
    train, read = trainer(store, statistics(store, lead=LEAD))
    train()
    for _ in range(20):
        read()


def main(given: argparse.Namespace) -> int:
    """Measure, print and store; 0 where both targets are met."""
    from common import save

    me, options = str(Path(__file__).resolve()), ["--gigabytes", str(given.gigabytes)]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        store = Path(folder) / "store"
        options += ["--dtype", given.dtype]
        _, written = peak([sys.executable, me, "--make", str(store), *options])
        size = (store / "frames.npy").stat().st_size / 2**30
        gib, used = peak([sys.executable, me, "--use", str(store)])
        told = subprocess.run(
            [sys.executable, me, "--measure", str(store)], check=True, stdout=subprocess.PIPE
        )
    rates = json.loads(told.stdout)
    training = rates["training"]
    ratios = {way: rate / training["memory"] for way, rate in training.items() if way != "memory"}
    worst = min(ratios.values())
    result = {
        "what": f"windows a second of training a small U-Net, batch {BATCH}, from a prepared store "
        "over from memory; peak resident memory of statistics and training from the store",
        "peer": "the same frames in memory",
        "limit": "the disk",
        "gigabytes": given.gigabytes,
        "dtype": given.dtype,
        "store_gib": size,
        "frames": [CHANNELS, HEIGHT, WIDTH],
        "clock": "wall time, least of the rounds",
        "rounds": ROUNDS,
        "windows_a_second": rates,
        "ratios": ratios,
        "ratio": worst,
        "peak_gib": gib,
        "write_seconds": written,
        "use_seconds": used,
        "target": f"ratio at least {WANTED_RATIO:g}, peak below {WANTED_GIB:g} GiB",
        "met": worst >= WANTED_RATIO and gib < WANTED_GIB,
    }
    for what, each in rates.items():
        print(what, ", ".join(f"{way} {rate:.0f}/s" for way, rate in each.items()))
    print(
        f"least ratio {worst:.2f} (wanted at least {WANTED_RATIO:g}), peak {gib:.2f} GiB (wanted "
        f"below {WANTED_GIB:g}), written in {written:.0f} s, statistics and steps {used:.0f} s"
    )
    name = "bench_size" if given.gigabytes <= 2 else f"bench_size_{given.gigabytes:g}_gib"
    name += "" if given.dtype == "float32" else f"_{given.dtype}"
    return save(name, result, better="higher") or int(not result["met"])


def arguments() -> argparse.Namespace:
    """What the command line says; --make, --use and --measure are for the children."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="frames' size as float32")
    parser.add_argument("--dtype", default="float32", choices=("float32", "int16"))
    parser.add_argument("--folder", type=Path, help="where the store is written meanwhile")
    for child in ("--make", "--use", "--measure"):
        parser.add_argument(child, type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    if given.make:
        make(given.make, given.gigabytes, given.dtype)
    elif given.use:
        use(given.use)
    elif given.measure:
        print(json.dumps(measure(given.measure)))
    else:
        sys.exit(main(given))
