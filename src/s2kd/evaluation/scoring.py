"""Scoring a forecaster on a split: one pass, every metric, by channel, lead time and group."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2kd.core import spectral
from s2kd.core.hardware import hardware, latency, versions
from s2kd.core.types import Batch, S2KDError, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import extremes as rare
from s2kd.evaluation import metrics as m
from s2kd.evaluation.cell_events import TWO_SIDED, CellEvent, EventTally, excess, usual_of
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.rollout import power_spectrum, roll_out

__all__ = [
    "Scores",
    "climatology_forecast",
    "gap_closed",
    "hardware",
    "latency",
    "persistence",
    "result_row",
    "roll_out",
    "score",
    "versions",
]

SCORES_VERSION = 3
"""Of what is measured; results of another version are made again when a run is evaluated."""

Predict = Callable[[Tensor, Batch], Tensor]
"""(past, window) to future, (batch, past | lead, channel, height, width), all physical."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What was measured on one split, as plain data. A score that is undefined is None.

    `metrics` is the headline. Its `mse`, `mae` and `rmse` are means over every window, lead,
    channel and existing cell, each channel divided by its training standard deviation; `ssim` is
    the mean over frames, each channel scaled to 0..1 by its training extremes, data range 1;
    `…_sum_per_frame` are the same errors summed over channels and cells of a frame.
    `physical` has `rmse`, `mae` (and latitude-weighted ones) per channel in its unit. `by_lead` is
    per channel, one number a lead; `by_group` per run or environment. `spectra` holds mean power
    by wavenumber at every lead. `extremes` counts events beyond one threshold a channel,
    `cell_extremes` (see `cell_events.EventTally.scores`) those beyond every cell's own, by lead
    and window. `peaks` compares the highest value of each window's forecast with that of its
    truth. `window_mse` is each window's own `mse`. `conventions` says which windows, ranges and
    data were used. What came later than the first version is empty where an old file lacks it.
    """

    metrics: dict[str, float | None]
    physical: dict[str, dict[str, Any]]
    by_lead: dict[str, dict[str, list[float | None]]]
    by_group: dict[str, dict[str, float | None]]
    spectra: dict[str, dict[str, Any]]
    extremes: dict[str, dict[str, dict[str, float | None]]]
    window_mse: list[float]
    conventions: dict[str, Any]
    cell_extremes: dict[str, Any] = field(default_factory=dict)
    peaks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Scores":
        """The inverse of `to_dict`."""
        known = dataclasses.fields(cls)
        needed = [f.name for f in known if f.default_factory is dataclasses.MISSING]
        missing = [name for name in needed if name not in plain]
        if missing:
            raise S2KDError(f"scores: {', '.join(missing)} missing; score the model again")
        return cls(**{f.name: plain[f.name] for f in known if f.name in plain})


def score(
    predict: Predict,
    windows: WindowDataset,
    *,
    statistics: Statistics,
    climatology: Climatology | None = None,
    cell_events: Sequence[CellEvent] = (),
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Every metric of one forecaster on all `windows`, in one pass of whole batches.

    `statistics` are those of the training split: they give the normalised unit, the data range
    and the thresholds of events. `climatology` adds anomaly correlation (ACC), `cell_events`
    (`cell_events.cell_events` of the training split) the scores of events by cell. `progress` is
    told (windows done, windows in all). Only the numbers of each frame are kept, never the frames.
    Raises S2KDError where a forecast has the wrong shape or is not finite.
    """
    tally = _Tally(windows, statistics, climatology, cell_events)
    with torch.no_grad():
        for window in windows.batches(batch_size):
            forecast = predict(window.past, window)
            _check(forecast, window)
            tally.add(forecast.to(window.future), window)
            if progress is not None:
                progress(tally.done, len(windows))
    return tally.scores()


def _check(forecast: Tensor, window: Batch) -> None:
    if forecast.shape != window.future.shape:
        raise S2KDError(
            f"the forecast has shape {tuple(forecast.shape)}, "
            f"the truth {tuple(window.future.shape)}"
        )
    finite = forecast.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        number = int(window.index[~finite.to(window.index.device)][0])
        raise S2KDError(f"the forecast of test window {number} is not finite; train it again")


