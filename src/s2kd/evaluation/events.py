"""Rare events: values beyond a training quantile of their own cell, counted and verified.

A threshold per cell finds heat in Alaska and crowds in a side street, which one threshold for the
whole grid never does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from s2kd.core.errors import S2KDError
from s2kd.data.dataset import Dataset
from s2kd.data.statistics import training_blocks
from s2kd.evaluation.results import window_runs
from s2kd.evaluation.significance import Estimate, block_for, linear_part, smooth_estimate

UPPER = (0.9, 0.95, 0.98, 0.995)
LOWER = (0.005, 0.02, 0.05, 0.1)
RANGES = {
    "csi": (0.0, 1.0),
    "pod": (0.0, 1.0),
    "far": (0.0, 1.0),
    "bias": (0.0, math.inf),
    "sedi": (-1.0, 1.0),
}
"""What values an event score can have."""
TWO_SIDED = ("weather", "generic")
"""Domains whose low values are extremes too: an empty street or cold air in a fire room is not."""
LEAST_RISE = 0.01
"""A threshold counts that lies at least so much of the channel's training range beyond the other
end of its cell. In a street that is nearly always empty the 95 % quantile is 0, and any forecast of
a twentieth of a taxi would be a false alarm; far from a fire it is the room's temperature."""

