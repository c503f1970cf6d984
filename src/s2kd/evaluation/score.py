"""Scores of a forecaster on a split, as one xarray.Dataset; docs/scores.md lists its variables."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from s2kd.core import spectral
from s2kd.core.errors import S2KDError
from s2kd.core.tensors import Batch
from s2kd.core.types import GridSpec, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import metrics as m
from s2kd.evaluation.climatology import Climatology, fields_at_windows
from s2kd.evaluation.events import TWO_SIDED, CellEvents, event_counter

HEADLINE = (
    "mse", "mae", "rmse", "ssim", "mse_sum_per_frame", "mae_sum_per_frame",
    "latitude_weighted_rmse", "relative_quantile_error", "relative_quantile_error_low",
    "log_spectral_distance", "high_frequency_ratio",
)  # fmt: skip
"""Scalar scores of a model."""

SCORES_VERSION = 5
"""Of what is measured; models of a run scored by another version are scored again."""

Predict = Callable[[Tensor, Batch], Tensor]
"""(past, batch) to future, (batch, past | lead, channel, height, width), all physical.

In a roll-out the future may be longer than one lead time: climatology gives all frames at once."""


def score(
    predict: Predict,
    windows: WindowDataset,
    *,
    statistics: Statistics,
    climatology: Climatology | None = None,
    events: CellEvents | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Every score of one forecaster on all `windows`, in one pass of whole batches.

    `predict` maps past frames, physical units, to a forecast of `windows.lead` frames; only numbers
    per frame are kept in memory. `statistics`, of the training split, give unit, data range and
    thresholds; `climatology` adds anomaly correlation, `events` (`events.cell_events`) counts of
    rare events. Raises S2KDError where a forecast has the wrong shape or is not finite.
    """
    measure = _measures(windows, statistics, climatology, events)
    parts: dict[str, list[np.ndarray]] = {}
    power: list[Tensor] = []
    done = 0
    with torch.no_grad():
        for batch in windows.batches(batch_size):
            forecast = predict(batch.past, batch)
            _check(forecast, batch)
            forecast = forecast.to(batch.future)
            for name, values in measure(forecast, batch).items():
                parts.setdefault(name, []).append(values.cpu().numpy())
            if min(forecast.shape[-2:]) >= 4:
                power.append(_power(forecast, batch.future, windows.dataset.grid, statistics))
                power = [sum(power[1:], power[0])]
            done += len(batch.past)
            if progress is not None:
                progress(done, len(windows))
    frames = xr.Dataset(
        {name: (DIMS[: arrays[0].ndim], np.concatenate(arrays)) for name, arrays in parts.items()},
        _coordinates(windows, events),
    )
    scale = xr.DataArray(np.asarray(statistics.std, np.float64), dims="channel")
    frames = frames.assign(squared=frames["mse"] * scale**2, absolute=frames["mae"] * scale)
    scores = xr.merge(
        [
            _headline(frames),
            _by_lead(frames, scale),
            _by_run(frames, windows),
            _counts(frames, events),
        ],
        compat="identical",
        join="exact",
    )
    if power:
        scores = scores.assign(_spectra(power[0] / done, windows.dataset.grid, scale.values))
        for name in ("log_spectral_distance", "high_frequency_ratio"):
            scores[name] = scores[f"{name}_by_lead"].mean()
    elements = len(windows.dataset.grid.channels) * int(windows.dataset.grid.exists.sum())
    scores["mse_sum_per_frame"] = scores["mse"] * elements
    scores["mae_sum_per_frame"] = scores["mae"] * elements
    if "weighted" in frames:
        scores["latitude_weighted_rmse"] = np.sqrt(frames["weighted"].mean())
    return scores.assign_attrs(_conventions(windows, climatology))


DIMS = ("window", "lead", "channel", "event")


def _check(forecast: Tensor, batch: Batch) -> None:
    if forecast.shape != batch.future.shape:
        raise S2KDError(
            f"the forecast has shape {tuple(forecast.shape)}, the truth {tuple(batch.future.shape)}"
        )
    finite = forecast.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        number = int(batch.index[~finite.to(batch.index.device)][0])
        raise S2KDError(f"the forecast of test window {number} is not finite; train it again")