class _Tally:
    """Numbers of each frame, and sums where frames are pooled."""

    def __init__(
        self,
        windows: WindowDataset,
        known: Statistics,
        climatology: Climatology | None,
        cell_events: Sequence[CellEvent],
    ) -> None:
        self.windows, self.climatology, self.done = windows, climatology, 0
        grid, device = windows.dataset.grid, windows.device
        self.grid = grid
        self.mask = None if grid.mask is None else torch.from_numpy(grid.exists).to(device)
        self.rows = None if grid.latitude is None else m.latitude_weights(grid.latitude).to(device)
        self.std = torch.tensor(known.std, device=device)
        self.low = torch.tensor(known.minimum, device=device)[:, None, None]
        self.range = (torch.tensor(known.maximum, device=device) - self.low.flatten())[
            :, None, None
        ]
        self.size = m.ssim_window(grid.height, grid.width)
        self.events = rare.events(known)
        self.counts: dict[str, tuple[rare.Contingency, ...]] = {}
        self.frames: dict[str, list[np.ndarray]] = {}
        self.by_cell = EventTally(cell_events, lead=windows.lead, device=device)
        self.two_sided = windows.dataset.domain in TWO_SIDED
        self.spectra: list[Tensor | float] = [0.0, 0.0]

    def add(self, forecast: Tensor, window: Batch) -> None:
        truth = window.future
        error = forecast - truth
        self._keep("squared", m.cell_mean(error.square(), mask=self.mask))
        self._keep("absolute", m.cell_mean(error.abs(), mask=self.mask))
        if self.rows is not None:
            weighted = m.cell_mean(error.square(), mask=self.mask, weights=self.rows)
            self._keep("weighted", weighted)
        if self.size >= 3:
            one, other = ((x - self.low) / self.range for x in (forecast, truth))
            self._keep("ssim", m.ssim(one, other, data_range=1.0, size=self.size, mask=self.mask))
        self._keep(
            "quantile",
            rare.relative_quantile_error(forecast, truth, floor=self.std, mask=self.mask),
        )
        if self.two_sided:
            self._keep(
                "quantile_low",
                rare.relative_quantile_error(-forecast, -truth, floor=self.std, mask=self.mask),
            )
        for name, side in (("peak_forecast", forecast), ("peak_truth", truth)):
            shown = side if self.mask is None else side.masked_fill(~self.mask, -math.inf)
            self._keep(name, shown.amax((-2, -1)))
        change = None
        if self.climatology is not None:
            usual, usual_last = usual_of(self.climatology, self.windows, window.index)
            if self.by_cell.wants_change:
                last = window.past[:, -1:]
                one, other = (excess(x, last, usual, usual_last) for x in (forecast, truth))
                change = one, other
            products = m.anomaly_products(forecast, truth, usual, mask=self.mask, weights=self.rows)
            for name, values in zip(("both", "forecast", "truth"), products, strict=True):
                self._keep(f"anomaly_{name}", values)
        self._count(forecast, truth)
        self.by_cell.add(forecast, truth, change=change)
        self._transform(forecast, truth)
        self.done += len(truth)

    def _keep(self, name: str, values: Tensor) -> None:
        self.frames.setdefault(name, []).append(values.double().cpu().numpy())

    def _count(self, forecast: Tensor, truth: Tensor) -> None:
        for event in self.events:
            new = rare.contingency(forecast, truth, event, mask=self.mask)
            old = self.counts.get(event.name)
            self.counts[event.name] = (
                new if old is None else tuple(a + b for a, b in zip(old, new, strict=True))
            )

    def _transform(self, forecast: Tensor, truth: Tensor) -> None:
        if min(self.grid.height, self.grid.width) < 4:
            return
        for side, shown in enumerate((forecast, truth)):
            power = power_spectrum(shown, self.grid, self.mask)
            self.spectra[side] = self.spectra[side] + power.double().sum(0).cpu()

    def scores(self) -> Scores:
        """What the numbers come to."""
        frames = {name: np.concatenate(parts) for name, parts in self.frames.items()}
        scale = self.std.double().cpu().numpy()
        frames["mse"] = frames["squared"] / scale**2
        frames["mae"] = frames["absolute"] / scale
        whole = _headline(frames)
        elements = len(self.grid.channels) * int(self.grid.exists.sum())
        whole["mse_sum_per_frame"] = whole["mse"] * elements
        whole["mae_sum_per_frame"] = whole["mae"] * elements
        if "weighted" in frames:
            whole["latitude_weighted_rmse"] = math.sqrt((frames["weighted"] / scale**2).mean())
        whole["relative_quantile_error"] = float(frames["quantile"].mean())
        if "quantile_low" in frames:
            whole["relative_quantile_error_low"] = float(frames["quantile_low"].mean())
        spectra = self._spectra()
        for name in ("log_spectral_distance", "high_frequency_ratio"):
            values = [v for one in spectra.values() for v in one[name]]
            whole[name] = float(np.mean(values)) if values else math.nan
        return Scores(
            metrics=_plain(whole),
            physical=_plain(self._physical(frames)),
            by_lead=_plain(self._by_lead(frames)),
            by_group=_plain(self._by_group(frames)),
            spectra=_plain(spectra),
            extremes=_plain(self._extremes()),
            cell_extremes=_plain(
                self.by_cell.scores(self.grid.channels, int(self.grid.exists.sum()))
            ),
            peaks=_plain(self._peaks(frames)),
            window_mse=frames["mse"].mean((1, 2)).tolist(),
            conventions=self._conventions(),
        )

    def _physical(self, frames: dict[str, np.ndarray]) -> dict[str, Any]:
        names = [("rmse", "squared"), ("mae", "absolute"), ("latitude_weighted_rmse", "weighted")]
        found = {}
        for c, (channel, unit) in enumerate(zip(self.grid.channels, self.grid.units, strict=True)):
            values = {n: frames[k][..., c].mean() for n, k in names if k in frames}
            roots = {n: math.sqrt(v) if "rmse" in n else float(v) for n, v in values.items()}
            quantile = float(frames["quantile"][..., c].mean())
            found[channel] = {"unit": unit, **roots, "relative_quantile_error": quantile}
        return found

    def _by_lead(self, frames: dict[str, np.ndarray]) -> dict[str, Any]:
        mean = {name: values.mean(0) for name, values in frames.items()}
        curves = {
            "rmse": np.sqrt(mean["squared"]),
            "mae": mean["absolute"],
            "mse": mean["mse"],
            "relative_quantile_error": mean["quantile"],
        }
        if "quantile_low" in mean:
            curves["relative_quantile_error_low"] = mean["quantile_low"]
        if "ssim" in mean:
            curves["ssim"] = mean["ssim"]
        if "weighted" in mean:
            curves["latitude_weighted_rmse"] = np.sqrt(mean["weighted"])
        if "anomaly_both" in mean:
            norm = np.sqrt(mean["anomaly_forecast"] * mean["anomaly_truth"])
            # the climatology itself has no anomaly, and so no correlation
            curves["acc"] = np.divide(
                mean["anomaly_both"], norm, out=np.full_like(norm, np.nan), where=norm > 0
            )
        return {
            channel: {name: curve[:, c].tolist() for name, curve in curves.items()}
            for c, channel in enumerate(self.grid.channels)
        }

    def _by_group(self, frames: dict[str, np.ndarray]) -> dict[str, Any]:
        groups = self.windows.groups
        names = list(dict.fromkeys(groups))
        if names == [""]:
            return {}
        return {
            name: {**_headline(frames, groups == name), "windows": int((groups == name).sum())}
            for name in names
        }

    def _spectra(self) -> dict[str, Any]:
        if isinstance(self.spectra[0], float):
            return {}
        height, width = self.grid.height, self.grid.width
        # (channel, lead, wavenumber)
        forecast, truth = ((side / self.done).movedim(1, 0) for side in self.spectra)
        distance = spectral.log_spectral_distance(forecast, truth)
        ratio = spectral.high_frequency_ratio(forecast, truth, height=height, width=width)
        return {
            channel: {
                "wavenumber": list(range(truth.shape[-1])),
                "lead": list(range(1, self.windows.lead + 1)),
                "forecast": _short(forecast[c]),
                "truth": _short(truth[c]),
                "log_spectral_distance": _short(distance[c]),
                "high_frequency_ratio": _short(ratio[c]),
            }
            for c, channel in enumerate(self.grid.channels)
        }

    def _extremes(self) -> dict[str, Any]:
        names = ("csi", "pod", "far", "bias", "sedi", "hits", "misses", "false_alarms")
        found: dict[str, Any] = {channel: {} for channel in self.grid.channels}
        for event in self.events:
            for c, channel in enumerate(self.grid.channels):
                counts = self.counts[event.name][c]
                values = {name: getattr(counts, name) for name in names}
                found[channel][event.name] = {"threshold": event.thresholds[c], **values}
        return found

    def _peaks(self, frames: dict[str, np.ndarray]) -> dict[str, Any]:
        """Errors of the highest value: of each window over its leads, and of each lead."""
        forecast, truth = frames["peak_forecast"], frames["peak_truth"]
        error = forecast - truth
        window = forecast.max(1) - truth.max(1)
        return {
            channel: {
                "unit": unit,
                "bias": float(window[:, c].mean()),
                "mae": float(np.abs(window[:, c]).mean()),
                "rmse": float(np.sqrt(np.square(window[:, c]).mean())),
                "by_lead": {
                    "bias": error[..., c].mean(0).tolist(),
                    "mae": np.abs(error[..., c]).mean(0).tolist(),
                },
                "window_error": _short(window[:, c]),
            }
            for c, (channel, unit) in enumerate(
                zip(self.grid.channels, self.grid.units, strict=True)
            )
        }

    def _conventions(self) -> dict[str, Any]:
        grid, windows = self.grid, self.windows
        return {
            "split": windows.split,
            "windows": len(windows),
            "past": windows.past,
            "lead": windows.lead,
            "step_seconds": grid.step_seconds,
            "channels": list(grid.channels),
            "units": list(grid.units),
            "overlap": _overlap(windows),
            "at_once": windows.at_once,
            "normalised": "divided by the training standard deviation of each channel",
            "ssim": f"Gaussian {self.size}×{self.size}, σ 1.5, scaled to 0..1 by training extremes"
            if self.size >= 3
            else None,
            "climatology": self.climatology.kind if self.climatology is not None else None,
            "spectra": "Hann taper along axes that do not wrap, mean removed; at every lead",
        }


