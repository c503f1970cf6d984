"""Event scores by hand, against NumPy quantiles, and their limits."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from s2kd.core.types import GridSpec, S2KDError, Statistics
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import cell_events as by_cell
from s2kd.evaluation import extremes as rare
from s2kd.evaluation import scoring
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.quantiles import cell_quantiles
from s2kd.evaluation.report import write_report
from s2kd.evaluation.significance import function_interval

TABLE = rare.Contingency(hits=30, misses=10, false_alarms=20, correct_negatives=940)


def event(probability, *thresholds):
    return rare.Event(probability=probability, thresholds=thresholds)


def test_scores_of_a_table_by_hand():
    assert TABLE.csi == 30 / 60
    assert TABLE.pod == 30 / 40
    assert TABLE.far == 20 / 50
    assert TABLE.bias == 50 / 40
    h, f = 0.75, 20 / 960
    log = math.log
    want = (log(f) - log(h) - log(1 - f) + log(1 - h)) / (log(f) + log(h) + log(1 - f) + log(1 - h))
    assert TABLE.sedi == pytest.approx(want)


def test_sedi_is_nought_for_chance_and_near_one_for_the_perfect():
    chance = rare.Contingency(hits=10, misses=90, false_alarms=90, correct_negatives=810)
    assert chance.sedi == pytest.approx(0)
    perfect = rare.Contingency(hits=1000, misses=0, false_alarms=0, correct_negatives=99_000)
    assert 0.98 < perfect.sedi < 1


def test_what_was_never_seen_has_no_score():
    never = rare.Contingency(hits=0, misses=0, false_alarms=5, correct_negatives=95)
    assert math.isnan(never.pod)
    assert math.isnan(never.bias)
    assert math.isnan(never.sedi)
    assert never.far == 1
    assert never.csi == 0


def test_counts_by_channel_and_tail():
    truth = torch.tensor([[1.0, 5.0, 9.0, 2.0], [10.0, 50.0, 90.0, 20.0]]).reshape(1, 2, 2, 2)
    forecast = torch.tensor([[6.0, 7.0, 1.0, 2.0], [10.0, 10.0, 90.0, 60.0]]).reshape(1, 2, 2, 2)
    high = rare.contingency(forecast, truth, event(0.9, 4.0, 40.0))
    assert high[0] == rare.Contingency(hits=1, misses=1, false_alarms=1, correct_negatives=1)
    assert high[1] == rare.Contingency(hits=1, misses=1, false_alarms=1, correct_negatives=1)
    low = rare.contingency(forecast, truth, event(0.1, 4.0, 15.0))
    assert low[0] == rare.Contingency(hits=1, misses=1, false_alarms=1, correct_negatives=1)
    assert low[1] == rare.Contingency(hits=1, misses=0, false_alarms=1, correct_negatives=2)
    mask = torch.tensor([[True, True], [True, False]])
    masked = rare.contingency(forecast, truth, event(0.1, 4.0, 15.0), mask=mask)
    assert masked[0] == rare.Contingency(hits=0, misses=1, false_alarms=1, correct_negatives=1)
    both = high[0] + low[1]
    assert (both.hits, both.misses, both.false_alarms, both.correct_negatives) == (2, 1, 2, 3)


def test_a_value_on_the_threshold_is_no_event():
    """Half of all cells of a traffic map are at its minimum, which is also its low quantile."""
    zero = torch.zeros(1, 1, 2, 2)
    assert rare.contingency(zero, zero, event(0.05, 0.0))[0].correct_negatives == 4
    assert rare.contingency(zero, zero, event(0.95, 0.0))[0].correct_negatives == 4


def test_events_are_the_outer_quantiles():
    known = Statistics(
        mean=(0.0,),
        std=(1.0,),
        minimum=(-9.0,),
        maximum=(9.0,),
        quantiles={0.9: (1.3,), 0.5: (0.0,), 0.02: (-2.0,), 0.1: (-1.3,), 0.75: (0.7,)},
    )
    assert [(e.name, e.thresholds) for e in rare.events(known)] == [
        ("below 2 %", (-2.0,)),
        ("below 10 %", (-1.3,)),
        ("above 90 %", (1.3,)),
    ]


def test_thresholds_must_fit_the_channels():
    field = torch.zeros(1, 2, 3, 3)
    with pytest.raises(S2KDError, match="1 thresholds, the field has 2 channels"):
        rare.contingency(field, field, event(0.9, 1.0))


@pytest.mark.parametrize("masked", [False, True])
def test_relative_quantile_error_against_numpy(masked):
    generator = np.random.default_rng(0)
    truth, forecast = generator.gamma(2.0, 3.0, (2, 2, 3, 12, 15)).astype(np.float32)
    mask = generator.random((12, 15)) < 0.8 if masked else np.ones((12, 15), dtype=bool)
    got = rare.relative_quantile_error(
        torch.from_numpy(forecast),
        torch.from_numpy(truth),
        floor=torch.full((3,), 1e-6),
        mask=torch.from_numpy(mask) if masked else None,
    )
    q = 1 - np.logspace(np.log10(max(1e-4, 1 / mask.sum())), -1, 50)
    one, other = (np.quantile(x[..., mask], q, axis=-1) for x in (forecast, truth))
    want = ((one - other) / np.abs(other)).mean(0)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


def test_relative_quantile_error_has_the_sign_of_the_bias_and_a_floor():
    truth = torch.rand(1, 1, 10, 10, generator=torch.Generator().manual_seed(0)) + 1
    low = rare.relative_quantile_error(0.8 * truth, truth, floor=torch.tensor([0.1]))
    assert low.item() == pytest.approx(-0.2, abs=1e-6)
    below = rare.relative_quantile_error(-0.8 * truth, -truth, floor=torch.tensor([0.1]))
    assert below.item() == pytest.approx(0.2, abs=1e-6)
    nothing = torch.zeros(1, 1, 10, 10)
    one = rare.relative_quantile_error(nothing + 1, nothing, floor=torch.tensor([2.0]))
    assert one.item() == pytest.approx(0.5)


# --- events by cell ------------------------------------------------------------------------------


def world(*, domain="weather", frames=600, height=6, width=7, mask=None, seed=0):
    """Hourly noise whose mean and spread differ from cell to cell, with a daily cycle."""
    generator = np.random.default_rng(seed)
    noise = generator.gamma(2.0, 1.0, (frames, 2, height, width))
    for t in range(1, frames):
        noise[t] = 0.7 * noise[t - 1] + 0.3 * noise[t]
    place = np.arange(1.0, height * width + 1).reshape(height, width)
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
        frames=(noise * place + 10 * place + cycle).astype(np.float32),
        times=np.datetime64("2013-01-01", "ns") + np.arange(frames) * np.timedelta64(1, "h"),
        splits={
            "train": (Stretch(first=0, stop=200), Stretch(first=210, stop=360)),
            "val": (Stretch(first=370, stop=400),),
            "test": (Stretch(first=410, stop=frames),),
        },
        local_time=True,
    )


def training(made):
    return np.concatenate([made.frames[:200], made.frames[210:360]])


def with_frames(made, change):
    """A copy with some frames changed."""
    frames = made.frames.copy()
    change(frames)
    return dataclasses.replace(made, frames=frames)


def test_quantiles_of_each_cell_are_numpys_and_of_the_training_split_alone():
    mask = np.ones((6, 7), bool)
    mask[2, 3] = False
    made = world(mask=tuple(map(tuple, mask.tolist())))

    def spoil(frames):
        frames[200:210], frames[360:], frames[:, :, 2, 3] = 1e9, -1e9, np.nan

    found = cell_quantiles(with_frames(made, spoil), (0.02, 0.5, 0.995))
    want = np.quantile(training(made)[..., mask].astype(float), (0.02, 0.5, 0.995), axis=0)
    np.testing.assert_allclose(found.values[..., mask], want, rtol=1e-6)
    np.testing.assert_array_equal(found.maximum[..., mask], training(made)[..., mask].max(0))
    np.testing.assert_array_equal(found.minimum[..., mask], training(made)[..., mask].min(0))
    assert (found.values[..., ~mask] == 0).all()
    assert (found.exact, found.rank_error, found.frames) == (True, 0.0, 350)


@pytest.mark.parametrize("memory", [2**19, 2**14], ids=["one pass", "cells in groups"])
def test_a_split_larger_than_memory_is_summed_up_within_the_stated_rank(memory):
    made = world(frames=6000, height=3, width=5)
    made = dataclasses.replace(
        made,
        splits={
            "train": (Stretch(first=0, stop=5500),),
            "val": (Stretch(first=5600, stop=5700),),
            "test": (Stretch(first=5800, stop=6000),),
        },
    )
    probabilities = (0.005, 0.02, 0.1, 0.5, 0.9, 0.98, 0.995)
    found = cell_quantiles(made, probabilities, memory_bytes=memory)
    assert not found.exact
    assert 0 < found.rank_error < 0.015
    inside = made.frames[:5500]
    for p, values in zip(probabilities, found.values, strict=True):
        rank = (inside <= values).mean(0)
        assert np.abs(rank - p).max() <= found.rank_error + 2 / 5500
    np.testing.assert_array_equal(found.maximum, inside.max(0))
    np.testing.assert_array_equal(found.minimum, inside.min(0))


def test_low_tails_only_where_they_are_extremes():
    names = {
        domain: [e.name for e in by_cell.cell_events(world(domain=domain), past=3, lead=2)]
        for domain in ("weather", "traffic", "fire")
    }
    upper = ["above 90 %", "above 95 %", "above 98 %", "above 99.5 %"]
    assert names["weather"] == ["below 0.5 %", "below 2 %", "below 5 %", "below 10 %", *upper]
    assert names["fire"] == names["traffic"] == upper
    made = world(domain="traffic")
    usual = Climatology.fit(made)
    surges = by_cell.cell_events(made, past=3, lead=2, climatology=usual)
    assert [e.name for e in surges][4:] == ["surge above 95 %", "surge above 98 %"]


def biased(made, seed=1):
    """The truth with noise of each cell's own size."""

    def predict(past, window):
        generator = torch.Generator().manual_seed(seed + int(window.index[0]))
        noise = torch.randn(window.future.shape, generator=generator)
        spread = torch.from_numpy(training(made).std(0))
        return window.future + 0.4 * spread * noise

    return predict


