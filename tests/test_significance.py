"""The bootstrap on made-up series whose truth is known; Holm's correction by hand."""

import numpy as np
import pytest

from s2kd.core.types import S2KDError
from s2kd.evaluation.significance import (
    adjusted,
    block_for,
    by_moment,
    compare,
    decorrelation_time,
    default_block,
    exceeds_share,
    function_interval,
    gap_closed_interval,
    hierarchical_bootstrap,
    holm,
    paired_bootstrap,
    ratio_interval,
    runs_of,
    share_ratio_interval,
    winner,
)


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
    found = paired_bootstrap(gain, np.zeros(60), block=1, resamples=8000)
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
    assert holm([0.04, None, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.06)]


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
        compare(errors, reference="no_text", block=4)


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
        series = autocorrelated(generator, 30, 3000, rho)
        found = np.mean([decorrelation_time(s) for s in series])
        # whole numbers, rounded up
        assert found == pytest.approx((1 + rho) / (1 - rho) + 0.5, abs=0.8)
    assert decorrelation_time(np.ones(50)) == 1
    slow = autocorrelated(generator, 1, 2000, 0.95)[0]
    assert block_for([slow[:2000]], overlap=2) == decorrelation_time(slow) > 20
    assert block_for([np.ones(2000)], overlap=9) == 18


def test_few_blocks_give_no_p_value():
    errors = np.random.default_rng(0).random((2, 36))
    few = paired_bootstrap(*errors, block=6)
    assert few.p_value is None
    assert few.low < few.difference < few.high
    assert few.note == "6.0 blocks of 6 windows: too few for a p-value"
    assert paired_bootstrap(*errors, block=3).p_value is not None
    (row,) = compare({"a": errors[:1], "b": errors[1:]}, reference="a", block=6)
    assert (row["p_value"], row["p_holm"]) == (None, None)
    (row,) = compare({"a": errors[:1], "b": errors[1:]}, reference="a", block=20)
    assert (row["low"], row["high"], row["p_holm"]) == (None, None, None)
    assert row["note"] == "36 windows hold fewer than 4 blocks of 20: nothing can be said"
    assert row["difference"] == pytest.approx((errors[1] - errors[0]).mean())


# --- seeds ---------------------------------------------------------------------------------------


def trained(generator, seeds, windows, *, spread, rho=0.6, mean=0.0):
    """Differences by seed and window: a bias of each seed, a part all share, a part of its own."""
    shared, own = autocorrelated(generator, 2, windows, rho)[0], None
    own = autocorrelated(generator, seeds, windows, rho)
    return mean + spread * generator.standard_normal(seeds)[:, None] + 0.5 * (shared + own)


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_drawing_seeds_too_covers_what_another_training_would_show(spread):
    generator = np.random.default_rng(12)
    covered = false = 0
    for i in range(160):
        gain = trained(generator, 5, 240, spread=spread, mean=0.1)
        found = hierarchical_bootstrap(gain, np.zeros((5, 240)), block=12, resamples=300, seed=i)
        covered += found.low <= 0.1 <= found.high
        none = hierarchical_bootstrap(gain - 0.1, 0 * gain, block=12, resamples=300, seed=i + 999)
        false += none.p_value < 0.05
    assert 0.91 <= covered / 160 <= 0.985
    assert false / 160 <= 0.09


def test_averaging_seeds_speaks_only_of_the_models_there_are():
    """The premise of drawing them: the seeds' luck would pass for the method's merit."""
    generator, covered = np.random.default_rng(2), 0
    for i in range(100):
        gain = trained(generator, 5, 240, spread=0.5)
        found = paired_bootstrap(gain.mean(0), np.zeros(240), block=12, resamples=300, seed=i)
        covered += found.low <= 0 <= found.high
    assert covered < 70


def test_one_seed_counts_nothing_but_the_windows():
    generator = np.random.default_rng(0)
    gain = np.repeat(autocorrelated(generator, 1, 200, 0.5, 0.1), 3, axis=0)
    both = hierarchical_bootstrap(gain, np.zeros((3, 200)), block=8)
    one = paired_bootstrap(gain[0], np.zeros(200), block=8)
    assert both.difference == pytest.approx(one.difference)
    assert both.high == pytest.approx(one.high, rel=0.02)
    assert (both.seeds, one.seeds) == (3, 1)


def test_seeds_must_be_enough_and_matched():
    with pytest.raises(S2KDError, match="2 of them say nothing of their spread"):
        hierarchical_bootstrap(np.zeros((2, 40)), np.ones((2, 40)), block=2)
    with pytest.raises(S2KDError, match="3 seeds against 4"):
        hierarchical_bootstrap(np.zeros((3, 40)), np.ones((4, 40)), block=2)


