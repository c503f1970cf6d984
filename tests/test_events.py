"""Events by each cell's own quantiles: thresholds, counts and scores against other programs."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from scores.categorical import BinaryContingencyManager

from s2kd.core.errors import S2KDError
from s2kd.core.types import GridSpec
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.events import (
    RANGES,
    cell_events,
    event_difference,
    event_interval,
    event_score,
    event_scores,
    event_series,
)
from s2kd.evaluation.results import describe_model
from s2kd.evaluation.score import persistence, score
from s2kd.evaluation.significance import smooth_estimate

UPPER = ("above 90 %", "above 95 %", "above 98 %", "above 99.5 %")


def world(*, domain="weather", frames=600, height=6, width=7, mask=None, seed=0):
    """Hourly noise whose mean and spread differ from cell to cell, with a daily cycle."""
    generator = np.random.default_rng(seed)
    noise = generator.gamma(2.0, 1.0, (frames, 2, height, width))
    for t in range(1, frames):
        noise[t] = 0.7 * noise[t - 1] + 0.3 * noise[t]
    size = np.arange(1.0, height * width + 1).reshape(height, width)
    cycle = 3 * np.sin(2 * np.pi * np.arange(frames) / 24)[:, None, None, None]
    grid = GridSpec(
        channels=("in", "out"),
        units=("1", "1"),
        height=height,
        width=width,
        step_seconds=3600.0,
        mask=mask,
    )
    return Dataset(
        name="made",
        domain=domain,
        grid=grid,
        frames=(noise * size + 10 * size + cycle).astype(np.float32),
        times=np.datetime64("2013-01-01", "ns") + np.arange(frames) * np.timedelta64(1, "h"),
        splits={
            "train": (Stretch(first=0, stop=200), Stretch(first=210, stop=360)),
            "val": (Stretch(first=370, stop=400),),
            "test": (Stretch(first=410, stop=frames),),
        },
        local_time=True,
    )


def training(dataset):
    return np.concatenate([dataset.frames[:200], dataset.frames[210:360]])


def biased(dataset, seed=1):
    """The truth with noise of each cell's own size."""

    def predict(past, batch):
        generator = torch.Generator().manual_seed(seed + int(batch.index[0]))
        noise = torch.randn(batch.future.shape, generator=generator)
        return batch.future + 0.4 * torch.from_numpy(training(dataset).std(0)) * noise

    return predict


def scored(dataset, predict, *, seed=42):
    windows = WindowDataset(dataset, "test", past=3, lead=2)
    scores = score(
        predict,
        windows,
        statistics=statistics(dataset),
        events=cell_events(dataset),
        batch_size=7,
    )
    return windows, describe_model(scores, backbone="unet", method="s2kd", seed=seed)


# --- thresholds ----------------------------------------------------------------------------------


def test_thresholds_are_numpys_quantiles_of_the_training_split_alone():
    mask = np.ones((6, 7), bool)
    mask[2, 3] = False
    dataset = world(mask=tuple(map(tuple, mask.tolist())))
    frames = dataset.frames.copy()
    frames[200:210], frames[360:], frames[:, :, 2, 3] = 1e9, -1e9, np.nan
    events = cell_events(dataclasses.replace(dataset, frames=frames))
    probabilities = [float(name.split()[1]) / 100 for name in events.names]
    expected = np.quantile(training(dataset)[..., mask].astype(float), probabilities, axis=0)
    np.testing.assert_allclose(events.thresholds[..., mask], expected, rtol=1e-6)
    assert events.active[..., mask].all()
    assert not events.active[..., ~mask].any()


def test_a_split_larger_than_memory_is_sampled_evenly():
    dataset = world(frames=6000, height=3, width=5)
    stretches = {"train": (0, 5500), "val": (5600, 5700), "test": (5800, 6000)}
    splits = {name: (Stretch(first=a, stop=b),) for name, (a, b) in stretches.items()}
    dataset = dataclasses.replace(dataset, splits=splits)
    events = cell_events(dataset, memory_bytes=5500 * 2 * 15)  # a quarter
    for name, threshold in zip(events.names, events.thresholds, strict=True):
        rank = (dataset.frames[:5500] <= threshold).mean(0)
        assert np.abs(rank - float(name.split()[1]) / 100).max() < 0.03, name
    sample = dataset.frames[:5500:4]
    np.testing.assert_allclose(events.thresholds[-4], np.quantile(sample, 0.9, axis=0), rtol=1e-5)