def _short(values: Any) -> Any:
    """Numbers as lists, to six digits: enough for a figure, and a third of the file."""
    if np.ndim(values):
        return [_short(value) for value in values]
    return float(f"{float(values):.6g}")


def _overlap(windows: WindowDataset) -> int:
    """How many windows in a row share frames."""
    apart = np.diff(windows.starts)
    stride = int(apart.min()) if len(apart) else 1
    return -(-(windows.past + windows.lead) // stride)


def _headline(frames: dict[str, np.ndarray], chosen: np.ndarray | None = None) -> dict[str, float]:
    """Means over windows (the `chosen` ones), leads and channels."""
    chosen = slice(None) if chosen is None else chosen
    mse, mae = float(frames["mse"][chosen].mean()), float(frames["mae"][chosen].mean())
    if mae**2 > mse * (1 + 1e-6):
        raise AssertionError(f"MAE² = {mae**2} exceeds MSE = {mse}: not means of the same errors")
    ssim = float(frames["ssim"][chosen].mean()) if "ssim" in frames else math.nan
    return {"mse": mse, "mae": mae, "rmse": math.sqrt(mse), "ssim": ssim}


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: they become None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def persistence(lead: int) -> Predict:
    """The forecast that nothing changes: the last frame of the past, `lead` times."""

    def predict(past: Tensor, window: Batch) -> Tensor:
        return past[:, -1:].expand(-1, lead, -1, -1, -1)

    return predict


def climatology_forecast(climatology: Climatology, windows: WindowDataset) -> Predict:
    """The forecast of what is usual at each valid time; it ignores the past."""

    def predict(past: Tensor, window: Batch) -> Tensor:
        return usual_of(climatology, windows, window.index)[0].to(past)

    return predict


def gap_closed(baseline: float, student: float, teacher: float) -> float:
    """(baseline − student) / (baseline − teacher): 0 as the baseline, 1 as the teacher.

    NaN where the teacher is no better than the baseline: there is no gap to close.
    """
    return (baseline - student) / (baseline - teacher) if baseline > teacher else math.nan


ROLES = ("reference", "teacher", "student")


def result_row(
    *,
    scores: Scores,
    data: str,
    preset: str,
    backbone: str,
    role: str,
    method: str,
    seed: int | None,
    split: str,
    narrator: str = "none",
    reads_future: bool = False,
    parameters: int = 0,
    validation: float | None = None,
    latency: Mapping[str, Any] | None = None,
    fingerprint: str = "",
    recipe: str = "",
    device: torch.device | str = "cpu",
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """One line of a results file, JSON-able: who was scored, on what, and how well.

    `role` is `teacher`, `student` or `reference` (persistence, climatology); `method` how a
    student was trained; `narrator` whose words took part in training, `none` where nobody's;
    `validation` the forecast error on the validation split that chose the weights, in the training
    unit; `latency` what `latency()` gave; `fingerprint` the data's, `recipe` the recipe's digest.
    """
    if role not in ROLES:
        raise S2KDError(f"result row: role={role!r} must be one of {', '.join(ROLES)}")
    return {
        "data": data,
        "preset": preset,
        "backbone": backbone,
        "role": role,
        "method": method,
        "narrator": narrator,
        "reads_future": reads_future,
        "seed": seed,
        "split": split,
        "parameters": parameters,
        "validation": validation,
        "latency_ms": None if latency is None else latency["median_ms"],
        "latency": None if latency is None else dict(latency),
        "metrics": dict(scores.metrics),
        "scores": scores.to_dict(),
        "versions": versions(*packages),
        "hardware": hardware(device),
        "fingerprint": fingerprint,
        "recipe": recipe,
    }