def _measures(
    windows: WindowDataset,
    statistics: Statistics,
    climatology: Climatology | None,
    events: CellEvents | None,
) -> Callable[[Tensor, Batch], Mapping[str, Tensor]]:
    """A function of (forecast, batch) to numbers per frame and channel."""
    grid, device = windows.dataset.grid, windows.device
    mask = None if grid.mask is None else torch.from_numpy(grid.exists).to(device)
    rows = None if grid.latitude is None else m.latitude_weights(grid.latitude).to(device)
    std, low, high = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (statistics.std, statistics.minimum, statistics.maximum)
    )
    size = m.ssim_window(grid.height, grid.width)
    count = event_counter(events, device) if events is not None else None
    sides = {"relative_quantile_error": 1}
    if windows.dataset.domain in TWO_SIDED:
        sides["relative_quantile_error_low"] = -1

    def measure(forecast: Tensor, batch: Batch) -> dict[str, Tensor]:
        truth = batch.future
        # squares of the unit itself may lie outside of float32
        error = (forecast - truth) / std
        values = {
            "mse": m.cell_mean(error.square(), mask=mask),
            "mae": m.cell_mean(error.abs(), mask=mask),
        }
        if rows is not None:
            values["weighted"] = m.cell_mean(error.square(), mask=mask, weights=rows)
        if size >= 3:
            scaled = ((field - low) / (high - low) for field in (forecast, truth))
            values["ssim"] = m.ssim(*scaled, data_range=1.0, size=size, mask=mask)
        for name, sign in sides.items():
            values[name] = m.relative_quantile_error(
                sign * forecast, sign * truth, floor=std.flatten(), mask=mask
            )
        if climatology is not None:
            normal = fields_at_windows(climatology, windows, batch.index)
            products = m.anomaly_products(
                *(field / std for field in (forecast, truth, normal)), mask=mask, weights=rows
            )
            names = ("anomaly_product", "anomaly_forecast", "anomaly_truth")
            values |= dict(zip(names, products, strict=True))
        values = {name: value.double() for name, value in values.items()}
        return values | (count(forecast, truth) if count is not None else {})

    return measure


def _power(
    forecast: Tensor, truth: Tensor, grid: GridSpec, statistics: Statistics
) -> Float[Tensor, "2 channel lead wavenumber"]:
    """Radial power of normalised forecast and truth, summed over the batch.

    Cells that do not exist hold the frame's mean: they have no wave, and the mean is removed.
    """
    mean, std = (
        torch.tensor(values, device=forecast.device)[:, None, None]
        for values in (statistics.mean, statistics.std)
    )
    fields = (torch.stack([forecast, truth]) - mean) / std
    if grid.mask is not None:
        mask = torch.from_numpy(grid.exists).to(fields.device)
        fields = torch.where(mask, fields, m.cell_mean(fields, mask=mask)[..., None, None])
    power = spectral.radial_power_spectrum(fields, periodic=(False, grid.wraps))
    return power.double().sum(1).transpose(1, 2).cpu()


def _coordinates(windows: WindowDataset, events: CellEvents | None) -> dict[str, object]:
    grid = windows.dataset.grid
    coordinates: dict[str, object] = {
        "lead": np.arange(1, windows.lead + 1),
        "channel": list(grid.channels),
        "unit": ("channel", list(grid.units)),
    }
    if events is not None:
        coordinates["event"] = list(events.names)
    return coordinates


def _headline(frames: xr.Dataset) -> xr.Dataset:
    """Means over everything, and the normalised error of each window."""
    mse, mae = frames["mse"].mean(), frames["mae"].mean()
    if float(mae) ** 2 > float(mse) * (1 + 1e-6):
        raise AssertionError(f"MAE² = {float(mae) ** 2} exceeds MSE = {float(mse)}")
    names = ("relative_quantile_error", "relative_quantile_error_low")
    values = {name: frames[name].mean() for name in names if name in frames}
    values |= {"mse": mse, "mae": mae, "rmse": np.sqrt(mse)}
    values["ssim"] = frames["ssim"].mean() if "ssim" in frames else xr.DataArray(math.nan)
    values["window_mse"] = frames["mse"].mean(("lead", "channel"))
    values["window_squared_error"] = frames["squared"]
    return xr.Dataset(values)