def scored(made, predict, *, past=3, lead=2, batch_size=7):
    usual = Climatology.fit(made)
    windows = WindowDataset(made, "test", past=past, lead=lead)
    known = by_cell.cell_events(made, past=past, lead=lead, climatology=usual)
    found = scoring.score(
        predict,
        windows,
        statistics=statistics(made),
        climatology=usual,
        cell_events=known,
        batch_size=batch_size,
    )
    return windows, known, json.loads(json.dumps(found.to_dict(), allow_nan=False))


def table(hits, misses, false_alarms, correct_negatives):
    return rare.Contingency(
        hits=int(hits),
        misses=int(misses),
        false_alarms=int(false_alarms),
        correct_negatives=int(correct_negatives),
    )


def test_events_by_cell_are_counted_by_window_and_lead():
    """Against plain loops in NumPy; the forecast is the last frame."""
    mask = np.random.default_rng(1).random((6, 7)) < 0.8
    made = world(mask=tuple(map(tuple, mask.tolist())))
    windows, known, scores = scored(made, scoring.persistence(2))
    found = by_cell.EventCounts.from_scores(scores)
    for event in known:
        p = float(event.name.split()[1]) / 100
        limit = np.quantile(training(made).astype(float), p, axis=0).astype(np.float32)
        for c, channel in enumerate(made.grid.channels):
            totals = np.zeros(4)
            for lead in (1, 2):
                series = found.series(channel, event.name, lead=lead)
                for w, start in enumerate(windows.starts):
                    said, seen = (
                        event.sign * made.frames[start + f, c][mask] > event.sign * limit[c][mask]
                        for f in (2, 2 + lead)
                    )
                    want = [said & seen, ~said & seen, said & ~seen, ~said & ~seen]
                    assert series[w].tolist() == [x.sum() for x in want]
                totals += series.sum(0)
                one = table(*series.sum(0))
                by_lead = scores["cell_extremes"]["scores"][channel][event.name]["by_lead"]
                for name in by_cell.SCORES:
                    assert by_lead[name][lead - 1] == pytest.approx(getattr(one, name))
            whole = table(*totals)
            summary = scores["cell_extremes"]["scores"][channel][event.name]
            assert summary["csi"] == pytest.approx(whole.csi)
            assert summary["sedi"] == pytest.approx(whole.sedi)
            assert summary["cells"] == [mask.sum()] * 2
            assert summary["left_out"] == [0, 0]
            assert summary["base_rate"] == pytest.approx((totals[0] + totals[1]) / totals.sum())


