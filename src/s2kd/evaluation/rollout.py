"""Long horizons: a forecaster fed with its own output, and whether that stays sound."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from s2kd.core import spectral
from s2kd.core.types import Batch, GridSpec, S2KDError, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import metrics as m
from s2kd.evaluation.cell_events import usual_of
from s2kd.evaluation.climatology import Climatology
from s2kd.models.forecasters import feed_back

Step = Callable[[Tensor, Batch, int], Tensor]
"""(past, window, block) to future: block 0 sees the window's own past, later ones forecasts.

`window.index` counts the windows of the usual length, so that a reader finds its words for block
0. What it gives may be longer than one block; persistence and climatology give all frames at once.
"""

BLOWN_UP = 4.0
"""A free forecast that has lost all skill but keeps the right variance errs twice as much as
climatology; twice that again is no weather of any kind."""


def persistence_step(lead: int) -> Step:
    """The last frame of the past, `lead` times, and again."""
    return lambda past, window, block: past[:, -1:].expand(-1, lead, -1, -1, -1)


def climatology_step(climatology: Climatology, windows: WindowDataset, *, horizon: int) -> Step:
    """What is usual at every valid time, all blocks at once."""

    def step(past: Tensor, window: Batch, block: int) -> Tensor:
        lead = horizon * windows.lead
        return usual_of(climatology, windows, window.index, lead=lead)[0]

    return step


def long_windows(windows: WindowDataset, *, horizon: int) -> WindowDataset | None:
    """The windows of the same split and stride with `horizon` times the lead; None: too long."""
    dataset = windows.dataset
    if horizon < 2:
        raise S2KDError(f"roll-out: horizon must be at least 2 lead times, got {horizon}")
    apart = np.diff(windows.starts)
    stride = int(apart.min()) if len(apart) else 1
    length = windows.past + horizon * windows.lead
    longest = max((s.stop - s.first for s in dataset.splits[windows.split]), default=0)
    if longest < length or dataset.window is not None:
        return None
    return WindowDataset(
        dataset,
        windows.split,
        past=windows.past,
        lead=horizon * windows.lead,
        stride=stride,
        device=windows.device,
    )


def roll_out(
    step: Step,
    windows: WindowDataset,
    *,
    horizon: int,
    statistics: Statistics,
    climatology: Climatology,
    limit: float = BLOWN_UP,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Errors and spectra of forecasts to `horizon` lead times, each block made from the last.

    `windows` are those of one lead time; where a stretch of the split is too short for the long
    ones they are skipped and counted. As plain data, one number a step, None where a forecast was
    not finite: `mse` (normalised, mean over windows, channels and cells) beside that of
    persistence and climatology; `rmse` by channel in its unit; `spectra` at the last step of each
    block. `stable` says that every value was finite and `mse` stayed below `limit` times the
    variance about the climatology, at every step; `beyond_limit` counts the windows of which some
    step did not. `ahead_of_…` is the last step up to which the error is below the reference's.
    `window_mse` is each window's mean over the last block.
    """
    whole = long_windows(windows, horizon=horizon)
    about = {"horizon": horizon, "steps": horizon * windows.lead, "limit": limit}
    if whole is None:
        note = f"no stretch of the split has {windows.past + about['steps']} frames in a row"
        if windows.dataset.window is not None:
            note = "the data come in windows of their own length"
        return {**about, "windows": 0, "skipped": len(windows), "stable": None, "note": note}
    place = np.searchsorted(windows.starts, whole.starts)
    if not np.array_equal(windows.starts[place], whole.starts):
        raise AssertionError("the long windows do not begin where windows begin")
    tally = _Growth(windows, whole, statistics, climatology)
    with torch.no_grad():
        for window in whole.batches(batch_size):
            index = torch.from_numpy(place[window.index.cpu().numpy()]).to(window.index)
            forecast = _rolled(step, window, index, whole)
            tally.add(forecast.to(window.future), window)
            if progress is not None:
                progress(tally.done, len(whole))
    found = tally.found(limit)
    return {**about, "windows": len(whole), "skipped": len(windows) - len(whole), **found}


def _rolled(
    step: Step, window: Batch, index: Int[Tensor, " batch"], whole: WindowDataset
) -> Float[Tensor, "batch lead channel height width"]:
    """Block after block; the true future is only ever compared with, never read."""

    def block(past: Tensor, number: int, made: int) -> Tensor:
        # the frames to come are not handed on: there is nothing in it to read
        unknown = torch.full_like(window.future[:, made:], math.nan)
        return step(past, Batch(past=past, future=unknown, index=index), number)

    return feed_back(block, window.past, steps=whole.lead, grid=whole.dataset.grid)


