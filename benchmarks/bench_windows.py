"""Windows a second: one gather a batch against torch's DataLoader with two workers, side by side.

    python benchmarks/bench_windows.py [rounds]

Both give the same shuffled windows of a series in memory, in batches of 16. The loader's workers
are started before the clock and live on; seconds are wall time (its work is in other processes),
the least of interleaved rounds of one epoch each. Exits 1 where the ratio is below 3.
"""

import sys

import numpy as np
import torch
from common import compare, save
from torch.utils.data import DataLoader, Dataset

from s2kd.core.types import GridSpec
from s2kd.data.dataset import Dataset as Series
from s2kd.data.dataset import Stretch
from s2kd.data.windows import WindowDataset

WANTED_RATIO, BATCH, WORKERS = 3.0, 16, 2
CASES = {
    "24 h of air temperature": {"channels": 1, "height": 25, "width": 53, "past": 4, "lead": 4},
    "WeatherBench": {"channels": 2, "height": 32, "width": 64, "past": 12, "lead": 12},
}


class MapStyle(Dataset):
    """The same windows as torch's loader wants them: one at a time, by number."""

    def __init__(self, windows: WindowDataset) -> None:
        self._frames = torch.from_numpy(windows.dataset.frames)
        self._starts, self._past, self._lead = windows.starts, windows.past, windows.lead

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        start = int(self._starts[number])
        middle = start + self._past
        return self._frames[start:middle], self._frames[middle : middle + self._lead], number


def windows_of(
    *, channels: int, height: int, width: int, past: int, lead: int, count: int = 1600
) -> WindowDataset:
    """`count` training windows of seeded noise."""
    length = count + past + lead - 1
    shape = (length + 2, channels, height, width)
    frames = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    grid = GridSpec(
        channels=tuple(f"field{i}" for i in range(channels)),
        units=("1",) * channels,
        height=height,
        width=width,
        step_seconds=3600.0,
    )
    series = Series(
        name="noise",
        domain="generic",
        grid=grid,
        frames=frames,
        times=np.datetime64("2000-01-01", "ns") + np.arange(len(frames)) * np.timedelta64(1, "h"),
        splits={
            "train": (Stretch(first=0, stop=length),),
            "val": (Stretch(first=length, stop=length + 1),),
            "test": (Stretch(first=length + 1, stop=length + 2),),
        },
    )
    return WindowDataset(series, "train", past=past, lead=lead)


def measure(name: str, rounds: int) -> dict:
    """Windows a second of both ways, and how far apart what they give is (it must be nothing)."""
    windows = windows_of(**CASES[name])
    generator = torch.Generator()
    loader = DataLoader(
        MapStyle(windows),
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        generator=generator,
    )

    def gathered() -> int:
        order = torch.randperm(len(windows))
        return sum(len(windows.gather(index).past) for index in order.split(BATCH))

    def loaded() -> int:
        return sum(len(past) for past, _, _ in loader)

    past, future, index = next(iter(loader))
    same = windows.gather(index)
    assert torch.equal(past, same.past), "the two ways differ"
    assert torch.equal(future, same.future), "the two ways differ"
    seconds = compare({"gather": gathered, "loader": loaded}, rounds=rounds)
    each = {key: len(windows) / value for key, value in seconds.items()}
    return {
        "case": name,
        **CASES[name],
        "windows_a_second": each,
        "ratio": each["gather"] / each["loader"],
    }


def main(rounds: int = 9) -> int:
    """Measure both sizes, print and store the ratios; 0 where the target is met."""
    torch.set_num_threads(1)
    print(f"{'windows of':>24} {'gather/s':>9} {'loader/s':>9} {'ratio':>6}")
    cases = []
    for name in CASES:
        case = measure(name, rounds)
        cases.append(case)
        each = case["windows_a_second"]
        print(f"{name:>24} {each['gather']:9.0f} {each['loader']:9.0f} {case['ratio']:6.2f}")
    worst = min(case["ratio"] for case in cases)
    result = {
        "what": f"windows a second, one gather a batch over DataLoader with {WORKERS} workers",
        "peer": "torch's DataLoader with two workers",
        "limit": "memory bandwidth",
        "batch": BATCH,
        "clock": "wall time, least of interleaved rounds",
        "rounds": rounds,
        "cases": cases,
        "ratio": worst,
        "target": f"at least {WANTED_RATIO:g}",
        "met": worst >= WANTED_RATIO,
    }
    lost = save("bench_windows", result, better="higher")
    print(f"least ratio {worst:.2f} (wanted at least {WANTED_RATIO:g})")
    return lost or int(worst < WANTED_RATIO)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