def test_cells_where_nothing_can_happen_are_left_out_and_counted():
    made = world()

    def still(frames):
        frames[:, 0, 1, 1] = 5.0  # never changes
        frames[:, 0, 1, 2] = np.where(frames[:, 0, 1, 2] > 0, 0, 0)
        frames[7, 0, 1, 2] = 1.0  # once in 350: within the 99.5 % quantile there is still one
        frames[410:, 0, 1, 1] = 50.0  # an event by its value, where training knew of none

    _, known, scores = scored(with_frames(made, still), scoring.persistence(2))
    found = scores["cell_extremes"]["scores"]
    assert found["in"]["above 90 %"]["cells"] == [40, 40]
    assert found["in"]["above 90 %"]["left_out"] == [2, 2]
    assert found["in"]["below 5 %"]["left_out"] == [2, 2], "0 is the least there is"
    assert found["out"]["below 5 %"]["left_out"] == [0, 0]
    (high,) = [event for event in known if event.name == "above 90 %"]
    assert not high.counted[0, 0, 1, 1]
    assert not high.counted[0, 0, 1, 2], "its 90 % quantile is its floor"


def test_every_cell_has_its_tail_which_one_threshold_for_all_does_not():
    """The premise: pooled, the large cells have all the events."""
    made = world()
    train = training(made)[:, 0]
    pooled = (train > np.quantile(train, 0.9)).mean(0)
    (event,) = [e for e in by_cell.cell_events(made, past=3, lead=2) if e.name == "above 90 %"]
    own = (train > event.thresholds[0, 0]).mean(0)
    assert pooled.min() == 0
    assert pooled.max() > 0.9
    np.testing.assert_allclose(own, 0.1, atol=1 / 350)