def power_spectrum(
    frames: Float[Tensor, "batch lead channel height width"], grid: GridSpec, mask: Tensor | None
) -> Float[Tensor, "batch lead channel wavenumber"]:
    """Radial power of each frame; cells that do not exist hold the frame's mean.

    They have no wave of their own, and the mean is removed anyway.
    """
    if mask is not None:
        frames = torch.where(mask, frames, m.cell_mean(frames, mask=mask)[..., None, None])
    return spectral.radial_power_spectrum(frames, periodic=(False, grid.wraps))


class _Growth:
    """Numbers of each window and step; spectra summed over windows."""

    def __init__(
        self,
        windows: WindowDataset,
        whole: WindowDataset,
        known: Statistics,
        climatology: Climatology,
    ) -> None:
        grid, device = windows.dataset.grid, windows.device
        self.whole, self.grid, self.climatology, self.done = whole, grid, climatology, 0
        self.mask = None if grid.mask is None else torch.from_numpy(grid.exists).to(device)
        self.scale = np.array(known.std)
        self.ends = list(range(windows.lead - 1, whole.lead, windows.lead))
        self.block = windows.lead
        self.squares: dict[str, list[np.ndarray]] = {}
        self.spectra: list[Tensor | float] = [0.0, 0.0]

    def add(self, forecast: Tensor, window: Batch) -> None:
        truth = window.future
        usual, _ = usual_of(self.climatology, self.whole, window.index)
        others = {"forecast": forecast, "persistence": window.past[:, -1:], "climatology": usual}
        for name, field in others.items():
            squares = m.cell_mean((field - truth).double().square(), mask=self.mask)
            self.squares.setdefault(name, []).append(squares.cpu().numpy())
        if min(self.grid.height, self.grid.width) >= 4:
            for side, field in enumerate((forecast, truth)):
                power = power_spectrum(field[:, self.ends], self.grid, self.mask)
                self.spectra[side] = self.spectra[side] + power.double().sum(0).cpu()
        self.done += len(truth)

    def found(self, limit: float) -> dict[str, Any]:
        """What the numbers come to."""
        squares = {name: np.concatenate(parts) for name, parts in self.squares.items()}
        normal = {name: (s / self.scale**2).mean(2) for name, s in squares.items()}
        mean = {name: values.mean(0) for name, values in normal.items()}
        # over all steps: what is usual at one hour may be hard to miss
        variance = float(mean["climatology"].mean())
        error = np.where(np.isfinite(normal["forecast"]), normal["forecast"], np.inf)
        channels = {
            channel: _listed(np.sqrt(squares["forecast"][..., c].mean(0)))
            for c, channel in enumerate(self.grid.channels)
        }
        return {
            "mse": _listed(mean["forecast"]),
            "persistence_mse": _listed(mean["persistence"]),
            "climatology_mse": _listed(mean["climatology"]),
            "rmse": channels,
            "stable": bool((error.mean(0) <= limit * variance).all()),
            "finite": bool(np.isfinite(error).all()),
            "climatology_variance": variance,
            "largest_ratio": _plain(error.mean(0).max() / variance) if variance else None,
            "beyond_limit": int((error > limit * variance).any(1).sum()),
            "ahead_of_persistence": _ahead(error.mean(0), mean["persistence"]),
            "ahead_of_climatology": _ahead(error.mean(0), mean["climatology"]),
            "window_mse": _listed(normal["forecast"][:, -self.block :].mean(1)),
            "spectra": self._spectra(),
        }

    def _spectra(self) -> dict[str, Any]:
        if isinstance(self.spectra[0], float):
            return {}
        # (channel, block, wavenumber)
        forecast, truth = ((side / self.done).movedim(1, 0) for side in self.spectra)
        distance = spectral.log_spectral_distance(forecast, truth)
        size = {"height": self.grid.height, "width": self.grid.width}
        ratio = spectral.high_frequency_ratio(forecast, truth, **size)
        return {
            channel: {
                "wavenumber": list(range(truth.shape[-1])),
                "lead": [end + 1 for end in self.ends],
                "forecast": _listed(forecast[c].numpy()),
                "truth": _listed(truth[c].numpy()),
                "log_spectral_distance": _listed(distance[c].numpy()),
                "high_frequency_ratio": _listed(ratio[c].numpy()),
            }
            for c, channel in enumerate(self.grid.channels)
        }


def _ahead(error: np.ndarray, reference: np.ndarray) -> int:
    """The last step (1, …) up to which every error is below the reference's; 0: not even one."""
    behind = np.flatnonzero(~(error < reference))
    return int(behind[0]) if len(behind) else len(error)


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _listed(values: np.ndarray | Sequence[float]) -> list[Any]:
    return [_listed(v) if np.ndim(v) else _plain(float(v)) for v in values]
