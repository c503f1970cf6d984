"""Intervals on series whose truth is known, and against a bootstrap of another library."""

import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap
from scipy import stats

from s2kd.core.types import S2KDError
from s2kd.evaluation.significance import (
    block_for,
    decorrelation_time,
    default_block,
    difference_estimate,
    holm,
    mean_estimate,
    ratio_estimate,
    smooth_estimate,
    winner,
    with_holm,
)


def autoregressive(generator, series, windows, rho, mean=0.0):
    """AR(1) series of unit variance."""
    noise = generator.standard_normal((series, windows)) * np.sqrt(1 - rho**2)
    values = np.empty_like(noise)
    values[:, 0] = generator.standard_normal(series)
    for t in range(1, windows):
        values[:, t] = rho * values[:, t - 1] + noise[:, t]
    return values + mean


def coverage(estimates, truth):
    return np.mean([e.low <= truth <= e.high for e in estimates])


# --- means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "windows", "block", "mean"),
    [(0.7, 300, 15, 0.0), (0.0, 300, 1, 0.3), (0.5, 300, 10, -0.2), (0.5, 40, 10, 0.0)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(rho, windows, block, mean):
    series = autoregressive(np.random.default_rng(1), 800, windows, rho, mean)
    estimates = [mean_estimate(values, block=block) for values in series]
    assert 0.92 <= coverage(estimates, mean) <= 0.98
    if mean == 0 and windows == 300:
        # the same statement from the other side
        false = np.mean([e.p_value < 0.05 for e in estimates])
        assert false == pytest.approx(1 - coverage(estimates, 0.0))


def test_single_windows_would_have_claimed_far_too_much():
    """The premise of blocks."""
    series = autoregressive(np.random.default_rng(1), 200, 300, 0.7)
    assert np.mean([mean_estimate(values, block=1).excludes_zero for values in series]) > 0.2


@pytest.mark.parametrize("block", [1, 6])
def test_the_interval_agrees_with_archs_circular_block_bootstrap(block):
    """arch resamples blocks of the same length; the flat-top window widens dependent series."""
    series = autoregressive(np.random.default_rng(2), 1, 600, 0.4 * (block > 1), 0.5)[0]
    resampled = CircularBlockBootstrap(block, series, seed=0)
    low, high = resampled.conf_int(np.mean, reps=4000, method="basic")[:, 0]
    estimate = mean_estimate(series, block=block)
    ratio = (estimate.high - estimate.low) / (high - low)
    assert ratio == pytest.approx(1.0, abs=0.04) if block == 1 else 1.0 < ratio < 1.3


def test_blocks_of_one_give_students_interval_and_p_value():
    values = np.random.default_rng(0).normal(0.2, 1, 60)
    estimate = mean_estimate(values, block=1)
    expected = stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.p_value == pytest.approx(expected.pvalue)


def test_a_difference_has_its_sign_and_its_reference():
    generator = np.random.default_rng(0)
    hard = autoregressive(generator, 1, 400, 0.9)[0] ** 2 + 1
    better = hard - 0.05 + 0.02 * autoregressive(generator, 1, 400, 0.5)[0]
    estimate = difference_estimate(better, hard, block=10)
    assert estimate.value == pytest.approx(float((better - hard).mean()))
    assert estimate.high < 0
    assert estimate.p_value < 0.01
    mirrored = difference_estimate(hard, better, block=10)
    assert mirrored.low == pytest.approx(-estimate.high)
    percent = estimate.scaled(-100 / estimate.reference)
    assert percent.value == pytest.approx(100 * (1 - better.mean() / hard.mean()))
    assert percent.low < percent.value < percent.high


def test_no_difference_and_a_constant_one():
    errors = np.random.default_rng(0).random(40)
    same = difference_estimate(errors, errors, block=4)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    shifted = difference_estimate(errors + 0.25, errors, block=4)
    assert (shifted.low, shifted.high) == pytest.approx((0.25, 0.25))
    assert shifted.p_value == 0


def test_few_blocks_give_no_p_value_and_fewer_than_four_no_bounds():
    errors = np.random.default_rng(0).random((2, 36))
    few = difference_estimate(*errors, block=6)
    assert few.p_value is None
    assert few.low < few.value < few.high
    assert few.note == "6.0 blocks of 6 windows: too few for a p-value"
    assert difference_estimate(*errors, block=3).p_value is not None
    none = difference_estimate(*errors, block=10)
    assert (none.low, none.high, none.p_value) == (None, None, None)
    assert none.note == "36 windows hold fewer than 4 blocks of 10"
    assert none.value == pytest.approx((errors[0] - errors[1]).mean())


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros(10), np.zeros(12), r"\(10,\) and \(12,\)"),
        (np.zeros((3, 40)), np.zeros((4, 40)), r"\(3, 40\) and \(4, 40\)"),
        (np.full(10, np.nan), np.zeros(10), "not finite"),
    ],
)
def test_series_that_cannot_be_paired_are_refused(first, second, message):
    with pytest.raises(S2KDError, match=message):
        difference_estimate(first, second, block=1)