def test_a_surge_is_a_rise_beyond_what_is_usual_between_those_hours():
    made = world(domain="traffic")
    usual = Climatology.fit(made)
    windows, known, scores = scored(made, biased(made), batch_size=1000)
    surge = known[-2]
    assert surge.name == "surge above 95 %"
    anomaly = made.frames - usual.at(made.times)
    starts = WindowDataset(made, "train", past=3, lead=2).starts
    for lead in (1, 2):
        rises = anomaly[starts + 2 + lead] - anomaly[starts + 2]
        want = np.quantile(rises, 0.95, axis=0)
        np.testing.assert_allclose(surge.thresholds[lead - 1], want, atol=2e-4)
    whole = windows.gather(torch.arange(len(windows)))
    forecast = biased(made)(whole.past, whole).numpy()
    found = by_cell.EventCounts.from_scores(scores)
    for lead in (1, 2):
        at = windows.starts + 2 + lead
        seen = anomaly[at] - anomaly[windows.starts + 2] > surge.thresholds[lead - 1]
        said = (forecast[:, lead - 1] - usual.at(made.times[at])) - anomaly[
            windows.starts + 2
        ] > surge.thresholds[lead - 1]
        for c, channel in enumerate(made.grid.channels):
            got = found.series(channel, surge.name, lead=lead)[:, :3].sum(0)
            want = [(said & seen)[:, c], (~said & seen)[:, c], (said & ~seen)[:, c]]
            # a value within rounding of a threshold may fall on either side
            np.testing.assert_allclose(got, [x.sum() for x in want], atol=3)
    assert 0.02 < scores["cell_extremes"]["scores"]["in"][surge.name]["base_rate"] < 0.09