def test_low_tails_only_where_they_are_extremes():
    names = {domain: cell_events(world(domain=domain)).names for domain in ("weather", "fire")}
    assert names["weather"] == ("below 0.5 %", "below 2 %", "below 5 %", "below 10 %", *UPPER)
    assert names["fire"] == UPPER


def test_cells_without_events_are_left_out():
    dataset = world()
    frames = dataset.frames.copy()
    frames[:, 0, 1, 1] = 5.0  # never changes in training
    frames[410:, 0, 1, 1] = 50.0
    frames[:, 0, 1, 2] = 0.0
    frames[7, 0, 1, 2] = 1.0  # once in 350 frames: the 90 % quantile is the floor
    _, scores = scored(dataclasses.replace(dataset, frames=frames), persistence(2))
    cells = scores["event_cells"]
    assert cells.sel(channel="in", event=["above 90 %", "below 5 %"]).values.tolist() == [40, 40]
    assert (cells.sel(channel="out") == 42).all()


# --- counts --------------------------------------------------------------------------------------


def test_counts_against_plain_loops():
    mask = np.random.default_rng(1).random((6, 7)) < 0.8
    dataset = world(mask=tuple(map(tuple, mask.tolist())))
    windows, scores = scored(dataset, persistence(2))
    for event in scores["event"].values:
        side, p, _ = event.split()
        sign = 1 if side == "above" else -1
        limit = np.quantile(training(dataset).astype(float), float(p) / 100, axis=0)
        limit = limit.astype(np.float32)
        for c, channel in enumerate(dataset.grid.channels):
            for lead in (1, 2):
                series = event_series(scores, channel=channel, event=event, lead=lead)[0]
                for w, start in enumerate(windows.starts):
                    predicted, observed = (
                        sign * dataset.frames[start + f, c][mask] > sign * limit[c][mask]
                        for f in (2, 2 + lead)
                    )
                    parts = (
                        predicted & observed,
                        ~predicted & observed,
                        predicted & ~observed,
                        ~predicted & ~observed,
                    )
                    assert series[w].tolist() == [part.sum() for part in parts]


def test_scores_by_lead_and_over_all_leads_against_the_scores_package():
    _, scores = scored(world(), biased(world()))
    for by_lead in (False, True):
        table = event_scores(scores, by_lead=by_lead)
        for event in ("below 5 %", "above 95 %"):
            at = {"channel": "in", "event": event}
            for lead in (1, 2) if by_lead else (None,):
                counts = event_series(scores, **at, lead=lead)[0].sum(0)
                expected = by_package(counts)
                row = table.sel(**at, **({"lead": lead} if by_lead else {})).isel(model=0)
                for name in RANGES:
                    assert float(row[name]) == pytest.approx(expected[name], abs=1e-9), name
                base_rate = counts[:2].sum() / counts.sum()
                assert float(row["base_rate"]) == pytest.approx(base_rate)


def by_package(counts):
    """The scores of hits, misses, false alarms and correct negatives by another program."""
    hits, misses, alarms, negatives = np.asarray(counts, int)
    forecast = np.repeat([1, 0, 1, 0], [hits, misses, alarms, negatives])
    observed = np.repeat([1, 1, 0, 0], [hits, misses, alarms, negatives])
    manager = BinaryContingencyManager(xr.DataArray(forecast), xr.DataArray(observed)).transform()
    return {
        "csi": float(manager.critical_success_index()),
        "pod": float(manager.probability_of_detection()),
        "far": float(manager.false_alarm_ratio()),
        "bias": float(manager.frequency_bias()),
        "sedi": float(manager.symmetric_extremal_dependence_index()),
    }


@pytest.mark.parametrize("name", RANGES)
def test_event_scores_against_the_scores_package(name):
    tables = np.random.default_rng(0).integers(1, 60, (20, 4)).astype(float)
    expected = [by_package(counts)[name] for counts in tables]
    np.testing.assert_allclose(event_score(name, tables), expected, atol=1e-12)


