"""Contact sheets: what is where on them, in which colour, and that nothing else shows."""

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from test_narrators import make_past, unit_stats

from s2kd.core.types import S2KDError, Statistics
from s2kd.narration.sheet import (
    HEADINGS,
    MISSING,
    Sheets,
    arrange,
    change_limit,
    number_text,
    png,
    value_range,
)

UNLABELLED = Sheets(size=224, labels=False)


def colour(name, share):
    """Matplotlib's own colour at a share of its map."""
    return np.array(colormaps[name](share, bytes=True)[:3])


def stats(low=0.0, high=1.0, *, channels=1):
    """Every quantile within the extremes, so that the range is theirs."""
    return dataclasses.replace(
        unit_stats(low=low, high=high, channels=channels), change=(0.1,) * channels
    )


def cells_of(sheets, past):
    """(row, column, 3) colours at the centre of every cell, by channel and heading."""
    sheet, (height, width) = sheets(past), past.frames.shape[2:]
    names = sheets.channels or past.grid.channels
    boxes = arrange(height, width, len(names), size=sheets.size, labels=sheets.labels)
    return [
        {
            heading: sheet[
                (top + (np.arange(height) + 0.5) * high / height).astype(int)[:, None],
                (left + (np.arange(width) + 0.5) * wide / width).astype(int),
            ]
            for heading, (left, top, wide, high) in zip(HEADINGS, channel, strict=True)
        }
        for channel in boxes
    ]


def frames(**cells):
    """Three 8 × 16 frames of zeros; `first`, `middle`, `last` may set cells."""
    values = np.zeros((3, 8, 16), dtype=np.float32)
    for number, name in enumerate(("first", "middle", "last")):
        for cell, value in cells.get(name, {}).items():
            values[(number, *cell)] = value
    return values


def test_a_hot_cell_is_at_its_place_in_the_hottest_colour_and_nowhere_else():
    past = make_past(
        frames(last={(1, 12): 1.0}), domain="fire", channels=("TEMP",), units=("C",), stats=stats()
    )
    (cells,) = cells_of(UNLABELLED, past)
    hot = (cells["last"] == colour("magma", 1.0)).all(-1)
    assert np.argwhere(hot).tolist() == [[1, 12]]
    assert (cells["last"][~hot] == colour("magma", 0.0)).all()
    assert (cells["first"] == colour("magma", 0.0)).all()
    np.testing.assert_array_equal((cells["change"] == colour("RdBu_r", 1.0)).all(-1), hot)


def test_first_middle_and_last_are_those_frames_with_row_0_on_top():
    past = make_past(np.linspace(0, 1, 7)[:, None, None] * np.ones((7, 4, 4)), stats=stats())
    (cells,) = cells_of(UNLABELLED, past)
    for heading, value in (("first", 0.0), ("middle", 0.5), ("last", 1.0)):
        assert (cells[heading] == colour("viridis", value)).all(), heading
    (cells,) = cells_of(UNLABELLED, make_past(frames(first={(0, 3): 1.0}), stats=stats()))
    assert np.argwhere((cells["first"] == colour("viridis", 1.0)).all(-1)).tolist() == [[0, 3]]


@given(value=st.floats(-3, 3, width=32), other=st.floats(-3, 3, width=32))
@settings(max_examples=10)
def test_equal_values_have_equal_colours_in_every_window(value, other):
    """The range is fixed: the remaining values of a window change no colour."""
    training = unit_stats(low=-2.0, high=2.0)
    pasts = [
        make_past(frames(last={(2, 2): value, (5, 5): v}), stats=training) for v in (other, 100.0)
    ]
    first, second = (cells_of(UNLABELLED, past)[0]["last"][2, 2] for past in pasts)
    assert (first == second).all()