Fields = Float[Tensor, "batch lead channel height width"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellEvents:
    """Events by every cell's own training quantiles.

    `names` are `above 95 %`, `below 5 %`; `above` says on which side of the threshold. A cell is
    not `active` where no training frame lies beyond its threshold (a constant cell), or where the
    threshold hardly leaves the cell's floor (`LEAST_RISE`): it is left out.
    """

    names: tuple[str, ...]
    above: tuple[bool, ...]
    thresholds: Float[np.ndarray, "event channel height width"]
    active: Bool[np.ndarray, "event channel height width"]


def cell_events(dataset: Dataset, *, memory_bytes: int = 2**30) -> CellEvents:
    """Events above the 90 to 99.5 % quantile; in `TWO_SIDED` domains below 10 to 0.5 % too.

    Quantiles are linear between values, as NumPy's, of the training frames: of all that fit into
    `memory_bytes`, else of an even sample. Raises S2KDError where the training split is empty.
    """
    probabilities = (*(LOWER if dataset.domain in TWO_SIDED else ()), *UPPER)
    exists = dataset.grid.exists
    frames = _even_sample(dataset, memory_bytes)  # (time, channel, cell)
    at = np.stack(
        [
            np.quantile(np.ascontiguousarray(frames[:, c].T), [*probabilities, 0.0, 1.0], axis=-1)
            for c in range(frames.shape[1])
        ],
        axis=1,
    ).astype(np.float32)
    values, low, high = at[:-2], at[-2], at[-1]
    least = LEAST_RISE * (high.max(-1) - low.min(-1))[:, None]
    above = tuple(p > 0.5 for p in probabilities)
    upper = np.asarray(above)[:, None, None]
    active = np.where(
        upper,
        (high > values) & (values - low >= least),
        (low < values) & (high - values >= least),
    )

    def on_grid(cells: np.ndarray) -> np.ndarray:
        grid = np.zeros((*cells.shape[:-1], *exists.shape), cells.dtype)
        grid[..., exists] = cells
        return grid

    sides = zip(above, probabilities, strict=True)
    return CellEvents(
        names=tuple(f"{'above' if side else 'below'} {100 * p:g} %" for side, p in sides),
        above=above,
        thresholds=on_grid(values),
        active=on_grid(active),
    )


def _even_sample(dataset: Dataset, memory_bytes: int) -> Float[np.ndarray, "time channel cell"]:
    total = sum(s.stop - s.first for s in dataset.splits["train"])
    if not total:
        raise S2KDError(f"{dataset.name}: the training split is empty")
    frame_bytes = 4 * len(dataset.grid.channels) * int(dataset.grid.exists.sum())
    step = max(1, math.ceil(total * frame_bytes / memory_bytes))
    sample, count = [], 0
    for block in training_blocks(dataset):
        # copied, since a view would keep its whole block in memory
        sample.append(block[-count % step :: step].copy() if step > 1 else block)
        count += len(block)
    return np.concatenate(sample)


def event_counter(
    events: CellEvents, device: torch.device
) -> Callable[[Fields, Fields], dict[str, Int[Tensor, "batch lead channel event"]]]:
    """A function of (forecast, truth) that counts `hits`, `false_alarms` and `observed` events.

    Misses are `observed` − `hits`. Counts are of each frame, over active cells.
    """
    signs = torch.tensor([1.0 if side else -1.0 for side in events.above], device=device)
    signs = signs[:, None, None, None]
    limits = signs * torch.from_numpy(events.thresholds).to(device)
    active = torch.from_numpy(events.active).to(device)

    def count(forecast: Fields, truth: Fields) -> dict[str, Tensor]:
        counts: dict[str, list[Tensor]] = {"hits": [], "false_alarms": [], "observed": []}
        for sign, limit, cells in zip(signs, limits, active, strict=True):
            predicted, observed = ((sign * field > limit) & cells for field in (forecast, truth))
            counts["hits"].append((predicted & observed).sum((-2, -1)))
            counts["false_alarms"].append((predicted & ~observed).sum((-2, -1)))
            counts["observed"].append(observed.sum((-2, -1)))
        return {name: torch.stack(parts, -1).int() for name, parts in counts.items()}

    return count


# --- scores of counts ----------------------------------------------------------------------------


def event_score(name: str, counts: Float[np.ndarray, "*many 4"]) -> Float[np.ndarray, "*many"]:
    """A score of hits, misses, false alarms and correct negatives; NaN where it is undefined.

    - `csi`: critical success index, hits / (hits + misses + false alarms); 1 is best.
    - `pod`: probability of detection, hits / (hits + misses); 1 is best.
    - `far`: false alarm ratio, false alarms / (hits + false alarms); 0 is best.
    - `bias`: events forecast / events observed; 1 is best, below 1 too few.
    - `sedi`: symmetric extremal dependence index (Ferro and Stephenson 2011); 1 is best:
      [ln F − ln H − ln(1−F) + ln(1−H)] / [ln F + ln H + ln(1−F) + ln(1−H)] with hit rate H and
      false alarm rate F (not the ratio). Where a count is 0, half a case is added to all four, or
      a perfect forecast would have no score.
    """
    hits, misses, alarms, negatives = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    match name:
        case "csi":
            return _ratio(hits, hits + misses + alarms)
        case "pod":
            return _ratio(hits, hits + misses)
        case "far":
            return _ratio(alarms, hits + alarms)
        case "bias":
            return _ratio(hits + alarms, hits + misses)
        case "sedi":
            return _sedi(np.stack([hits, misses, alarms, negatives]))
        case _:
            raise S2KDError(f"score {name!r}: must be one of {', '.join(RANGES)}")


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full_like(part, np.nan), where=total != 0)


def _sedi(counts: np.ndarray) -> np.ndarray:
    hits, misses, alarms, negatives = counts
    defined = (hits + misses > 0) & (alarms + negatives > 0)
    hits, misses, alarms, negatives = counts + 0.5 * (counts <= 0).any(0)
    h, f = hits / (hits + misses), alarms / (alarms + negatives)
    log_f, log_h, log_no_f, log_no_h = np.log(f), np.log(h), np.log(1 - f), np.log(1 - h)
    sedi = (log_f - log_h - log_no_f + log_no_h) / (log_f + log_h + log_no_f + log_no_h)
    return np.where(defined, sedi, np.nan)


