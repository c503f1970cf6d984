"""The bootstrap on made-up series whose truth is known; Holm's correction by hand."""

import numpy as np
import pytest

from s2kd.significance import compare, default_block, holm, paired_bootstrap
from s2kd.types import S2KDError


def autocorrelated(generator, series, windows, rho, mean=0.0):
    """AR(1) series of unit variance."""
    noise = generator.standard_normal((series, windows)) * np.sqrt(1 - rho**2)
    found = np.empty_like(noise)
    found[:, 0] = generator.standard_normal(series)
    for t in range(1, windows):
        found[:, t] = rho * found[:, t - 1] + noise[:, t]
    return found + mean


@pytest.mark.parametrize(("rho", "block", "mean"), [(0.7, 15, 0.0), (0.0, 1, 0.3), (0.5, 10, -0.2)])
def test_the_interval_covers_the_truth_as_often_as_it_says(rho, block, mean):
    generator = np.random.default_rng(1)
    series = autocorrelated(generator, 400, 300, rho, mean)
    base = generator.random(300)
    found = [
        paired_bootstrap(base + s, base, block=block, resamples=400, seed=i)
        for i, s in enumerate(series)
    ]
    covered = np.mean([f.low <= mean <= f.high for f in found])
    assert 0.91 <= covered <= 0.98
    if mean == 0:
        # the same statement from the other side: false alarms where there is nothing
        assert np.mean([f.p_value < 0.05 for f in found]) == pytest.approx(1 - covered, abs=0.01)


def test_single_windows_would_have_claimed_far_too_much():
    """The premise of drawing blocks at all."""
    series = autocorrelated(np.random.default_rng(1), 200, 300, 0.7)
    nothing = np.zeros(300)
    false = [paired_bootstrap(s, nothing, block=1, resamples=300).p_value < 0.05 for s in series]
    assert np.mean(false) > 0.2


def test_a_real_gain_is_found_with_its_sign():
    generator = np.random.default_rng(0)
    hard = autocorrelated(generator, 1, 400, 0.9)[0] ** 2 + 1
    better = hard - 0.05 + 0.02 * autocorrelated(generator, 1, 400, 0.5)[0]
    found = paired_bootstrap(better, hard, block=10)
    assert found.difference == pytest.approx(float((better - hard).mean()))
    assert found.high < 0
    assert found.p_value < 0.01
    assert (found.windows, found.block, found.confidence) == (400, 10, 0.95)
    mirrored = paired_bootstrap(hard, better, block=10)
    assert mirrored.low == pytest.approx(-found.high, rel=1e-6)


def test_interval_and_p_value_agree():
    generator = np.random.default_rng(3)
    for i in range(60):
        gain = autocorrelated(generator, 1, 120, 0.4, 0.2)[0]
        found = paired_bootstrap(gain, np.zeros(120), block=6, resamples=999, seed=i)
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_the_standard_error_is_that_of_the_blocks():
    """Blocks of one are plain sampling: the interval is Student's, up to resampling noise."""
    from scipy.stats import t

    gain = np.random.default_rng(0).standard_normal(60)
    found = paired_bootstrap(gain, np.zeros(60), block=1, resamples=20_000)
    half = t.ppf(0.975, 59) * gain.std(ddof=1) / np.sqrt(60)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_no_difference_and_a_constant_one():
    errors = np.random.default_rng(0).random(40)
    same = paired_bootstrap(errors, errors, block=4)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    shifted = paired_bootstrap(np.full(40, 0.75), np.full(40, 0.5), block=4, resamples=999)
    assert (shifted.low, shifted.high) == (0.25, 0.25)
    assert shifted.p_value == pytest.approx(1e-3)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_compare_averages_seeds_and_adjusts():
    generator = np.random.default_rng(0)
    base = generator.random((3, 80)) + 1
    errors = {
        "plain": base,
        "better": base - 0.2 + 0.1 * generator.random((3, 80)),
        "same": base,
    }
    better, same = compare(errors, reference="plain", block=4)
    assert (better["method"], better["reference"], better["seeds"]) == ("better", "plain", 3)
    assert better["difference"] == pytest.approx((errors["better"] - base).mean())
    assert better["p_holm"] == pytest.approx(2 * better["p_value"])
    assert same["p_value"] == same["p_holm"] == 1
    assert same["difference"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(S2KDError, match="no errors of 'blind'"):
        compare(errors, reference="blind", block=4)


def test_blocks_span_overlapping_windows_but_leave_enough_of_them():
    assert default_block(600, overlap=24) == 48
    assert default_block(60, overlap=24) == 10
    assert default_block(3, overlap=24) == 1


def test_what_is_refused():
    with pytest.raises(S2KDError, match="10 windows against 12"):
        paired_bootstrap(np.zeros(10), np.zeros(12), block=1)
    with pytest.raises(S2KDError, match="fewer than 4 blocks of 3"):
        paired_bootstrap(np.zeros(10), np.zeros(10), block=3)
    with pytest.raises(S2KDError, match="not finite"):
        paired_bootstrap(np.full(10, np.nan), np.zeros(10), block=1)