def test_three_seeds_are_not_drawn_but_give_students_bounds():
    """Drawing one of three three times leaves no spread to be divided by: bounds were absurd."""
    from scipy.stats import t

    generator, covered, wide = np.random.default_rng(8), 0, []
    for i in range(150):
        gain = trained(generator, 3, 240, spread=0.5, mean=0.1)
        found = hierarchical_bootstrap(gain, np.zeros((3, 240)), block=12, resamples=300, seed=i)
        covered += found.low <= 0.1 <= found.high
        wide.append(found.high - found.low)
    assert 0.9 <= covered / 150 <= 0.99
    # seeds dominate: Student's with two degrees of freedom
    assert np.median(wide) / 2 < 1.3 * t.ppf(0.975, 2) * np.hypot(0.5, 0.2) / np.sqrt(3)
    seeds = np.array([[0.1], [0.2], [0.6]]) + np.zeros((3, 60))  # windows without any spread
    found = hierarchical_bootstrap(seeds, np.zeros((3, 60)), block=2)
    half = t.ppf(0.975, 2) * seeds[:, 0].std(ddof=1) / np.sqrt(3)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.03)


# --- what windows share ------------------------------------------------------------------------


def test_windows_of_one_moment_are_drawn_once():
    generator, false, naive = np.random.default_rng(5), 0, 0
    for i in range(120):
        # ten planes of one scene: what they share is the same in each
        planes = autocorrelated(generator, 1, 60, 0.3) + 0.2 * generator.standard_normal((10, 60))
        errors = planes.ravel()
        at_once = by_moment(errors, 10)
        assert at_once.mean() == pytest.approx(errors.mean())
        for series, block in ((at_once, 5), (errors, 5)):
            found = paired_bootstrap(series, 0 * series, block=block, resamples=300, seed=i)
            if series is errors:
                naive += found.excludes_zero
            else:
                false += found.excludes_zero
    assert false / 120 <= 0.1
    assert naive / 120 > 0.4, "the premise: planes taken for evidence of their own"
    by_hand = by_moment(np.array([[1.0, 2, 3, 5, 6, 7], [0, 0, 0, 2, 2, 2]]), 2)
    assert by_hand.tolist() == [[3, 4, 5], [1, 1, 1]]
    assert by_moment(errors, 1) == pytest.approx(errors)


def test_a_harder_run_is_no_memory():
    quiet = np.random.default_rng(0).standard_normal(120)
    runs = quiet + np.repeat([0.0, 8.0], 60)
    assert decorrelation_time(runs) > 20
    assert decorrelation_time(runs, (60, 60)) == decorrelation_time(quiet) <= 3
    assert block_for([runs], overlap=2, runs=(60, 60)) < block_for([runs], overlap=2)
    scores = {"by_group": {"a": {"windows": 60}, "b": {"windows": 60}}, "window_mse": [0.0] * 120}
    assert runs_of(scores) == (60, 60)
    assert runs_of({**scores, "conventions": {"at_once": 2}}) == ()
    assert runs_of({"window_mse": [0.0]}) == ()


def test_what_survives_the_other_comparisons_of_its_table():
    generator = np.random.default_rng(0)
    base = generator.random(200)
    near, far = (base + d + 0.1 * generator.standard_normal(200) for d in (-0.0075, -0.1))
    found = [paired_bootstrap(one, base, block=2) for one in (near, far)]
    assert all(one.excludes_zero for one in found)
    assert found[0].base == pytest.approx(base.mean())
    first, second, none = adjusted([*found, None])
    assert (first.survives, second.survives, none) == (True, True, None)
    assert first.p_holm == first.p_value, "the larger of two is not raised"
    many = adjusted([found[0]] * 12)
    assert many[0].p_holm == pytest.approx(12 * found[0].p_value)
    assert many[0].excludes_zero
    assert not many[0].survives


# --- ratios --------------------------------------------------------------------------------------


def three_methods(generator, *, closed, gap, seeds=1, windows=240):
    """Errors of baseline, student and teacher over windows of unlike difficulty."""
    hard = 2 + 0.5 * autocorrelated(generator, 1, windows, 0.6)
    one, other = (0.3 * autocorrelated(generator, seeds, windows, 0.6) for _ in range(2))
    return hard + gap + 0 * one, hard + (1 - closed) * gap + one, hard + other


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_gap_closed_is_covered(seeds):
    generator, covered, claimed = np.random.default_rng(4), 0, 0
    for i in range(120):
        parts = three_methods(generator, closed=0.6, gap=0.4, seeds=seeds)
        found = gap_closed_interval(*parts, block=12, seed=i)
        assert found.value == pytest.approx(
            (parts[0] - parts[1]).mean() / (parts[0] - parts[2]).mean()
        )
        covered += found.low <= 0.6 <= found.high
        claimed += found.low > 0.6
    assert covered / 120 >= 0.91
    assert claimed / 120 <= 0.07


def test_a_gap_that_is_not_there_has_no_bounds():
    generator = np.random.default_rng(0)
    parts = three_methods(generator, closed=0.5, gap=0.004)
    assert gap_closed_interval(*parts, block=12).low is None
    same = np.ones(80)
    for teacher in (same, same + 1):
        none = gap_closed_interval(same, same - 0.1, teacher, block=4)
        assert (none.value, none.low, none.note) == (
            None,
            None,
            "the teacher is no better than the baseline",
        )


