"""Rare events by each cell's own measure: counted by window and lead, scored with intervals.

A value is extreme where it is: a threshold of its own for every cell finds heat in Alaska and
crowds in a side street, which one threshold for the whole grid never does.
"""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from s2kd.core.types import S2KDError
from s2kd.data.dataset import Dataset
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.bootstrap import Function, Interval, linear_part
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.quantiles import cell_quantiles
from s2kd.evaluation.significance import (
    Comparison,
    at_once,
    block_for,
    function_comparison,
    function_interval,
    runs_of,
)

UPPER = (0.9, 0.95, 0.98, 0.995)
LOWER = (0.1, 0.05, 0.02, 0.005)
SURGES = (0.95, 0.98)
RANGES = {
    "csi": (0.0, 1.0),
    "pod": (0.0, 1.0),
    "far": (0.0, 1.0),
    "bias": (0.0, math.inf),
    "sedi": (-1.0, 1.0),
}
"""What values an event score can have."""
SCORES = tuple(RANGES)
TWO_SIDED = ("weather", "generic")
"""Domains whose low values are extremes too: an empty street or cold air in a fire room is not."""

LEAST_RISE = 0.01
"""A threshold counts that lies at least so much of the channel's training range beyond the other
end of its cell. In a street that is nearly always empty the 95 % quantile is 0, and any forecast of
a twentieth of a taxi would be a false alarm; far from a fire it is the room's temperature."""

