"""All scores of 1,000 windows against the forecasts alone.

    python benchmarks/bench_evaluation.py [windows]

A student of 0.12 million parameters forecasts 4 frames of 32×64 cells; its scores are all metrics,
SSIM, spectra and events by window and lead. One thread, processor time. Exits 1 where the scores,
forecasts included, take more than four times the forecasts.
"""

import sys
import time

import numpy as np
import torch
from common import compare, save

from s2kd.core.recipe import Part
from s2kd.core.types import GridSpec
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.events import cell_events
from s2kd.evaluation.score import score
from s2kd.models.checkpoint import Setting, build_student

WANTED_RATIO, PAST, LEAD, HEIGHT, WIDTH, BATCH = 4.0, 4, 4, 32, 64, 32


def series(frames: int) -> Dataset:
    """Six-hourly waves that move, with noise."""
    rows, columns = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    step = np.arange(frames)[:, None, None]
    wave = np.sin(2 * np.pi * (columns - step) / WIDTH + rows / 8)
    noise = np.random.default_rng(0).standard_normal((frames, HEIGHT, WIDTH))
    values = (280 + 5 * wave + noise).astype(np.float32)[:, None]
    cut = frames // 3
    splits = {
        "train": (Stretch(first=0, stop=cut),),
        "val": (),
        "test": (Stretch(first=cut, stop=frames),),
    }
    return Dataset(
        name="waves",
        domain="weather",
        grid=GridSpec(
            channels=("t",),
            units=("K",),
            height=HEIGHT,
            width=WIDTH,
            step_seconds=21600.0,
            latitude=tuple(np.linspace(85, -85, HEIGHT)),
        ),
        frames=values,
        times=np.datetime64("2001-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h"),
        splits=splits,
    )


def main(windows: int = 1000) -> int:
    """Measure, print, save."""
    torch.set_num_threads(1)
    dataset = series(3 * (windows + PAST + LEAD - 1) // 2)
    test = WindowDataset(dataset, "test", past=PAST, lead=LEAD)
    known = statistics(dataset, lead=LEAD)
    setting = Setting(grid=dataset.grid, past=PAST, lead=LEAD, statistics=known)
    student = build_student(Part(name="unet", params={"width": 8}), setting).eval()
    climatology, events = Climatology.fit(dataset), cell_events(dataset)

    @torch.no_grad()
    def forecasts() -> None:
        for batch in test.batches(BATCH):
            student(batch.past)

    def scores() -> None:
        score(
            lambda past, batch: student(past).future,
            test,
            statistics=known,
            climatology=climatology,
            events=events,
        )

    ways = {"forecasts": forecasts, "scores": scores}
    seconds = compare(ways, rounds=3, clock=time.process_time)
    ratio = seconds["scores"] / seconds["forecasts"]
    result = {
        "what": f"all scores of {len(test)} windows, forecasts included, one thread",
        "peer": "the forecasts alone",
        "limit": "SSIM, then spectra",
        "ratio": ratio,
        "target": f"at most {WANTED_RATIO:g}",
        "met": ratio <= WANTED_RATIO,
        "seconds": seconds,
    }
    print(f"scores {seconds['scores']:.2f} s, forecasts {seconds['forecasts']:.2f} s")
    return save("bench_evaluation", result, better="lower") or int(ratio > WANTED_RATIO)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
