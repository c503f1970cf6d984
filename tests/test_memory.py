"""What is held in memory does not grow with the length of a series that lies on disk."""

import tracemalloc

import numpy as np
import torch

from s2kd.core.types import GridSpec
from s2kd.data import statistics as normalise
from s2kd.data.dataset import Dataset, StoredFrames, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset

MEGABYTE = 2**20


def on_disk(folder, length: int) -> Dataset:
    """`length` frames of 16 KiB in a file."""
    frames = np.random.default_rng(0).standard_normal((length, 1, 64, 64), dtype=np.float32)
    np.save(folder / f"{length}.npy", frames)
    cut = length - 40
    splits = {
        "train": (Stretch(first=0, stop=cut),),
        "val": (Stretch(first=cut, stop=cut + 20),),
        "test": (Stretch(first=cut + 20, stop=length),),
    }
    return Dataset(
        name="long",
        domain="generic",
        grid=GridSpec(channels=("a",), units=("1",), height=64, width=64, step_seconds=1.0),
        frames=StoredFrames(folder / f"{length}.npy"),
        times=np.datetime64("2000-01-01", "ns") + np.arange(length) * np.timedelta64(1, "s"),
        splits=splits,
    )


def peak(work) -> int:
    """The most bytes that were held at once while `work` ran, by NumPy too."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_statistics_hold_a_few_blocks_whatever_the_length(tmp_path, monkeypatch):
    monkeypatch.setattr(normalise, "SAMPLED_VALUES", 40_000)
    whole = normalise.training_blocks
    monkeypatch.setattr(normalise, "training_blocks", lambda data: whole(data, values=2**16))
    short, long = on_disk(tmp_path, 400), on_disk(tmp_path, 4000)  # 6 and 63 MiB
    held = [peak(lambda data=data: statistics(data, lead=2)) for data in (short, long)]
    assert max(held) < 12 * MEGABYTE
    assert held[1] < held[0] + 2 * MEGABYTE


def test_an_epoch_of_batches_holds_a_few_batches_whatever_the_length(tmp_path):
    data = on_disk(tmp_path, 4000)
    windows = WindowDataset(data, "train", past=2, lead=2)

    def epoch() -> None:
        for index in torch.randperm(len(windows)).split(16):
            windows.gather(index)

    assert peak(epoch) < 8 * MEGABYTE  # a batch is 1 MiB