Fields = Float[Tensor, "batch _ channel height width"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellEvent:
    """Values beyond a training quantile of their own cell, `sign` 1 above or −1 below it.

    `counted` is False where no training frame is beyond the threshold (a constant cell) or the
    threshold hardly leaves the cell's floor (see `LEAST_RISE`): the cell is left out. The lead
    axis has one entry where all leads share the threshold. For a `surge` the value is the excess
    change, see `excess`.
    """

    name: str
    sign: int
    thresholds: Float[np.ndarray, "lead channel height width"]
    counted: Bool[np.ndarray, "lead channel height width"]
    surge: bool = False


def cell_events(
    dataset: Dataset,
    *,
    past: int,
    lead: int,
    climatology: Climatology | None = None,
    memory_bytes: int = 2**30,
) -> tuple[CellEvent, ...]:
    """Every event of the data, from the training split alone.

    Above the 90, 95, 98 and 99.5 % quantile; in weather and data of no known domain also below
    the 10, 5, 2 and 0.5 % quantile; in traffic, where there is a `climatology`, surges besides.
    """
    lower = LOWER if dataset.domain in TWO_SIDED else ()
    known = cell_quantiles(dataset, (*lower[::-1], *UPPER), memory_bytes=memory_bytes)
    exists = dataset.grid.exists
    span = [
        m[exists].max() - n[exists].min() for m, n in zip(known.maximum, known.minimum, strict=True)
    ]
    least = LEAST_RISE * np.asarray(span)[:, None, None]
    found = []
    for p, values in zip(known.probabilities, known.values, strict=True):
        if p > 0.5:
            beyond = (known.maximum > values) & (values - known.minimum >= least)
        else:
            beyond = (known.minimum < values) & (known.maximum - values >= least)
        found.append(
            CellEvent(
                name=f"{'above' if p > 0.5 else 'below'} {100 * p:g} %",
                sign=1 if p > 0.5 else -1,
                thresholds=values[None],
                counted=(beyond & exists)[None],
            )
        )
    if dataset.domain == "traffic" and climatology is not None:
        windows = WindowDataset(dataset, "train", past=past, lead=lead)
        found += _surges(windows, climatology, memory_bytes // 4, found[-len(UPPER) + 1].counted[0])
    return tuple(found)


def excess(fields: Fields, last: Fields, usual: Fields, usual_last: Fields) -> Fields:
    """How much more a value rose since the last input frame than is usual between those hours.

    (x(t) − x(0)) − (u(t) − u(0)), u being the climatology: the morning rush is no surge, a
    stadium that empties is.
    """
    return (fields - last) - (usual - usual_last)


def _surges(
    windows: WindowDataset,
    climatology: Climatology,
    memory_bytes: int,
    lively: Bool[np.ndarray, "channel height width"],
) -> list[CellEvent]:
    """Thresholds by lead, from up to 2,000 training windows spread evenly."""
    size = windows.lead * int(np.prod(windows.dataset.frames.shape[1:])) * 4
    count = min(len(windows), 2000, max(50, memory_bytes // size))
    numbers = np.unique(np.linspace(0, len(windows) - 1, count).astype(int))
    parts = []
    for index in torch.from_numpy(numbers).split(64):
        window = windows.gather(index)
        usual, usual_last = usual_of(climatology, windows, index)
        change = excess(window.future, window.past[:, -1:], usual, usual_last)
        parts.append(change.cpu().numpy())
    changes = np.concatenate(parts)
    highest = changes.max(0)
    return [
        CellEvent(
            name=f"surge above {100 * p:g} %",
            sign=1,
            thresholds=values.astype(np.float32),
            counted=(highest > values) & lively,
            surge=True,
        )
        for p, values in zip(SURGES, np.quantile(changes, SURGES, axis=0), strict=True)
    ]


def usual_of(
    climatology: Climatology, windows: WindowDataset, index: Int[Tensor, " batch"], *, lead: int = 0
) -> tuple[Fields, Fields]:
    """The climatology at the valid times of these windows, and at their last input frames.

    For as many steps as the windows have, or `lead` of them.
    """
    starts = windows.starts[index.cpu().numpy()]
    frames = starts[:, None] + windows.past - 1 + np.arange((lead or windows.lead) + 1)
    # neighbouring windows ask for the same times
    distinct, place = np.unique(frames, return_inverse=True)
    fields = torch.from_numpy(climatology.at(windows.dataset.times[distinct]))
    whole = fields.to(windows.device)[torch.from_numpy(place.reshape(frames.shape))]
    return whole[:, 1:], whole[:, :1]


# --- counting ------------------------------------------------------------------------------------


class EventTally:
    """Hits, misses and false alarms of every event, by window, lead and channel."""

    def __init__(self, events: Sequence[CellEvent], *, lead: int, device: torch.device) -> None:
        self.events, self.lead = tuple(events), lead
        self._limits = [
            (
                event.sign,
                torch.from_numpy(event.thresholds).to(device),
                torch.from_numpy(event.counted).to(device),
            )
            for event in events
        ]
        self._parts: list[np.ndarray] = []

    @property
    def wants_change(self) -> bool:
        """Whether an event asks for the change since the last input frame."""
        return any(event.surge for event in self.events)

    def add(
        self, forecast: Fields, truth: Fields, *, change: tuple[Fields, Fields] | None = None
    ) -> None:
        """Count a batch; `change` are the excess changes of forecast and truth."""
        if not self.events:
            return
        found = []
        for event, (sign, limit, counted) in zip(self.events, self._limits, strict=True):
            sides = (forecast, truth)
            if event.surge:
                if change is None:
                    raise S2KDError(f"event {event.name!r} is one of change, which was not given")
                sides = change
            said, seen = (
                ((side > limit) if sign > 0 else (side < limit)) & counted for side in sides
            )
            hits, all_said, all_seen = (x.sum((-2, -1)) for x in (said & seen, said, seen))
            found.append(torch.stack([hits, all_seen - hits, all_said - hits], -1))
        self._parts.append(torch.stack(found, -2).cpu().numpy())

    def counts(self) -> Int[np.ndarray, "window lead channel event 3"]:
        """All that was counted, by window in order."""
        return np.concatenate(self._parts)

    def scores(self, channels: Sequence[str], exists: int) -> dict[str, Any]:
        """As plain data: the scores by channel and event, over all leads and by lead, and counts.

        `cells` are those counted at each lead, `left_out` those where no event is possible.
        `base_rate` is the share of cells and frames in which the event was seen.
        """
        if not self.events or not self._parts:
            return {}
        counts = self.counts()
        cells = np.stack(
            [
                np.broadcast_to(e.counted.sum((-2, -1)), (self.lead, len(channels)))
                for e in self.events
            ],
            -1,
        )
        known = EventCounts(
            channels=tuple(channels),
            events=tuple(event.name for event in self.events),
            counts=counts.astype(np.int64),
            cells=cells,
        )
        return {
            "events": list(known.events),
            "scores": {
                channel: {event: known.summary(channel, event, exists) for event in known.events}
                for channel in channels
            },
            "counts": _packed(counts),
        }


def _packed(counts: np.ndarray) -> dict[str, Any]:
    """Small whole numbers as text: little-endian, deflated, base 64."""
    kind = "<u2" if counts.max(initial=0) < 2**16 else "<u4"
    # windows last: neighbours are alike and compress
    content = np.ascontiguousarray(np.moveaxis(counts, 0, -1).astype(kind)).tobytes()
    return {
        "axes": ["window", "lead", "channel", "event", "hits misses false_alarms"],
        "shape": list(counts.shape),
        "type": kind,
        "data": base64.b64encode(zlib.compress(content, 9)).decode(),
    }


def _unpacked(plain: Mapping[str, Any] | np.ndarray) -> np.ndarray:
    if isinstance(plain, np.ndarray):
        return plain
    shape = plain["shape"]
    flat = np.frombuffer(zlib.decompress(base64.b64decode(plain["data"])), plain["type"])
    return np.moveaxis(flat.reshape(*shape[1:], shape[0]), -1, 0).astype(np.int64)


# --- scores of counts ----------------------------------------------------------------------------


def event_score(name: str, sums: Float[np.ndarray, "*many 4"]) -> Float[np.ndarray, "*many"]:
    """`csi`, `pod`, `far`, `bias` or `sedi` of hits, misses, false alarms, correct negatives.

    The formulas of `extremes.Contingency`; NaN where one is undefined.
    """
    hits, misses, alarms, negatives = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
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
            return _sedi(hits, misses, alarms, negatives)
        case _:
            raise S2KDError(f"score {name!r}: must be one of {', '.join(SCORES)}")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def _sedi(
    hits: np.ndarray, misses: np.ndarray, alarms: np.ndarray, negatives: np.ndarray
) -> np.ndarray:
    four = np.stack([hits, misses, alarms, negatives])
    possible = (hits + misses > 0) & (alarms + negatives > 0)
    hits, misses, alarms, negatives = four + 0.5 * (four <= 0).any(0)
    h, f = hits / (hits + misses), alarms / (alarms + negatives)
    log_f, log_h, log_no_f, log_no_h = np.log(f), np.log(h), np.log(1 - f), np.log(1 - h)
    found = (log_f - log_h - log_no_f + log_no_h) / (log_f + log_h + log_no_f + log_no_h)
    return np.where(possible, found, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class EventCounts:
    """What `EventTally` counted, as read from a result.

    `overlap` windows in a row share frames; `runs` are the windows of each run, one after another.
    """

    channels: tuple[str, ...]
    events: tuple[str, ...]
    counts: Int[np.ndarray, "window lead channel event 3"]
    cells: Int[np.ndarray, "lead channel event"]
    overlap: int = 1
    runs: tuple[int, ...] = ()

    @classmethod
    def from_scores(cls, scores: Mapping[str, Any]) -> "EventCounts":
        """From the `scores` of a result row."""
        plain = scores.get("cell_extremes")
        if not plain:
            raise S2KDError("this result holds no events by cell; evaluate the run again")
        by_channel = plain["scores"]
        about, counts = scores.get("conventions", {}), _unpacked(plain["counts"])
        parts = at_once(scores)
        cells = [[one["cells"] for one in events.values()] for events in by_channel.values()]
        return cls(
            channels=tuple(by_channel),
            events=tuple(plain["events"]),
            # windows of one moment are one window of more cells
            counts=counts.reshape(parts, -1, *counts.shape[1:]).sum(0),
            cells=parts * np.moveaxis(np.array(cells), -1, 0),
            overlap=int(about.get("overlap", 1)),
            runs=runs_of(scores),
        )

    def series(
        self, channel: str, event: str, *, lead: int | None = None
    ) -> Float[np.ndarray, "window 4"]:
        """Hits, misses, false alarms, correct negatives by window, at one lead (1, …) or all."""
        for what, names in ((channel, self.channels), (event, self.events)):
            if what not in names:
                raise S2KDError(f"no {what!r} among what was counted ({', '.join(names)})")
        c, e = self.channels.index(channel), self.events.index(event)
        leads = slice(None) if lead is None else slice(lead - 1, lead)
        three = self.counts[:, leads, c, e].sum(1)
        rest = self.cells[leads, c, e].sum() - three.sum(1)
        return np.concatenate([three, rest[:, None]], 1).astype(np.float64)

    def cells_of(self, channel: str, event: str) -> int:
        """Cells in which the event is counted at the first lead."""
        return int(self.cells[0, self.channels.index(channel), self.events.index(event)])

    def summary(self, channel: str, event: str, exists: int) -> dict[str, Any]:
        """The scores of one event, over all leads and by lead."""
        c, e = self.channels.index(channel), self.events.index(event)
        leads = range(1, self.counts.shape[1] + 1)
        by_lead = np.stack([self.series(channel, event, lead=lead).sum(0) for lead in leads])
        total = by_lead.sum(0, keepdims=True)
        hits, misses, alarms, _ = total[0].tolist()
        every = float(total.sum())
        return {
            "cells": self.cells[:, c, e].tolist(),
            "left_out": (exists - self.cells[:, c, e]).tolist(),
            "base_rate": (hits + misses) / every if every else math.nan,
            **{name: float(event_score(name, total)[0]) for name in SCORES},
            "hits": int(hits),
            "misses": int(misses),
            "false_alarms": int(alarms),
            "by_lead": {name: event_score(name, by_lead).tolist() for name in SCORES},
        }


def _series(
    counted: Sequence[EventCounts], channel: str, event: str, lead: int | None
) -> Float[np.ndarray, "seed window 4"]:
    return np.stack([one.series(channel, event, lead=lead) for one in counted])


def _block_of(
    counted: Sequence[EventCounts], values: Float[np.ndarray, "seed window k"], function: Function
) -> int:
    """As long as what the windows add to the score remembers."""
    added = np.nan_to_num(linear_part(values, function).mean(0))
    return block_for([added], overlap=counted[0].overlap, runs=counted[0].runs)


def event_interval(
    counted: Sequence[EventCounts],
    *,
    channel: str,
    event: str,
    score: str = "csi",
    lead: int | None = None,
    block: int | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A method's score with its bounds, counts of all its seeds (one entry each) pooled.

    Block bootstrap over windows; from three on, seeds count too. Bounds end
    where the score's own range does. Without a `block` it is as long as the score remembers.
    """
    values = _series(counted, channel, event, lead)
    size = values.shape[0] * values.shape[1]

    def pooled(means: np.ndarray) -> np.ndarray:
        return event_score(score, means * size)

    found = function_interval(
        values,
        pooled,
        block=block or _block_of(counted, values, pooled),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    if found.low is None or found.high is None:
        return found
    least, most = RANGES[score]
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def event_difference(
    first: Sequence[EventCounts],
    second: Sequence[EventCounts],
    *,
    channel: str,
    event: str,
    score: str = "csi",
    lead: int | None = None,
    block: int | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Score of `first` minus that of `second`, paired by window and, as given, by seed.

    Without a `block` it is as long as the difference remembers.
    """
    one, other = (_series(side, channel, event, lead) for side in (first, second))
    if one.shape != other.shape:
        raise S2KDError(
            f"paired comparison of events: {one.shape[0]} seeds and {one.shape[1]} windows against "
            f"{other.shape[0]} and {other.shape[1]}"
        )
    size = one.shape[0] * one.shape[1]

    def difference(means: np.ndarray) -> np.ndarray:
        ours, theirs = means[..., :4] * size, means[..., 4:] * size
        return event_score(score, ours) - event_score(score, theirs)

    both = np.concatenate([one, other], -1)
    return function_comparison(
        both,
        difference,
        block=block or _block_of(first, both, difference),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