def test_intervals_of_event_scores_and_of_their_difference():
    made = world(frames=700)
    rows = {
        name: by_cell.EventCounts.from_scores(scored(made, predict)[2])
        for name, predict in (
            ("still", scoring.persistence(2)),
            ("good", biased(made)),
            ("again", biased(made, seed=500)),
        )
    }
    where = {"channel": "in", "event": "above 90 %", "block": 6}
    alone = by_cell.event_interval([rows["good"]], **where)
    sums = rows["good"].series("in", "above 90 %").sum(0)
    assert alone.value == pytest.approx(sums[0] / sums[:3].sum())
    assert 0 < alone.low < alone.value < alone.high < 1
    rare_one = by_cell.event_interval([rows["good"]], **{**where, "event": "above 99.5 %"})
    assert rare_one.high - rare_one.low > 2 * (alone.high - alone.low)
    better = by_cell.event_difference([rows["good"]], [rows["still"]], **where)
    assert better.low > 0
    assert better.p_value < 0.05
    same = by_cell.event_difference([rows["good"]], [rows["again"]], score="sedi", **where)
    assert not same.excludes_zero
    itself = by_cell.event_difference([rows["good"]], [rows["good"]], lead=2, **where)
    assert (itself.difference, itself.low, itself.high, itself.p_value) == (0, 0, 0, 1)
    seeds = [rows["good"], rows["again"], rows["good"]]
    assert by_cell.event_interval(seeds, **where).seeds == 3
    with pytest.raises(S2KDError, match=r"1 seeds and .* against 3"):
        by_cell.event_difference([rows["good"]], seeds, **where)
    with pytest.raises(S2KDError, match="no 'above 91 %' among"):
        rows["good"].series("in", "above 91 %")


def test_planes_of_one_moment_are_counted_together():
    counts = np.random.default_rng(3).integers(0, 9, (60, 2, 1, 1, 3))
    scores = {
        "cell_extremes": {
            "events": ["above 95 %"],
            "counts": by_cell._packed(counts),
            "scores": {"t": {"above 95 %": {"cells": [40, 40]}}},
        },
        "conventions": {"overlap": 3, "at_once": 4},
        "window_mse": [0.0] * 60,
    }
    found = by_cell.EventCounts.from_scores(scores)
    assert found.counts.shape == (15, 2, 1, 1, 3)
    assert (found.counts[7] == counts[[7, 22, 37, 52]].sum(0)).all()
    assert found.series("t", "above 95 %").sum(1) == pytest.approx(4 * 2 * 40)
    single = by_cell.EventCounts.from_scores({**scores, "conventions": {"overlap": 3}})
    where = {"channel": "t", "event": "above 95 %"}
    one, other = (by_cell.event_interval([c], **where) for c in (found, single))
    assert one.value == pytest.approx(other.value)
    assert (one.windows, other.windows) == (15, 60)
    assert one.block >= 3


def test_bounds_of_an_event_score_stay_within_its_range():
    # every hit falls in the first sixth of the windows: bare, the lower bound lies below 0
    counts = np.zeros((120, 2, 1, 1, 3), dtype=np.int64)
    counts[..., 1:] = [3, 1]
    counts[:20, ..., 0] = 5
    made = by_cell.EventCounts(
        channels=("t",), events=("above 95 %",), counts=counts, cells=np.full((2, 1, 1), 99)
    )
    where = {"channel": "t", "event": "above 95 %", "block": 6}
    for score, (least, most) in by_cell.RANGES.items():
        found = by_cell.event_interval([made], score=score, **where)
        assert least <= found.low < found.value < found.high <= most, score
    table = counts.sum((1, 2, 3))[None]
    bare = function_interval(
        table * 1.0, lambda means: means[..., 0] / means.sum(-1), block=6, resamples=1000
    )
    csi = by_cell.event_interval([made], **where)
    assert bare.low < 0
    assert (csi.value, csi.low, csi.high) == pytest.approx((bare.value, 0, bare.high))


