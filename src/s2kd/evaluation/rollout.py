"""Roll-outs: a forecaster fed with its own output to several lead times, and whether it is stable.

The variables are listed in docs/scores.md; where a value is not finite its error is infinite.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from s2kd.core.errors import S2KDError
from s2kd.core.tensors import Batch
from s2kd.core.types import Statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import metrics as m
from s2kd.evaluation.climatology import Climatology, fields_at_windows
from s2kd.evaluation.score import Predict
from s2kd.models.forecasters import feed_back

BLOWN_UP = 4.0
"""A free forecast that has lost all skill but keeps the right variance errs twice as much as
climatology; twice that again is no weather of any kind."""


def long_windows(windows: WindowDataset, *, horizon: int) -> WindowDataset | None:
    """The windows of the same split and stride with `horizon` times the lead; None: too long."""
    dataset = windows.dataset
    if horizon < 2:
        raise S2KDError(f"roll-out: horizon must be at least 2 lead times, got {horizon}")
    steps = np.diff(windows.starts)
    length = windows.past + horizon * windows.lead
    longest = max((s.stop - s.first for s in dataset.splits[windows.split]), default=0)
    if longest < length or dataset.window is not None:
        return None
    return WindowDataset(
        dataset,
        windows.split,
        past=windows.past,
        lead=horizon * windows.lead,
        stride=int(steps.min()) if len(steps) else 1,
        device=windows.device,
    )


def roll_out(
    step: Predict,
    windows: WindowDataset,
    *,
    horizon: int,
    statistics: Statistics,
    climatology: Climatology,
    limit: float = BLOWN_UP,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Errors of forecasts to `horizon` lead times, each block made from the last.

    `step` makes one block; after the first it is given forecasts as its past. Where a stretch of
    the split is too short for the long windows they are skipped and counted; without any that is
    long enough, the result has no variables. `climatology`, of the training split, is the reference
    of what is stable, and `limit` is in variances about it.
    """
    extended = long_windows(windows, horizon=horizon)
    attributes = {"rollout_horizon": horizon, "rollout_limit": limit}
    if extended is None:
        attributes |= {"rollout_windows": 0, "rollout_skipped": len(windows)}
        return xr.Dataset(attrs=attributes)
    numbers = np.searchsorted(windows.starts, extended.starts)
    if not np.array_equal(windows.starts[numbers], extended.starts):
        raise AssertionError("the long windows do not begin where windows begin")
    grid = windows.dataset.grid
    mask = None if grid.mask is None else torch.from_numpy(grid.exists).to(windows.device)
    parts: dict[str, list[np.ndarray]] = {}
    done = 0
    with torch.no_grad():
        for batch in extended.batches(batch_size):
            index = torch.from_numpy(numbers[batch.index.cpu().numpy()]).to(batch.index)
            fields = {
                "forecast": _forecast(step, batch, index, extended).to(batch.future),
                "persistence": batch.past[:, -1:],
                "climatology": fields_at_windows(climatology, extended, batch.index),
            }
            for name, field in fields.items():
                squares = m.cell_mean((field - batch.future).double().square(), mask=mask)
                parts.setdefault(name, []).append(squares.cpu().numpy())
            done += len(batch.past)
            if progress is not None:
                progress(done, len(extended))
    squares = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    attributes |= {
        "rollout_windows": len(extended),
        "rollout_skipped": len(windows) - len(extended),
    }
    coordinates = {"step": np.arange(1, extended.lead + 1), "channel": list(grid.channels)}
    scores = _scores(squares, np.asarray(statistics.std), limit)
    return xr.Dataset(scores, coordinates, attributes)


def _forecast(
    step: Predict, batch: Batch, index: Int[Tensor, " batch"], extended: WindowDataset
) -> Float[Tensor, "batch lead channel height width"]:
    """Block after block; the true future is only ever compared with, never read."""

    def block(past: Tensor, number: int, done: int) -> Tensor:
        # the frames to come are not handed on: there is nothing in it to read
        unknown = torch.full_like(batch.future[:, done:], math.nan)
        return step(past, Batch(past=past, future=unknown, index=index))

    return feed_back(block, batch.past, steps=extended.lead, grid=extended.dataset.grid)


def _scores(
    squares: dict[str, Float[np.ndarray, "window step channel"]], std: np.ndarray, limit: float
) -> dict[str, object]:
    errors = {name: (values / std**2).mean(2) for name, values in squares.items()}
    mean = {name: values.mean(0) for name, values in errors.items()}
    # over all steps: what is usual at one hour may be hard to miss
    variance = float(mean["climatology"].mean())
    error = np.where(np.isfinite(errors["forecast"]), errors["forecast"], np.inf)
    growth = error.mean(0)
    rmse = np.sqrt(np.where(np.isfinite(squares["forecast"]), squares["forecast"], np.inf).mean(0))
    return {
        "rollout_mse": ("step", growth),
        "rollout_persistence_mse": ("step", mean["persistence"]),
        "rollout_climatology_mse": ("step", mean["climatology"]),
        "rollout_rmse": (("step", "channel"), rmse),
        "rollout_stable": float((growth <= limit * variance).all()),
        "rollout_finite": float(np.isfinite(error).all()),
        "rollout_climatology_variance": variance,
        "rollout_largest_ratio": growth.max() / variance if variance else math.nan,
        "rollout_beyond_limit": float((error > limit * variance).any(1).sum()),
        "rollout_ahead_of_persistence": _steps_ahead(growth, mean["persistence"]),
        "rollout_ahead_of_climatology": _steps_ahead(growth, mean["climatology"]),
    }


def _steps_ahead(error: np.ndarray, reference: np.ndarray) -> float:
    """The last step (1, …) up to which every error is below the reference's; 0: not even one."""
    behind = np.flatnonzero(~(error < reference))
    return float(behind[0] if len(behind) else len(error))
