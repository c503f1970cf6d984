"""Event scores by hand, against NumPy quantiles, and their limits."""

import math

import numpy as np
import pytest
import torch

from s2kd import extremes as rare
from s2kd.types import S2KDError, Statistics

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