def test_no_change_is_neutral_and_rise_and_fall_are_opposite():
    past = make_past(frames(first={(1, 1): 0.1}, last={(1, 1): 0.3, (3, 3): -0.2}), stats=stats())
    (cells,) = cells_of(UNLABELLED, past)
    share = 0.2 / change_limit(past.statistics, 0) / 2
    near = {"atol": 2}  # a step of the colour map
    np.testing.assert_allclose(cells["change"][0, 0], 247, **near)
    np.testing.assert_allclose(cells["change"][1, 1], colour("RdBu_r", 0.5 + share), **near)
    np.testing.assert_allclose(cells["change"][3, 3], colour("RdBu_r", 0.5 - share), **near)


def test_exactly_the_cells_that_do_not_exist_are_grey():
    mask = np.ones((8, 16), bool)
    mask[2, 3] = False
    values = np.random.default_rng(0).random((3, 8, 16)).astype(np.float32)
    values[:, 2, 3] = np.nan
    past = make_past(values, stats=stats(), mask=tuple(map(tuple, mask.tolist())))
    (cells,) = cells_of(UNLABELLED, past)
    for heading in HEADINGS:
        np.testing.assert_array_equal((cells[heading] == MISSING).all(-1), ~mask)
    for name in ("viridis", "magma", "RdBu_r"):
        assert not (colormaps[name](np.arange(256), bytes=True)[:, :3] == MISSING).all(1).any()
    with pytest.raises(S2KDError, match="'c0' has values that are not finite"):
        UNLABELLED(make_past(frames(middle={(1, 1): np.nan}), stats=stats()))


@given(seed=st.integers(0, 99))
@settings(max_examples=10)
def test_only_three_frames_and_the_training_range_show(seed):
    """Other frames of the past, season, context, names of dates: none of them is drawn."""
    rng, training = np.random.default_rng(seed), stats()
    values = rng.random((7, 1, 6, 9)).astype(np.float32)
    changed = values.copy()
    changed[[1, 2, 4, 5]] = rng.random((4, 1, 6, 9))
    past = make_past(values, stats=training, channels=("wind",), units=("m/s",))
    other = make_past(
        changed,
        stats=training,
        channels=("wind 2016-08-01",),
        units=("m/s",),
        season="winter",
        context=("holiday",),
    )
    np.testing.assert_array_equal(Sheets()(past), Sheets()(other))


def test_windows_drawn_before_leave_no_trace():
    rng, sheets = np.random.default_rng(1), Sheets()
    past = make_past(rng.random((4, 2, 9, 12)), stats=stats(channels=2))
    expected = Sheets()(past)
    sheets(dataclasses.replace(past, frames=rng.random(past.frames.shape, np.float32)))
    np.testing.assert_array_equal(sheets(past), expected)


def test_a_users_matplotlib_settings_do_not_change_a_sheet():
    import matplotlib

    past = make_past(frames(last={(1, 2): 1.0}), stats=stats())
    expected = Sheets()(past)
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 20, "axes.grid": True}):
        np.testing.assert_array_equal(Sheets()(past), expected)


def test_the_range_is_the_middle_quantiles_widened_within_the_extremes():
    training = Statistics(
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        minimum=(-50.0, 0.0, 0.0),
        maximum=(50.0, 9.0, 8.0),
        quantiles={0.02: (-2.0, 0.0, 0.0), 0.98: (2.0, 2.0, 0.0), 0.995: (2.5, 5.0, 0.0)},
    )
    assert value_range(training, 0) == (-3.0, 3.0)  # ± (2 + 0.25 · 4)
    assert value_range(training, 1) == (0.0, 5.0)  # never below the minimum; up to the 99.5 %
    assert value_range(training, 2) == (0.0, 8.0)  # nearly always 0: the extremes
    assert change_limit(training, 0) == 1.0
    assert change_limit(dataclasses.replace(training, change=(0.5,) * 3), 1) == 2.0