# --- block length --------------------------------------------------------------------------------


def test_blocks_span_overlapping_windows_and_leave_ten_of_them_where_they_can():
    assert default_block(600, overlap=24) == 48
    assert default_block(300, overlap=24) == 30
    # too few windows: never a block shorter than what shares frames
    assert default_block(60, overlap=24) == 24
    assert default_block(3, overlap=1) == 1


def test_the_decorrelation_time_is_that_of_theory():
    """AR(1): 1 + 2 Σ ρᵏ = (1 + ρ) / (1 − ρ)."""
    generator = np.random.default_rng(0)
    for rho in (0.0, 0.5, 0.8):
        series = autoregressive(generator, 30, 3000, rho)
        times = np.mean([decorrelation_time(values) for values in series])
        assert times == pytest.approx((1 + rho) / (1 - rho) + 0.5, abs=0.8)  # rounded up
    assert decorrelation_time(np.ones(50)) == 1
    slow = autoregressive(generator, 1, 2000, 0.95)[0]
    assert block_for([slow], overlap=2) == decorrelation_time(slow) > 20
    assert block_for([np.ones(2000)], overlap=9) == 18


def test_a_harder_run_is_no_memory():
    quiet = np.random.default_rng(0).standard_normal(120)
    runs = quiet + np.repeat([0.0, 8.0], 60)
    assert decorrelation_time(runs) > 20
    assert decorrelation_time(runs, (60, 60)) == decorrelation_time(quiet) <= 3
    assert block_for([runs], overlap=2, runs=(60, 60)) < block_for([runs], overlap=2)


# --- seeds ---------------------------------------------------------------------------------------


def trained(generator, seeds, windows, *, spread, rho=0.6, mean=0.0):
    """Differences by seed and window: a bias per seed, a shared part and a part of each."""
    shared = autoregressive(generator, 1, windows, rho)[0]
    own = autoregressive(generator, seeds, windows, rho)
    return mean + spread * generator.standard_normal(seeds)[:, None] + 0.5 * (shared + own)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.05), (3, 0.5), (5, 0.05), (5, 0.5)])
def test_seeds_widen_the_interval_to_what_another_training_would_show(seeds, spread):
    generator = np.random.default_rng(12)
    estimates = [
        mean_estimate(trained(generator, seeds, 240, spread=spread, mean=0.1), block=12)
        for _ in range(400)
    ]
    assert 0.9 <= coverage(estimates, 0.1) <= 0.985


def test_averaging_seeds_speaks_only_of_the_trained_models():
    """The premise of their variance: the seeds' luck would pass for the method's merit."""
    generator = np.random.default_rng(2)
    estimates = [
        mean_estimate(trained(generator, 5, 240, spread=0.5).mean(0), block=12) for _ in range(100)
    ]
    assert coverage(estimates, 0.0) < 0.7