def test_an_event_that_was_never_seen_has_no_score_and_no_interval():
    counts = by_cell.EventCounts(
        channels=("t",),
        events=("above 99.5 %",),
        counts=np.zeros((60, 2, 1, 1, 3), dtype=np.int64),
        cells=np.full((2, 1, 1), 9),
    )
    found = by_cell.event_interval([counts], channel="t", event="above 99.5 %", block=3)
    assert (found.value, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize("name", by_cell.SCORES)
def test_scores_of_many_tables_are_those_of_each(name):
    generator = np.random.default_rng(0)
    tables = generator.integers(0, 4, (200, 4)) * generator.integers(1, 50, (200, 4))
    want = [getattr(table(*counts), name) for counts in tables]
    np.testing.assert_allclose(by_cell.event_score(name, tables.astype(float)), want, atol=1e-12)


def test_peaks_and_quantile_errors_by_lead():
    made = world(domain="fire")

    def predict(past, window):
        future = window.future.clone()
        future[:, 1] *= 0.9
        return future

    windows, _, scores = scored(made, predict)
    truth = np.stack([made.frames[s + 3 : s + 5] for s in windows.starts]).max((-2, -1))
    forecast = truth * np.array([1, 0.9], np.float32)[:, None]
    for c, channel in enumerate(made.grid.channels):
        peaks = scores["peaks"][channel]
        error = forecast[..., c].max(1) - truth[..., c].max(1)
        np.testing.assert_allclose(peaks["window_error"], error, rtol=1e-4, atol=1e-3)
        assert peaks["bias"] == pytest.approx(error.mean(), rel=1e-4)
        assert peaks["mae"] == pytest.approx(-error.mean(), rel=1e-4)
        want = [0, -0.1 * truth[:, 1, c].mean()]
        assert peaks["by_lead"]["bias"] == pytest.approx(want, rel=1e-4)
        curve = scores["by_lead"][channel]["relative_quantile_error"]
        assert curve == pytest.approx([0, -0.1], abs=1e-4)
        assert "relative_quantile_error_low" not in scores["by_lead"][channel]


def test_low_quantiles_count_the_other_way_round():
    """Where the cold is missed it is below 0, as the other is where the heat is."""
    made = world()

    def mild(past, window):
        return torch.maximum(window.future, window.future.mean((-2, -1), keepdim=True))

    scores = scored(made, mild)[2]
    for channel in made.grid.channels:
        curves = scores["by_lead"][channel]
        assert max(curves["relative_quantile_error_low"]) < -0.1
        assert curves["relative_quantile_error"] == pytest.approx([0, 0], abs=1e-6)


def test_results_of_before_are_still_read():
    made = world()
    scores = scored(made, scoring.persistence(2))[2]
    old = {k: v for k, v in scores.items() if k not in ("cell_extremes", "peaks")}
    assert scoring.Scores.from_dict(old).cell_extremes == {}
    with pytest.raises(S2KDError, match="holds no events by cell; evaluate the run again"):
        by_cell.EventCounts.from_scores(old)


def test_the_report_prints_them_and_does_without_where_they_are_missing(tmp_path):
    made = world(frames=560)
    scores = scoring.Scores.from_dict(scored(made, biased(made))[2])

    def page(scores):
        about = {"data": "made", "preset": "p", "backbone": "unet", "split": "test", "seed": 1}
        row = scoring.result_row(scores=scores, role="student", method="baseline", **about)
        write_report(tmp_path / "report.html", rows=[row])
        return (tmp_path / "report.html").read_text()

    text = page(scores)
    found = by_cell.EventCounts.from_scores(scores.to_dict())
    where = {"channel": "out", "event": "above 95 %"}
    want = by_cell.event_interval([found], **where, resamples=400)
    assert f"<td>{want.value:.3f}</td><td>{want.low:.3f} to {want.high:.3f}</td>" in text
    assert "surge" not in text
    old = page(dataclasses.replace(scores, cell_extremes={}))
    assert "by each cell" not in old
