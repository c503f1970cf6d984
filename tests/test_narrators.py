"""Facts against closed forms, sentences of constructed windows, and texts held to the letter."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s2kd.core.recipe import Part
from s2kd.core.types import GridSpec, Past, S2KDError, Statistics
from s2kd.data import load
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import QUANTILES, statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.facts import balances, facts, plumes, tilt
from s2kd.narration.measures import change_interval, slope
from s2kd.narration.narrators import narrators
from s2kd.narration.narrators.given import derangement
from s2kd.narration.narrators.rules import most_changed, shortened
from s2kd.narration.words import at, class_of, kind_of, labels_of, way
from s2kd.pipeline import recipes

HOUR = 3600.0


def unit_stats(mean=0.0, std=1.0, channels=1, low=-2.0, high=2.0):
    """Training statistics with quantiles evenly from `low` to `high`."""
    return Statistics(
        mean=(mean,) * channels,
        std=(std,) * channels,
        minimum=(low,) * channels,
        maximum=(high,) * channels,
        quantiles={q: (low + (high - low) * q,) * channels for q in QUANTILES},
    )


def make_past(frames, *, domain="weather", channels=None, units=None, stats=None, **setting):
    frames = np.asarray(frames, dtype=np.float32)
    frames = frames[:, None] if frames.ndim == 3 else frames
    count = frames.shape[1]
    spec = {k: setting.pop(k) for k in ("mask", "latitude", "wraps") if k in setting}
    grid = GridSpec(
        channels=channels or tuple(f"c{i}" for i in range(count)),
        units=units or ("1",) * count,
        height=frames.shape[2],
        width=frames.shape[3],
        step_seconds=HOUR,
        **spec,
    )
    stats = stats or unit_stats(channels=count)
    return Past(frames=frames, grid=grid, domain=domain, statistics=stats, **setting)


def blob(row, column, *, height=24, width=36, size=2.5):
    rows, columns = np.arange(height)[:, None], np.arange(width)
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))


def moving(*, east, south, steps=8, start=(11, 8)):
    return np.stack([blob(start[0] + south * t, start[1] + east * t) for t in range(steps)])


def narrate(past, **settings):
    return narrators.build("rules", **settings).narrate([past])[0]


@pytest.mark.parametrize(
    ("east", "south", "word"),
    [
        (2, 0, "eastward"),
        (-2, 0, "westward"),
        (0, 1, "southward"),
        (0, -1, "northward"),
        (1.5, 1.0, "south-eastward"),
        (-1.5, -1.0, "north-westward"),
    ],
)
def test_the_movement_of_a_blob_in_facts_and_text(east, south, word):
    past = make_past(moving(east=east, south=south, start=(12 - 3.5 * south, 18 - 3.5 * east)))
    (fact,) = facts([past])[0]
    assert fact.east == pytest.approx(east, abs=0.2)
    assert fact.south == pytest.approx(south, abs=0.2)
    assert f" {word}." in narrate(past)


def test_speed_classes():
    assert "move fast eastward" in narrate(make_past(moving(east=2, south=0)))
    assert "move steadily eastward" in narrate(make_past(moving(east=0.8, south=0)))
    assert "move slowly eastward" in narrate(make_past(moving(east=0.3, south=0)))


def test_flipping_the_field_flips_the_words():
    frames = moving(east=2, south=0) * np.linspace(1, 2, 8)[:, None, None]
    frames = np.stack([f + 0.7 * blob(4, 30) * (i / 7) for i, f in enumerate(frames)])
    text = narrate(make_past(frames))
    swap = {"east": "west", "west": "east"}
    parts = re.split("(east|west)", narrate(make_past(frames[:, :, ::-1])))
    mirrored = "".join(swap.get(part, part) for part in parts)
    assert "east" in text
    assert mirrored == text


def test_a_fire_moves_right_on_a_screen_not_east_on_a_map():
    text = narrate(make_past(moving(east=2, south=0), domain="fire", channels=("temperature",)))
    assert "Hot puffs move fast to the right." in text
    assert not any(word in text for word in ("east", "west", "north", "south"))


def test_a_standing_pattern_that_grows_does_not_move():
    frames = blob(12, 18)[None] * np.linspace(1, 3, 8)[:, None, None]
    assert "barely move" in narrate(make_past(frames))


def test_noise_shows_no_movement():
    noise = np.random.default_rng(0).standard_normal((8, 24, 36))
    assert "no clear movement" in narrate(make_past(noise))


def test_a_daily_wave_to_the_west_is_not_taken_for_the_weather():
    """A pattern that goes east under a stronger heating that goes west once a day."""
    column = np.arange(36)
    frames = np.stack(
        [blob(11, 8 + t) + 2 * np.cos(2 * np.pi * (column / 36 + t / 4))[None] for t in range(12)]
    )
    past = make_past(frames)
    six_hourly = replace(past, grid=replace(past.grid, step_seconds=6 * HOUR))
    assert facts([six_hourly])[0][0].east == pytest.approx(1, abs=0.25)
    assert facts([past])[0][0].east < 0


@pytest.mark.parametrize(
    ("steps", "seconds", "frames"), [(12, 21600, 4), (5, 21600, 2), (6, 21600, 4), (3, 1800, 1)]
)
def test_change_interval(steps, seconds, frames):
    assert change_interval(steps, float(seconds)) == frames


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_short_pasts_are_narrated(steps):
    past = make_past(moving(east=1, south=0, steps=steps))
    (fact,) = facts([past])[0]
    assert fact.east == pytest.approx(0 if steps == 1 else 1, abs=0.3)
    assert narrate(past)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (0.0, "steady"),
        (0.03, "warming slightly"),
        (0.07, "warming;"),
        (0.5, "warming sharply"),
        (-0.03, "cooling slightly"),
        (-0.5, "cooling sharply"),
    ],
)
def test_classes_of_warming(change, words):
    frames = blob(12, 18)[None] + np.linspace(0, change, 8)[:, None, None]
    assert words in narrate(make_past(frames, channels=("t850",), units=("K",)))


def test_slope_is_least_squares():
    means = np.random.default_rng(0).standard_normal((3, 7, 2))
    for window in range(3):
        fitted = np.polyfit(np.arange(7), means[window], 1)[0] * 6
        np.testing.assert_allclose(slope(means)[window], fitted)


def test_a_late_turn_is_mentioned():
    shape = np.array([0, -0.4, -0.8, -1.2, -1.0, -0.9, -0.8, -0.7])[:, None, None]
    text = narrate(make_past(shape * np.ones((8, 24, 36)), channels=("z500",)))
    assert "falling sharply but rising lately" in text
    assert "rising sharply but falling lately" in narrate(
        make_past(-shape * np.ones((8, 24, 36)), channels=("z500",))
    )
    assert "lately" not in narrate(make_past(-np.ones((8, 24, 36)) * np.arange(8)[:, None, None]))


def test_the_maximum_and_what_changed_are_where_they_are():
    frames = np.zeros((4, 24, 36))
    frames[:, 2, 33] = 1.0
    frames[:, 20, 3] = -1.0
    frames[-1, 16:, :12] += 0.9
    frames[-1, 8:16, 12:24] -= 0.9
    (fact,) = facts([make_past(frames)])[0]
    assert (fact.maximum_at, fact.minimum_at) == ((2, 33), (8, 12))
    assert (fact.rise_at, fact.fall_at) == ((2, 0), (1, 1))
    assert fact.rise == pytest.approx(0.9, abs=0.01)
    text = narrate(make_past(frames, channels=("temperature",)))
    assert "it warmed most in the south-west and cooled most in the centre" in text
    assert "it is hottest in the north-east" in text


def test_shares_are_counted_against_training_quantiles():
    field = np.zeros((2, 10, 10))
    field[:, 0, :7] = 5.0
    field[:, 1, :3] = 1.85  # between the quantiles 0.95 and 0.98
    field[:, 2, :2] = -1.97
    field[:, 3, :5] = -1.85  # between 0.02 and 0.05
    (fact,) = facts([make_past(field)])[0]
    assert (fact.extreme, fact.extreme_low) == pytest.approx((0.07, 0.02))


def test_mean_is_weighted_by_area():
    field = np.zeros((2, 3, 4))
    field[:, 0] = 6.0
    (fact,) = facts([make_past(field, latitude=(60.0, 30.0, 0.0))])[0]
    weights = np.cos(np.radians([60, 30, 0]))
    assert fact.mean == pytest.approx(6 * weights[0] / weights.sum(), rel=1e-5)


def test_waves_are_counted_along_rows():
    wavy = np.cos(2 * np.pi * 3 * np.arange(36) / 36) + np.linspace(-1, 1, 24)[:, None]
    (fact,) = facts([make_past(np.stack([wavy] * 4))])[0]
    assert (fact.waves, round(fact.wave_share, 4)) == (3, 1.0)


def test_ridge_and_trough_of_a_height_field():
    """A crest in the first third of the columns, a hollow half a wave on, alike in every row."""
    field = 1.5 * np.cos(2 * np.pi * (np.arange(36) - 6) / 36) * np.ones((24, 1))
    field[8:16] *= 1.2
    text = narrate(make_past(np.stack([field] * 4), channels=("z500",)))
    assert "A strong ridge lies in the west, with a trough in the east" in text
    assert "one wave across the domain" in text


def test_a_cold_front_drives_the_cooling():
    frames = []
    for t in range(8):
        front = 6 + 1.5 * t
        frames.append(2 * np.tanh((np.arange(36) - front) / 1.5)[None] * np.ones((24, 1)))
    text = narrate(make_past(np.stack(frames), channels=("t850",)))
    assert "cold front" in text
    assert "drives the cooling" in text
    warm = narrate(make_past(-np.stack(frames), channels=("t850",)))
    assert "warm front" in warm
    assert "drives the warming" in warm


def test_cells_that_do_not_exist_change_nothing():
    rng = np.random.default_rng(1)
    frames = rng.standard_normal((6, 24, 36))
    mask = np.ones((24, 36), bool)
    mask[:, 30:] = False
    mask[3:5, 3:9] = False
    cells = tuple(map(tuple, mask.tolist()))
    changed = frames.copy()
    changed[:, ~mask] = 1e6
    assert facts([make_past(frames, mask=cells)]) == facts([make_past(changed, mask=cells)])


def test_values_that_are_not_finite_are_refused_by_channel():
    frames = np.zeros((4, 1, 6, 6))
    frames[2, 0, 1, 1] = np.nan
    with pytest.raises(S2KDError, match="'t850' has values that are not finite"):
        narrate(make_past(frames, channels=("t850",)))


def test_facts_do_not_depend_on_the_batch():
    rng = np.random.default_rng(2)
    past = make_past(rng.standard_normal((6, 2, 16, 20)))
    pasts = [
        replace(past, frames=rng.standard_normal(past.frames.shape).astype("f4")) for _ in range(40)
    ]
    for batch, alone in zip(facts(pasts), [facts([p])[0] for p in pasts], strict=True):
        for measured, expected in zip(batch, alone, strict=True):
            for name, value in vars(expected).items():
                exact = isinstance(value, str | tuple | int)
                limit = value if exact else pytest.approx(value, abs=1e-5)
                assert getattr(measured, name) == limit, name


def test_pasts_of_different_kinds_keep_their_order():
    past = make_past(moving(east=2, south=0))
    pasts = [
        past,
        make_past(np.zeros((3, 9, 9)), domain="generic"),
        replace(past, statistics=unit_stats(mean=3.0)),
        replace(past, domain="fire"),
        replace(past, grid=replace(past.grid, channels=("humidity",))),
        past,
    ]
    texts = narrators.build("rules").narrate(pasts)
    assert texts == [narrate(past) for past in pasts]
    assert len(set(texts)) == 5


def test_rush_hour_and_balance_of_traffic():
    stats = unit_stats(mean=2.0, std=2.0, channels=2, low=0.0, high=6.0)
    frames = np.ones((6, 2, 12, 12)) * np.linspace(2, 4, 6)[:, None, None, None]
    frames[:, 0, 0, 0] += 30.0
    frames[:, 1, 11, 11] += 30.0
    past = make_past(frames, domain="traffic", channels=("inflow", "outflow"), stats=stats)
    monday = narrate(replace(past, part_of_day="morning"))
    assert "Traffic is very busy overall as the morning rush hour builds up." in monday
    assert (
        "More arrive than leave in the north-west, and more leave than arrive in the south-east"
        in monday
    )
    sunday = narrate(replace(past, part_of_day="morning", context=("weekend",)))
    assert "rush" not in sunday
    assert "in the morning." in sunday
    assert "Context: weekend." in sunday
    (balance,) = balances([past], 0, 1)
    assert balance.gain == pytest.approx(30 / (2 * 144 * 4 + 60), rel=1e-5)
    assert (balance.gain_at, balance.loss_at) == ((0, 0), (2, 2))


def test_the_centre_of_activity_shifts():
    frames = np.zeros((4, 2, 12, 12))
    frames[0, :, 6, 3] = frames[-1, :, 6, 8] = 10.0
    past = make_past(frames, domain="traffic", channels=("inflow", "outflow"))
    assert facts([past])[0][0].drift_east == pytest.approx(5)
    assert "centre of activity shifts eastward" in narrate(past)


def slanted(cells_right_for_each_up, *, height=20, width=60, top=15, wide=3):
    """A hot band from the bottom row up, row 0 = top."""
    field = np.zeros((height, width))
    for up in range(top):
        first = 15 + round(cells_right_for_each_up * up)
        field[height - 1 - up, first : first + wide] = 10.0
    return field


def test_plume_height_tilt_and_spread():
    past = make_past(np.stack([slanted(1.0)] * 6), domain="fire", channels=("temperature",))
    (plume,) = plumes([past], 0)
    assert plume.top == pytest.approx(15 / 20)
    assert plume.spread == pytest.approx(17 / 60)
    assert plume.area == pytest.approx(45 / 1200)
    assert plume.tilt == pytest.approx(1.0, abs=1e-5)
    assert plume.heat == 0
    text = narrate(past)
    assert "The plume is tall and medium-wide, leaning to the right." in text
    mirrored = replace(past, frames=past.frames[..., ::-1].copy())
    assert "leaning to the left" in narrate(mirrored)


def test_tilt_is_a_weighted_regression():
    rng = np.random.default_rng(3)
    weight = rng.uniform(0, 1, (1, 6, 9))
    up, column = np.mgrid[5:-1:-1, 0:9]
    want = np.polyfit(up.ravel(), column.ravel(), 1, w=np.sqrt(weight.ravel()))[0]
    assert tilt(weight)[0] == pytest.approx(want)


@pytest.mark.parametrize(
    ("factor", "word"),
    [(1.3, "growing fast"), (1.05, "growing."), (1, "steady"), (0.6, "decaying fast")],
)
def test_heat_grows_or_decays(factor, word):
    frames = slanted(0.0)[None] * np.linspace(1, factor, 9)[:, None, None]
    past = make_past(frames, domain="fire", channels=("temperature",))
    assert f"The fire's heat is {word}" in narrate(past)


def test_wind_that_agrees_with_the_tilt_bends_the_plume():
    hot, wind = np.stack([slanted(1.0)] * 6), np.full((6, 20, 60), 1.5)
    for sign, bends in ((1, True), (-1, False)):
        past = make_past(
            np.stack([hot, sign * wind], 1), domain="fire", channels=("temperature", "u-velocity")
        )
        assert ("It bends the plume." in narrate(past)) is bends


@pytest.mark.parametrize(
    ("channel", "unit", "domain", "kind"),
    [
        ("air", "degK", "weather", "temperature"),
        ("2m_temperature", "K", "weather", "temperature"),
        ("t850", "K", "weather", "temperature"),
        ("thing", "K", "weather", "temperature"),
        ("geopotential_500", "m**2 s**-2", "weather", "height"),
        ("z500", "m2 s-2", "weather", "height"),
        ("10m_u_component_of_wind", "m s**-1", "weather", "wind across"),
        ("v10", "m s-1", "weather", "wind along"),
        ("specific_humidity", "kg/kg", "weather", "humidity"),
        ("inflow", "1", "traffic", "arrivals"),
        ("outflow", "1", "traffic", "departures"),
        ("SOOT EXTINCTION COEFFICIENT", "1/m", "fire", "smoke"),
        ("U-VELOCITY", "m/s", "fire", "wind across"),
        ("w", "m/s", "fire", "wind upward"),
        ("hrrpuv", "kW/m3", "fire", "heat"),
        ("vorticity", "1/s", "weather", "other"),
        ("temperature", "K", "generic", "other"),
    ],
)
def test_kinds(channel, unit, domain, kind):
    assert kind_of(channel, unit, domain) == kind


def test_channels_of_one_kind_have_distinct_labels():
    grid = make_past(np.zeros((2, 3, 4, 4)), channels=("t2m", "t850", "z500")).grid
    assert labels_of(grid, "weather") == (
        "temperature (t2m)",
        "temperature (t850)",
        "pressure-surface height",
    )


def test_words_of_the_vocabulary():
    assert class_of(0.5, (0.0, 0.5, 1.0), "abcd") == "c"
    assert at((0, 1), "fire") == "at the top"
    assert at((0, 1), "weather") == "in the north"
    assert way(-1.0, 0.3, "weather") == "westward"
    assert way(-1.0, 0.5, "weather") == "south-westward"


@pytest.mark.parametrize("domain", ["weather", "traffic", "fire", "generic"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_length_is_bounded_and_sentences_are_whole(domain, count):
    rng = np.random.default_rng(4)
    names = {
        "weather": ("t2m", "z500", "u10", "t850", "q700", "x"),
        "traffic": ("inflow", "outflow", "bikes", "d", "e", "f"),
        "fire": ("temperature", "u", "soot", "w", "hrr", "x"),
        "generic": tuple("abcdef"),
    }[domain][:count]
    frames = rng.standard_normal((6, count, 12, 18)) + np.linspace(0, 1, 6)[:, None, None, None]
    past = make_past(frames, domain=domain, channels=names, season="winter", part_of_day="night")
    text = narrate(past)
    assert 10 <= len(text.split()) <= 120
    assert text.endswith(".")
    assert "  " not in text
    assert text == narrate(past)
    assert len(narrate(past, most_words=30).split()) <= 30


def test_shortened_keeps_whole_sentences():
    assert shortened(["One two.", "Three four five.", "Six."], 5) == "One two. Three four five."
    assert shortened(["One two three."], 2) == ""


def test_the_most_changed_channels_are_covered():
    frames = np.zeros((4, 5, 6, 6))
    for channel, change in enumerate((0, 3, -2, 0.1, 1)):
        frames[:, channel] += np.linspace(0, change, 4)[:, None, None]
    assert most_changed(facts([make_past(frames)])[0]) == [1, 2, 4]


def test_missing_quantiles_are_named():
    stats = replace(unit_stats(), quantiles={0.5: (0.0,)})
    with pytest.raises(S2KDError, match=r"lack the quantile 0\.98"):
        narrate(make_past(np.zeros((2, 4, 4)), stats=stats))


# what a narrator may know


def series(frames, times, *, domain="weather", **rest):
    grid = GridSpec(
        channels=("t850", "z500"),
        units=("K", "m"),
        height=frames.shape[2],
        width=frames.shape[3],
        step_seconds=6 * HOUR,
        latitude=tuple(np.linspace(70, 20, frames.shape[2]).tolist()),
    )
    splits = {"train": (0, 60), "val": (60, 80), "test": (80, 100)}
    return Dataset(
        name="made",
        domain=domain,
        grid=grid,
        frames=frames.astype(np.float32),
        times=times,
        splits={k: (Stretch(first=a, stop=b),) for k, (a, b) in splits.items()},
        **rest,
    )


def narratives(dataset, stats, split="test"):
    windows = WindowDataset(dataset, split, past=6, lead=4)
    return narrators.build("rules").narrate(
        [windows.past_of(i, stats) for i in range(len(windows))]
    )


TIMES = np.datetime64("2001-05-02", "ns") + np.arange(100) * np.timedelta64(6, "h")


def test_no_narrative_depends_on_the_future_or_the_date():
    rng = np.random.default_rng(5)
    frames = rng.standard_normal((100, 2, 12, 18)).cumsum(0)
    dataset = series(frames, TIMES)
    stats = statistics(dataset)
    texts = narratives(dataset, stats)
    assert len(set(texts)) > 5
    last_past = WindowDataset(dataset, "test", past=6, lead=4).starts + 5
    for number, last in enumerate(last_past):
        changed = frames.copy()
        changed[last + 1 :] = rng.standard_normal(changed[last + 1 :].shape) * 1e3
        assert narratives(series(changed, TIMES), stats)[number] == texts[number]
    # the same season of another year, its days and hours in any order
    may = np.datetime64("1987-03-01", "ns") + rng.permutation(100) * np.timedelta64(13, "h")
    assert narratives(series(frames, may), stats) == texts

    changed = frames.copy()
    changed[80:86] *= -1  # but the past counts
    assert narratives(series(changed, TIMES), stats)[0] != texts[0]


def test_none_gives_empty_texts():
    none = narrators.build("none")
    assert none.narrate([make_past(np.zeros((2, 4, 4)))] * 3) == ["", "", ""]
    assert none.narrate([]) == narrators.build("rules").narrate([]) == []


@pytest.mark.parametrize("count", [2, 3, 4, 10, 101])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_shuffling_is_a_derangement(count, seed):
    order = derangement(count, seed=seed)
    assert sorted(order) == list(range(count))
    assert not (order == np.arange(count)).any()
    shuffled = narrators.build("shuffled", seed=seed)
    assert shuffled.rearrange([str(i) for i in range(count)]) == [str(i) for i in order]


def test_derangements_are_drawn_evenly_and_by_seed():
    """Of three things there are two derangements, each a cycle: half of the seeds give each."""
    drawn = [tuple(derangement(3, seed=seed)) for seed in range(400)]
    assert set(drawn) == {(1, 2, 0), (2, 0, 1)}
    assert 150 < drawn.count((1, 2, 0)) < 250
    assert derangement(1, seed=0).tolist() == [0]
    assert derangement(0, seed=0).tolist() == []


def test_shuffled_narrates_like_the_one_it_shuffles():
    past = make_past(moving(east=2, south=0))
    shuffled = narrators.build("shuffled", of="rules", params={"most_words": 20}, seed=3)
    assert shuffled.narrate([past]) == [narrate(past, most_words=20)]
    assert shuffled.source_name == "rules"
    assert shuffled.source.version == narrators.build("rules", most_words=20).version
    assert shuffled.version != narrators.build("shuffled", seed=3).version
    assert shuffled.version != narrators.build("shuffled", params={"most_words": 20}).version


def test_shuffled_refuses_what_makes_no_sense():
    with pytest.raises(S2KDError, match="no narrator called 'rule'; did you mean 'rules'"):
        narrators.build("shuffled", of="rule")
    with pytest.raises(S2KDError, match="has no setting 'most_wordz'"):
        narrators.build("shuffled", params={"most_wordz": 3})
    with pytest.raises(S2KDError, match="shuffle itself"):
        narrators.build("shuffled", of="shuffled")


# real and simulated fields

WORLD_SETTINGS = {
    "atmosphere": {"members": 8, "step_hours": 12, "height": 24, "width": 48},
    "plume": {},
}
GOLDEN = json.loads((Path(__file__).parent / "golden" / "rule_texts.json").read_text("utf-8"))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_texts_of_real_and_simulated_windows(name):
    """Narratives are the input of stored token states and teachers: they stay to the letter."""
    if name in ("atmosphere", "plume"):
        part = Part(name=name, params=WORLD_SETTINGS[name])
        recipe = recipes.for_dataset(part, past=4, lead=4, name=name, cells=1)
    elif folder := os.environ.get("S2KD_REAL_DATA"):
        recipe = recipes.get(name, data=folder)
    else:
        pytest.skip("S2KD_REAL_DATA is not set")
    dataset = load(recipe.dataset, recipe.split, recipe.keep)
    train_stats = statistics(dataset, lead=recipe.lead)
    windows = WindowDataset(dataset, "val", past=recipe.past, lead=recipe.lead)
    pasts = [windows.past_of(number, train_stats) for number in (0, len(windows) // 2)]
    assert narrators.build("rules").narrate(pasts) == GOLDEN[name]


@pytest.fixture(scope="module")
def real_air():
    folder = os.environ.get("S2KD_REAL_DATA")
    if not folder:
        pytest.skip("S2KD_REAL_DATA is not set")
    import h5py

    with h5py.File(Path(folder) / "ncep_air_sig995_6h_2013_2014.nc") as file:
        frames, latitude = file["air"][:1000][:, None], file["lat"][:]
    grid = GridSpec(
        channels=("air",),
        units=("degK",),
        height=25,
        width=53,
        step_seconds=6 * HOUR,
        latitude=tuple(map(float, latitude)),
    )
    return Dataset(
        name="air",
        domain="weather",
        grid=grid,
        frames=np.ascontiguousarray(frames, dtype=np.float32),
        times=np.datetime64("2013-01-01", "ns") + np.arange(1000) * np.timedelta64(6, "h"),
        splits={
            "train": (Stretch(first=0, stop=800),),
            "val": (Stretch(first=800, stop=900),),
            "test": (Stretch(first=900, stop=1000),),
        },
    )


def test_mid_latitude_weather_moves_east(real_air):
    """West winds carry the weather of 15 to 75 °N; the daily wave goes the other way."""
    stats, windows = statistics(real_air), WindowDataset(real_air, "train", past=8, lead=4)
    pasts = [windows.past_of(i, stats) for i in range(0, len(windows), 4)]
    east = np.array([fact.east for (fact,) in facts(pasts)])
    assert (east > 0.1).mean() > 0.9
    texts = narrators.build("rules").narrate(pasts)
    assert len(set(texts)) > 0.8 * len(texts)
    assert any("warming" in text for text in texts)
    assert any("cooling" in text for text in texts)