def test_fieller_by_hand():
    """Independent windows: the roots of the quadratic with Student's quantile."""
    from scipy.stats import t

    generator = np.random.default_rng(1)
    bottom = 1 + 0.5 * generator.standard_normal(80)
    top = 0.5 * bottom + 0.3 * generator.standard_normal(80)
    found = ratio_interval(top, bottom, block=1, resamples=8000)
    spread = np.cov(top, bottom) / 80 * t.ppf(0.975, 79) ** 2
    quadratic = [
        bottom.mean() ** 2 - spread[1, 1],
        -2 * (top.mean() * bottom.mean() - spread[0, 1]),
        top.mean() ** 2 - spread[0, 0],
    ]
    assert [found.low, found.high] == pytest.approx(sorted(np.roots(quadratic)), rel=0.02)


def test_twice_the_share_of_another():
    generator = np.random.default_rng(0)
    baseline, student, _ = three_methods(generator, closed=0.9, gap=1.0)
    other = baseline - 0.3 + 0.2 * autocorrelated(generator, 1, 240, 0.6)
    found = share_ratio_interval(baseline, student, other, block=12)
    assert found.value == pytest.approx((baseline - student).mean() / (baseline - other).mean())
    assert found.low > 2
    assert exceeds_share(baseline, student, other, block=12).low > 0
    assert exceeds_share(baseline, student, other, times=4.0, block=12).low < 0
    useless = share_ratio_interval(baseline, student, baseline + 1e-3 * other, block=12)
    assert useless.value < 0


def test_a_score_of_counts_is_covered():
    """CSI of events that come in spells, against the value of a very long record."""
    generator, windows = np.random.default_rng(3), 240

    def counted(windows):
        rate = np.exp(autocorrelated(generator, 1, windows, 0.7)[0])
        seen = generator.poisson(4 * rate)
        hits = generator.binomial(seen, 0.6)
        return np.stack([hits, seen - hits, generator.poisson(1.5 * rate)], -1).astype(float)

    def csi(means):
        return means[..., 0] / means.sum(-1)

    truth = csi(counted(200_000).mean(0))
    found = [
        function_interval(counted(windows), csi, block=12, resamples=300, seed=i)
        for i in range(200)
    ]
    assert 0.9 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.985
    never = function_interval(np.zeros((60, 3)), lambda m: m[..., 0] * np.nan, block=2)
    assert (never.value, never.low, never.note) == (None, None, "")


# --- tables --------------------------------------------------------------------------------------


def judged(made, *, block=None, overlap=1, draw_seeds=False, seed=0):
    def against(one, other):
        pair = made[one], made[other]
        if draw_seeds:
            size = block or block_for([pair[0].mean(0) - pair[1].mean(0)], overlap=overlap)
            return hierarchical_bootstrap(*pair, block=size, seed=seed)
        pair = pair[0].mean(0), pair[1].mean(0)
        size = block or block_for([pair[0] - pair[1]], overlap=overlap)
        return paired_bootstrap(*pair, block=size, seed=seed)

    return winner({name: float(errors.mean()) for name, errors in made.items()}, against)


def test_under_the_null_no_table_claims_more_than_its_level():
    """Five methods alike: a false winner, or a false claim anywhere, at most once in twenty."""
    generator, tables = np.random.default_rng(8), 120
    false = bold = 0
    for i in range(tables):
        hard = 3 + autocorrelated(generator, 1, 200, 0.6)
        made = {
            name: hard + 0.4 * autocorrelated(generator, 1, 200, 0.6)
            for name in ("plain", "a", "b", "c", "d")
        }
        rows = compare(made, reference="plain", block=10, resamples=300, seed=i)
        false += any(row["p_holm"] < 0.05 for row in rows)
        bold += judged(made, block=10, seed=i)[1] if i < 40 else 0
    assert false / tables <= 0.09
    assert bold <= 1


def test_a_clear_winner_is_bold_and_a_tie_is_not():
    generator = np.random.default_rng(0)
    hard = 3 + autocorrelated(generator, 5, 200, 0.6)
    made = {"plain": hard, "good": hard - 0.2 + 0.1 * generator.random((5, 200))}
    assert judged(made, overlap=4) == ("good", True)
    assert judged(made, overlap=4, draw_seeds=True) == ("good", True)
    made["twin"] = made["good"] + 0.1 * generator.standard_normal((5, 200))
    assert judged(made, overlap=4)[1] is False
    assert judged({"alone": hard}) == ("alone", False)


def test_what_is_refused():
    with pytest.raises(S2KDError, match="10 windows against 12"):
        paired_bootstrap(np.zeros(10), np.zeros(12), block=1)
    with pytest.raises(S2KDError, match="fewer than 4 blocks of 3"):
        paired_bootstrap(np.zeros(10), np.zeros(10), block=3)
    with pytest.raises(S2KDError, match="not finite"):
        paired_bootstrap(np.full(10, np.nan), np.zeros(10), block=1)