def test_seeds_alone_give_students_interval_and_two_are_averaged():
    seeds = np.array([0.1, 0.2, 0.6])
    estimate = mean_estimate(seeds[:, None] + np.zeros((3, 60)), block=2)
    interval = stats.ttest_1samp(seeds, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    pair = trained(np.random.default_rng(0), 2, 100, spread=1.0)
    assert mean_estimate(pair, block=4) == mean_estimate(pair.mean(0), block=4)
    assert (estimate.seeds, mean_estimate(pair, block=4).seeds) == (3, 1)


# --- functions of means --------------------------------------------------------------------------


def three_methods(generator, *, closed, gap, seeds=1, windows=240):
    """Errors of baseline, student and teacher over windows of unlike difficulty."""
    hard = 2 + 0.5 * autoregressive(generator, 1, windows, 0.6)
    student, teacher = (0.3 * autoregressive(generator, seeds, windows, 0.6) for _ in range(2))
    return hard + gap + 0 * student, hard + (1 - closed) * gap + student, hard + teacher


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_ratio_is_covered(seeds):
    generator, estimates = np.random.default_rng(4), []
    for _ in range(300):
        base, student, teacher = three_methods(generator, closed=0.6, gap=0.4, seeds=seeds)
        estimates.append(ratio_estimate(base - student, base - teacher, block=12))
        expected = (base - student).mean() / (base - teacher).mean()
        assert estimates[-1].value == pytest.approx(expected)
    assert coverage(estimates, 0.6) >= 0.92


def test_a_ratio_has_fiellers_bounds():
    """Independent windows: the roots of the quadratic with Student's quantile."""
    generator = np.random.default_rng(1)
    bottom = 1 + 0.5 * generator.standard_normal(80)
    top = 0.5 * bottom + 0.3 * generator.standard_normal(80)
    estimate = ratio_estimate(top, bottom, block=1)
    spread = np.cov(top, bottom) / 80 * stats.t.ppf(0.975, 79) ** 2
    quadratic = [
        bottom.mean() ** 2 - spread[1, 1],
        -2 * (top.mean() * bottom.mean() - spread[0, 1]),
        top.mean() ** 2 - spread[0, 0],
    ]
    assert [estimate.low, estimate.high] == pytest.approx(sorted(np.roots(quadratic)))


def test_a_denominator_next_to_nothing_leaves_no_bounds():
    base, student, teacher = three_methods(np.random.default_rng(0), closed=0.5, gap=0.004)
    estimate = ratio_estimate(base - student, base - teacher, block=12)
    assert (estimate.low, estimate.note) == (None, "the denominator is compatible with 0")
    zero = ratio_estimate(np.ones(80), np.zeros(80), block=4)
    assert (zero.value, zero.low) == (None, None)


def test_a_score_of_counts_is_covered():
    """CSI of events that come in spells, against the value of a very long record."""
    generator = np.random.default_rng(3)

    def counts(windows):
        rate = np.exp(autoregressive(generator, 1, windows, 0.7)[0])
        observed = generator.poisson(4 * rate)
        hits = generator.binomial(observed, 0.6)
        return np.stack([hits, observed - hits, generator.poisson(1.5 * rate)], -1).astype(float)

    def csi(means):
        return means[..., 0] / means.sum(-1)

    truth = csi(counts(200_000).mean(0))
    estimates = [smooth_estimate(counts(240), csi, block=12) for _ in range(300)]
    assert 0.9 <= coverage(estimates, truth) <= 0.985
    undefined = smooth_estimate(np.zeros((60, 3)), lambda means: means[..., 0] * np.nan, block=2)
    assert (undefined.value, undefined.low) == (None, None)


# --- tables --------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.04, None, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.06)]


def test_an_estimate_survives_only_the_comparisons_of_its_table():
    generator = np.random.default_rng(0)
    near, far = (
        mean_estimate(shift + 0.1 * generator.standard_normal(200), block=2)
        for shift in (-0.0175, -0.1)
    )
    first, second, none = with_holm([near, far, None])
    assert (first.survives, second.survives, none) == (True, True, None)
    assert first.p_holm == first.p_value, "the larger of two is not raised"
    many = with_holm([near] * 12)
    assert many[0].excludes_zero
    assert not many[0].survives


def test_under_the_null_no_table_claims_more_than_its_level():
    """Five methods alike: a false claim anywhere at most once in twenty tables."""
    generator, false, bold = np.random.default_rng(8), 0, 0
    for _ in range(200):
        errors = 3 + 0.4 * autoregressive(generator, 5, 200, 0.6)
        versus = [difference_estimate(other, errors[0], block=10) for other in errors[1:]]
        false += any(e.p_holm < 0.05 for e in with_holm(versus))
        names = dict(zip("abcde", errors, strict=True))
        bold += best_of(names) is not None
    assert false / 200 <= 0.08
    assert bold / 200 <= 0.05


def best_of(errors):
    means = {name: float(values.mean()) for name, values in errors.items()}
    return winner(means, lambda a, b: difference_estimate(errors[a], errors[b], block=10))


def test_a_clear_winner_is_named_and_a_tie_is_not():
    generator = np.random.default_rng(0)
    hard = 3 + autoregressive(generator, 5, 200, 0.6)
    errors = {"baseline": hard, "good": hard - 0.2 + 0.1 * generator.random((5, 200))}
    assert best_of(errors) == "good"
    errors["twin"] = errors["good"] + 0.1 * generator.standard_normal((5, 200))
    assert best_of(errors) is None
    assert best_of({"alone": hard}) is None