def test_scores_at_their_limits():
    perfect = np.array([[1000.0, 0, 0, 99_000]])
    chance = np.array([[10.0, 90, 90, 810]])
    never = np.array([[0.0, 0, 5, 95]])
    assert 0.98 < event_score("sedi", perfect) < 1
    assert event_score("sedi", chance) == pytest.approx(0)
    assert np.isnan([event_score(name, never) for name in ("pod", "bias", "sedi")]).all()
    assert (event_score("far", never), event_score("csi", never)) == (1, 0)
    with pytest.raises(S2KDError, match="'hss': must be one of csi, pod, far, bias, sedi"):
        event_score("hss", never)


# --- intervals -----------------------------------------------------------------------------------


def joined(*scores):
    return xr.concat(scores, "model", data_vars="minimal", coords="minimal", compat="override")


def test_intervals_of_event_scores_and_of_their_difference():
    dataset = world(frames=700)
    still, good, again = (
        scored(dataset, predict)[1]
        for predict in (persistence(2), biased(dataset), biased(dataset, seed=500))
    )
    at = {"channel": "in", "event": "above 90 %"}
    alone = event_interval(good, **at)
    sums = event_series(good, **at)[0].sum(0)
    assert alone.value == pytest.approx(sums[0] / sums[:3].sum())
    assert 0 < alone.low < alone.value < alone.high < 1
    rare = event_interval(good, channel="in", event="above 99.5 %")
    assert rare.high - rare.low > 2 * (alone.high - alone.low)
    better = event_difference(good, still, **at)
    assert better.low > 0
    assert better.p_value < 0.05
    assert not event_difference(good, again, score="sedi", **at).excludes_zero
    itself = event_difference(good, good, lead=2, **at)
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)
    seeds = joined(good, again, good)
    assert event_interval(seeds, **at).seeds == 3
    with pytest.raises(S2KDError, match=r"1 seeds and .* against 3"):
        event_difference(good, seeds, **at)
    with pytest.raises(S2KDError, match="no event 'above 91 %' among"):
        event_series(good, channel="in", event="above 91 %")


def counts_of(hits, false_alarms, observed, *, cells, **attributes):
    """A dataset of one model, channel and event, counts (window, lead)."""
    dims = ("model", "window", "lead", "channel", "event")
    values = {"hits": hits, "false_alarms": false_alarms}
    arrays = {n: (dims, np.asarray(v)[None, :, :, None, None]) for n, v in values.items()}
    arrays["observed"] = (dims[1:], np.asarray(observed)[:, :, None, None])
    arrays["event_cells"] = (dims[3:], np.full((1, 1), cells))
    coords = {"lead": [1, 2], "channel": ["t"], "event": ["above 95 %"]}
    return xr.Dataset(arrays, coords, attributes)


AT = {"channel": "t", "event": "above 95 %"}


def test_planes_of_one_moment_are_counted_together():
    hits, misses, alarms = np.random.default_rng(3).integers(0, 9, (3, 60, 2))
    parts = counts_of(hits, alarms, hits + misses, cells=40, overlap=3, windows_per_time=4)
    series = event_series(parts, **AT)[0]
    assert len(series) == 15
    assert series[7, 0] == hits[[7, 22, 37, 52]].sum()
    assert series.sum(1) == pytest.approx(4 * 2 * 40)
    single = parts.assign_attrs(windows_per_time=1)
    together, apart = (event_interval(scores, **AT) for scores in (parts, single))
    assert together.value == pytest.approx(apart.value)
    assert (together.windows, apart.windows) == (15, 60)


def test_bounds_of_an_event_score_stay_within_its_range():
    # all hits fall in two windows: bare, the lower bound lies below 0
    hits = np.zeros((120, 2), np.int64)
    hits[::60] = 50
    scores = counts_of(hits, np.full((120, 2), 1), hits + 3, cells=99)
    for name, (least, most) in RANGES.items():
        estimate = event_interval(scores, score=name, **AT)
        assert least <= estimate.low < estimate.value < estimate.high <= most, name
    csi = event_interval(scores, **AT)
    bare = smooth_estimate(
        event_series(scores, **AT),
        lambda means: means[..., 0] / means[..., :3].sum(-1),
        block=csi.block,
    )
    assert bare.low < 0
    assert (csi.value, csi.low, csi.high) == pytest.approx((bare.value, 0, bare.high))


def test_an_event_that_was_never_seen_has_no_score_and_no_interval():
    nothing = np.zeros((60, 2), np.int64)
    estimate = event_interval(counts_of(nothing, nothing, nothing, cells=9), **AT)
    assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