def _by_lead(frames: xr.Dataset, scale: xr.DataArray) -> xr.Dataset:
    mean = frames.mean("window")
    values = {
        "mse": mean["mse"],
        "rmse": np.sqrt(mean["squared"]),
        "mae": mean["absolute"],
        **{name: mean[name] for name in HEADLINE[3:] if name in mean},
    }
    if "weighted" in mean:
        values["latitude_weighted_rmse"] = np.sqrt(mean["weighted"]) * scale
    if "anomaly_product" in mean:
        norm = np.sqrt(mean["anomaly_forecast"] * mean["anomaly_truth"])
        # the climatology itself has no anomaly, and so no correlation
        values["acc"] = (mean["anomaly_product"] / norm).where(norm > 0)
    return xr.Dataset({f"{name}_by_lead": value for name, value in values.items()})


def _by_run(frames: xr.Dataset, windows: WindowDataset) -> xr.Dataset:
    groups = windows.groups
    names = list(dict.fromkeys(groups))
    if names == [""]:
        return xr.Dataset()
    errors = frames.drop_dims("event", errors="ignore")
    runs = [_headline(errors.isel(window=np.flatnonzero(groups == name))) for name in names]
    metrics = ("mse", "mae", "rmse", "ssim")
    values = {f"{n}_by_run": ("run", [float(run[n]) for run in runs]) for n in metrics}
    counts = np.array([run.sizes["window"] for run in runs], np.int32)
    return xr.Dataset({**values, "windows_by_run": ("run", counts)}, {"run": names})


def _counts(frames: xr.Dataset, events: CellEvents | None) -> xr.Dataset:
    if events is None:
        return xr.Dataset()
    cells = events.active.sum((-2, -1)).T.astype(np.int32)
    return frames[["hits", "false_alarms", "observed"]].assign(
        event_cells=(("channel", "event"), cells)
    )


def _spectra(
    power: Float[Tensor, "2 channel lead wavenumber"],
    grid: GridSpec,
    scale: Float[np.ndarray, " channel"],
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    forecast, truth = power
    by_lead = {
        "log_spectral_distance": spectral.log_spectral_distance(forecast, truth),
        "high_frequency_ratio": spectral.high_frequency_ratio(
            forecast, truth, height=grid.height, width=grid.width
        ),
    }
    dims = ("lead", "channel", "wavenumber")
    return {
        "wavenumber": (("wavenumber",), np.arange(power.shape[-1])),
        "spectrum_forecast": (dims, forecast.transpose(0, 1).numpy() * scale[:, None] ** 2),
        "spectrum_truth": (dims, truth.transpose(0, 1).numpy() * scale[:, None] ** 2),
        **{f"{name}_by_lead": (dims[:2], v.T.numpy()) for name, v in by_lead.items()},
    }


def _conventions(windows: WindowDataset, climatology: Climatology | None) -> dict[str, object]:
    grid = windows.dataset.grid
    size = m.ssim_window(grid.height, grid.width)
    gaussian = f"Gaussian {size}×{size}, σ 1.5, scaled to 0..1 by training extremes"
    return {
        "windows": len(windows),
        "past": windows.past,
        "lead": windows.lead,
        "step_seconds": grid.step_seconds,
        "overlap": overlap(windows),
        "windows_per_time": windows.windows_per_time,
        "cells": int(grid.exists.sum()),
        "normalised": "divided by the training standard deviation of each channel",
        "ssim": gaussian if size >= 3 else "",
        "climatology": climatology.kind if climatology is not None else "",
        "spectra": "Hann taper along axes that do not wrap, mean removed; at every lead",
    }


def overlap(windows: WindowDataset) -> int:
    """How many consecutive windows share frames."""
    steps = np.diff(windows.starts)
    stride = int(steps.min()) if len(steps) else 1
    return -(-(windows.past + windows.lead) // stride)


def persistence(lead: int) -> Predict:
    """The forecast that nothing changes: the last frame of the past, `lead` times."""

    def predict(past: Tensor, batch: Batch) -> Tensor:
        return past[:, -1:].expand(-1, lead, -1, -1, -1)

    return predict


def climatology_forecast(
    climatology: Climatology, windows: WindowDataset, *, horizon: int = 1
) -> Predict:
    """The climatology at each valid time of `horizon` lead times; it ignores the past."""

    def predict(past: Tensor, batch: Batch) -> Tensor:
        lead = horizon * windows.lead
        return fields_at_windows(climatology, windows, batch.index, lead=lead).to(past)

    return predict