# --- sizes and labels ----------------------------------------------------------------------------


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    channels=st.integers(1, 6),
    size=st.sampled_from([224, 336, 384, 768]),
    labels=st.booleans(),
)
def test_maps_lie_apart_and_within_the_sheet(height, width, channels, size, labels):
    try:
        boxes = arrange(height, width, channels, size=size, labels=labels)
    except S2KDError:
        assert channels * (max(height, width) + 200) > size / 4  # only where there is much to show
        return
    covered = np.zeros((size, size), int)
    for left, top, wide, high in (box for channel in boxes for box in channel):
        assert min(left, top) >= 0
        assert left + wide <= size
        assert top + high <= size
        covered[top : top + high, left : left + wide] += 1
    assert covered.max() == 1
    assert len(boxes) == channels


@pytest.mark.parametrize("size", [224, 384, 1024])
@pytest.mark.parametrize("labels", [True, False])
def test_a_sheet_has_its_size(size, labels):
    past = make_past(np.zeros((4, 2, 32, 64)))
    assert Sheets(size=size, labels=labels)(past).shape == (size, size, 3)


def test_a_fine_grid_is_averaged():
    checks = np.indices((300, 400)).sum(0) % 2
    past = make_past(np.stack([checks, checks]), stats=stats())
    sheet = Sheets(size=224, labels=False)(past)
    (left, top, wide, high), *_ = arrange(300, 400, 1, size=224, labels=False)[0]
    cells = sheet[top + 3 : top + high - 3, left + 3 : left + wide - 3].astype(int)
    assert np.abs(cells - cells.mean((0, 1))).max() < 40, "neither extreme shows"


def test_too_much_for_a_sheet_is_refused_with_the_way_out():
    with pytest.raises(S2KDError, match="do not fit on 224×224 pixels; choose a larger size, or"):
        Sheets(size=224)(make_past(np.zeros((2, 30, 32, 64))))
    with pytest.raises(S2KDError, match="no channel called 't'"):
        Sheets(channels=("t",))(make_past(np.zeros((2, 2, 8, 8))))


def test_selected_channels_are_shown_alone_and_larger():
    values = np.zeros((2, 4, 16, 16))
    values[:, 3] = 2.0
    sheets = Sheets(size=336, labels=False, channels=("c3",))
    (cells,) = cells_of(sheets, make_past(values))
    assert (cells["last"] == colour("viridis", 1.0)).all()
    (_, _, one, _), (_, _, four, _) = (
        arrange(16, 16, count, size=336, labels=True)[0][0] for count in (1, 4)
    )
    assert one > four


def test_labels_change_no_cell():
    past = make_past(np.random.default_rng(0).random((3, 2, 16, 16)), stats=stats(channels=2))
    labelled, plain = (cells_of(Sheets(size=384, labels=on), past) for on in (True, False))
    for first, second in zip(labelled, plain, strict=True):
        for heading in HEADINGS:
            np.testing.assert_array_equal(first[heading][1:-1, 1:-1], second[heading][1:-1, 1:-1])
    dark = [(Sheets(size=384, labels=on)(past) < 60).all(-1).sum() for on in (True, False)]
    assert dark[0] > dark[1] + 100, "there is ink"


@pytest.mark.parametrize(
    ("value", "text"),
    [(54213.2, "54213"), (0.0123456, "0.0123"), (-5.06, "-5.06"), (0.0, "0"), (3.2e7, "3.2e+07")],
)
def test_numbers_beside_the_bars_are_short(value, text):
    assert number_text(value) == text


def test_png_holds_the_sheet():
    from PIL import Image

    sheet = Sheets(size=224)(make_past(np.random.default_rng(0).random((3, 1, 16, 16))))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(sheet)))), sheet)


def test_the_version_names_every_setting():
    options = ({}, {"size": 336}, {"labels": False}, {"channels": ("a",)})
    assert len({Sheets(**option).version for option in options}) == 4
    assert UNLABELLED.version == "sheet-2 size=224 labels=False"
