"""Ways to take a training step of the U-Net on this processor, in units of today's step.

    python benchmarks/bench_step.py [rounds]

Forward, backward and Adam on 16 windows of 25×53 cells, 4 to 4 frames, one thread: as s2kd trains
(channels_last, float32), contiguous, with fused Adam, and in bfloat16 by autocast. The ratio is
bfloat16's at 5.1 million parameters: below 1 only where the processor multiplies bfloat16.
"""

import sys
import time
from collections.abc import Callable

import torch
from common import compare, save

from s2kd.models.backbones import backbones
from s2kd.pipeline.contracts import small_grid

PAST, BATCH, HEIGHT, WIDTH = 4, 16, 25, 53


WAYS = ("as trained", "contiguous", "fused Adam", "bfloat16")
WIDTHS = (8, 52)


def step(width: int, way: str) -> Callable[[], None]:
    """One training step of a U-Net in that way."""
    torch.manual_seed(0)
    grid = small_grid(HEIGHT, WIDTH, channels=1)
    model = backbones.build("unet", grid, past=PAST, lead=PAST, width=width)
    layout = torch.contiguous_format if way == "contiguous" else torch.channels_last
    model = model.to(memory_format=layout).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=way == "fused Adam")
    past = torch.randn(BATCH, PAST, 1, 32, 56)  # padded as a student's wrapping does

    def take() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "bfloat16"):
            loss = model.decode(*model.encode(past)).float().square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    return take


def main(rounds: int = 5) -> int:
    """Measure, print, save."""
    torch.set_num_threads(1)
    rows, ratios = [], {}
    for width in WIDTHS:
        ways = {way: step(width, way) for way in WAYS}
        seconds = compare(ways, rounds=rounds, clock=time.process_time)
        ratios = {way: seconds[way] / seconds["as trained"] for way in WAYS}
        numbers = {way: f"{ratio:.2f}" for way, ratio in ratios.items()}
        milliseconds = f"{1000 * seconds['as trained']:.0f}"
        rows.append({"U-Net of width": width, "ms as trained": milliseconds, **numbers})
        print(rows[-1])
    result = {
        "what": "training step of the paper's U-Net in bfloat16, one thread",
        "peer": "the step as trained: float32, channels_last",
        "limit": "convolutions; whether the processor multiplies bfloat16",
        "ratio": ratios["bfloat16"],
        "target": "below 1 with avx512_bf16",
        "met": ratios["bfloat16"] < 1,
        "table": rows,
    }
    return save("bench_step", result, better="lower")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