def event_scores(scores: xr.Dataset, *, by_lead: bool = False) -> xr.Dataset:
    """`csi`, `pod`, `far`, `bias` and `sedi` over all windows, and over all leads or by lead.

    Also `base_rate`, the share of active cells and frames in which the event was observed.
    """
    pooled = ["window"] if by_lead else ["window", "lead"]
    frames = scores.sizes["window"] * (1 if by_lead else scores.sizes["lead"])
    sums = scores[["hits", "false_alarms", "observed"]].astype(np.int64).sum(pooled)
    total = frames * scores["event_cells"]
    misses = sums["observed"] - sums["hits"]
    negatives = total - sums["observed"] - sums["false_alarms"]
    parts = xr.broadcast(sums["hits"], misses, sums["false_alarms"], negatives)
    counts = np.stack([part.values for part in parts], -1).astype(np.float64)
    values = {name: (parts[0].dims, event_score(name, counts)) for name in RANGES}
    return xr.Dataset(
        {**values, "base_rate": sums["observed"] / total.where(total > 0)}, parts[0].coords
    )


def event_series(
    scores: xr.Dataset, *, channel: str, event: str, lead: int | None = None
) -> Float[np.ndarray, "model window 4"]:
    """Hits, misses, false alarms, correct negatives by window, at one lead or over all leads.

    Windows of one moment (`windows_per_time`) count as one window of more cells.
    """
    for dim, label in (("channel", channel), ("event", event)):
        if label not in scores[dim].values:
            labels = ", ".join(map(str, scores[dim].values))
            raise S2KDError(f"no {dim} {label!r} among the scores (there are {labels})")
    counts = scores[["hits", "false_alarms", "observed", "event_cells"]]
    counts = counts.sel(channel=channel, event=event)
    counts = counts.sel(lead=[lead]) if lead is not None else counts
    parts = int(scores.attrs.get("windows_per_time", 1))
    hits, alarms, observed = (
        counts[name].astype(np.float64).sum("lead").transpose(..., "window").values
        for name in ("hits", "false_alarms", "observed")
    )
    observed = np.broadcast_to(observed, hits.shape)
    total = float(counts["event_cells"]) * counts.sizes["lead"]
    table = np.stack([hits, observed - hits, alarms, total - observed - alarms], axis=-1)
    return table.reshape(len(table), parts, -1, 4).sum(1)


def event_interval(
    scores: xr.Dataset, *, channel: str, event: str, score: str = "csi", lead: int | None = None
) -> Estimate:
    """A score with its bounds, counts of all models (the seeds of one method) pooled.

    From three seeds on they count too. Bounds end where the score's range does.
    """
    counts = event_series(scores, channel=channel, event=event, lead=lead)
    size = counts.shape[0] * counts.shape[1]

    def pooled(means: np.ndarray) -> np.ndarray:
        return event_score(score, means * size)

    interval = smooth_estimate(counts, pooled, block=_block(scores, counts, pooled))
    if interval.low is None or interval.high is None:
        return interval
    least, most = RANGES[score]
    return replace(interval, low=max(interval.low, least), high=min(interval.high, most))


def event_difference(
    first: xr.Dataset,
    second: xr.Dataset,
    *,
    channel: str,
    event: str,
    score: str = "csi",
    lead: int | None = None,
) -> Estimate:
    """Score of `first` minus that of `second`, paired by window and, in order, by seed."""
    pair = [event_series(side, channel=channel, event=event, lead=lead) for side in (first, second)]
    seeds, windows, _ = pair[0].shape
    if pair[1].shape != pair[0].shape:
        raise S2KDError(
            f"paired comparison of events: {seeds} seeds and {windows} windows against "
            f"{len(pair[1])} and {pair[1].shape[1]}"
        )

    def difference(means: np.ndarray) -> np.ndarray:
        first_sums, second_sums = np.split(means * seeds * windows, 2, axis=-1)
        return event_score(score, first_sums) - event_score(score, second_sums)

    counts = np.concatenate(pair, -1)
    return smooth_estimate(counts, difference, block=_block(first, counts, difference))


def _block(
    scores: xr.Dataset, counts: np.ndarray, function: Callable[[np.ndarray], np.ndarray]
) -> int:
    """As long as what the windows add to the score remembers."""
    added = np.nan_to_num(linear_part(counts, function).mean(0))
    overlap = int(scores.attrs.get("overlap", 1))
    return block_for([added], overlap=overlap, runs=window_runs(scores))
