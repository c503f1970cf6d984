"""Contact sheets of a 32×64 window of two channels: s2kd's colour tables against Matplotlib.

    python benchmarks/bench_render.py [sheets]

The same eight maps with the same colours and ranges, one core, processor time, side by side;
Matplotlib reuses one figure and only hands it new values, which is the quickest it can do. Exits 1
below 200 sheets a second or below ten times Matplotlib's pace.
"""

import sys
import time
from functools import partial

import numpy as np
import torch
from common import compare, save

from s2kd.core.types import GridSpec, Past, Statistics
from s2kd.narration.narrators.kinds import kinds_of
from s2kd.narration.narrators.render import CHANGE_MAP, MAPS, Sheets, change_limit, png, value_range

WANTED_PACE, WANTED_RATIO, BY_MATPLOTLIB = 200.0, 10.0, 8


class Plotted:
    """The same sheet by Matplotlib's Agg: axes made once, values changed for every window."""

    def __init__(self, past: Past, *, size: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        grid, known = past.grid, past.statistics
        figure = Figure(figsize=(size / 100, size / 100), dpi=100)
        self.canvas, self.images = FigureCanvasAgg(figure), []
        axes = figure.subplots(2 * len(grid.channels), 2)
        for channel, kind in enumerate(kinds_of(grid, past.domain)):
            limit = change_limit(known, channel)
            for k, heading in enumerate(("first", "middle", "last", "change")):
                panel = axes[2 * channel + k // 2, k % 2]
                low, high = (-limit, limit) if k == 3 else value_range(known, channel)
                colours = CHANGE_MAP if k == 3 else MAPS.get(kind, "viridis")
                self.images.append(
                    panel.imshow(past.frames[0, channel], vmin=low, vmax=high, cmap=colours)
                )
                panel.set_title(heading, fontsize=6)
                panel.set_xticks([])
                panel.set_yticks([])
                if k in (2, 3):
                    figure.colorbar(self.images[-1], ax=panel)

    def __call__(self, past: Past) -> np.ndarray:
        """The pixels of one window's sheet."""
        steps, images = len(past.frames), iter(self.images)
        for channel in range(past.frames.shape[1]):
            first, middle, last = past.frames[[0, (steps - 1) // 2, steps - 1], channel]
            for values in (first, middle, last, last - first):
                next(images).set_data(values)
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def windows(count: int) -> list[Past]:
    """Smooth random weather that drifts, 12 frames of 2 channels on 32×64 cells."""
    rng = np.random.default_rng(0)
    grid = GridSpec(
        channels=("z500", "t850"), units=("m", "K"), height=32, width=64, step_seconds=21600.0
    )
    series = rng.standard_normal((count + 11, 2, 32, 64)).cumsum(0)
    series = (series + np.roll(series, 1, 2) + np.roll(series, 1, 3)).astype(np.float32)
    low, high = series.min((0, 2, 3)).tolist(), series.max((0, 2, 3)).tolist()
    known = Statistics(
        mean=(0.0, 0.0), std=(1.0, 1.0), minimum=tuple(low), maximum=tuple(high), quantiles={}
    )
    return [
        Past(frames=series[i : i + 12], grid=grid, domain="weather", statistics=known)
        for i in range(count)
    ]


def main(sheets: int = 200) -> int:
    """Time both, print and store; 0 where pace and ratio are reached."""
    torch.set_num_threads(1)
    pasts = windows(sheets)
    ours = Sheets()
    plotted = Plotted(pasts[0], size=ours.size)

    def draw(how: object, some: list[Past]) -> None:
        for past in some:
            how(past)

    seconds = compare(
        {
            "s2kd": partial(draw, ours, pasts),
            "s2kd with PNG": partial(draw, lambda past: png(ours(past)), pasts[:40]),
            "Matplotlib": partial(draw, plotted, pasts[:BY_MATPLOTLIB]),
        },
        rounds=3,
        clock=time.process_time,
    )
    pace = {
        "s2kd": len(pasts) / seconds["s2kd"],
        "s2kd with PNG": len(pasts[:40]) / seconds["s2kd with PNG"],
        "Matplotlib": BY_MATPLOTLIB / seconds["Matplotlib"],
    }
    ratio = pace["s2kd"] / pace["Matplotlib"]
    result = {
        "window": [12, 2, 32, 64],
        "sheet": ours.version,
        "sheets_a_second": pace,
        "ratio": ratio,
    }
    save("bench_render", result, packages=("matplotlib", "pillow"))
    print(", ".join(f"{name} {value:.0f} sheets/s" for name, value in pace.items()))
    print(f"ratio {ratio:.0f} (wanted {WANTED_RATIO:g}, and {WANTED_PACE:g} sheets/s)")
    return int(pace["s2kd"] < WANTED_PACE or ratio < WANTED_RATIO)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
