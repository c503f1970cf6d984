"""Contact sheets: what is where on them, in which colour, and that nothing else shows."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_narrators import known, past_of

from s2kd.core.types import S2KDError, Statistics
from s2kd.narration.narrators.layout import HEADINGS, arranged, pillow, short
from s2kd.narration.narrators.render import (
    MISSING,
    Sheets,
    change_limit,
    colour_table,
    jpeg,
    merged,
    png,
    value_range,
)

PLAIN = Sheets(size=224, labels=False)


def stats(low=0.0, high=1.0, *, channels=1):
    """Every quantile within the extremes, so that the range is theirs."""
    return dataclasses.replace(
        known(low=low, high=high, channels=channels), change=(0.1,) * channels
    )


def maps(sheets, past):
    """The pixels of every map, by channel and heading."""
    sheet, layout = sheets(past), sheets._plate(past).layout
    high, wide = layout.panel
    return [
        {
            heading: sheet[top : top + high, left : left + wide]
            for heading, (top, left) in zip(HEADINGS, corners, strict=True)
        }
        for corners in layout.corners
    ], layout


def frames(**cells):
    """Three 8 × 16 frames of zeros; `first`, `middle`, `last` may set cells."""
    out = np.zeros((3, 8, 16), dtype=np.float32)
    for number, name in enumerate(("first", "middle", "last")):
        for cell, value in cells.get(name, {}).items():
            out[(number, *cell)] = value
    return out


def test_a_hot_cell_is_at_its_place_in_the_hottest_colour_and_nowhere_else():
    past = past_of(
        frames(last={(1, 12): 1.0}), domain="fire", channels=("TEMP",), units=("C",), stats=stats()
    )
    (one,), layout = maps(PLAIN, past)
    scale, magma = layout.scale, colour_table("magma")
    assert scale > 2
    hot = (one["last"] == magma[-1]).all(-1)
    assert np.argwhere(hot).min(0).tolist() == [1 * scale, 12 * scale]
    assert np.argwhere(hot).max(0).tolist() == [2 * scale - 1, 13 * scale - 1]
    assert hot.sum() == scale**2
    assert (one["last"][~hot] == magma[0]).all()
    assert (one["first"] == magma[0]).all()
    risen = (one["change"] == colour_table("RdBu_r", 255)[-1]).all(-1)
    np.testing.assert_array_equal(risen, hot)


def test_first_middle_and_last_are_those_frames():
    past = past_of(np.linspace(0, 1, 7)[:, None, None] * np.ones((7, 4, 4)), stats=stats())
    (one,), _ = maps(PLAIN, past)
    viridis = colour_table("viridis")
    for heading, value in (("first", 0), ("middle", 0.5), ("last", 1)):
        assert (one[heading] == viridis[round(value * 255)]).all(), heading


def test_row_0_is_on_top_and_column_0_on_the_left():
    past = past_of(frames(first={(0, 3): 1.0, (7, 0): 1.0}), stats=stats())
    (one,), layout = maps(PLAIN, past)
    top = colour_table("viridis")[-1]
    assert (one["first"][0, 3 * layout.scale] == top).all()
    assert (one["first"][-1, 0] == top).all()
    assert not (one["first"][-1, 3 * layout.scale] == top).all()


@given(value=st.floats(-3, 3, width=32), other=st.floats(-3, 3, width=32))
def test_equal_values_have_equal_colours_in_every_window(value, other):
    """The range is fixed: what else a window holds changes no colour."""
    training = known(low=-2.0, high=2.0)
    pasts = [
        past_of(frames(last={(2, 2): value, (5, 5): o}), stats=training) for o in (other, 100.0)
    ]
    cells = []
    for past in pasts:
        (one,), layout = maps(PLAIN, past)
        cells.append(one["last"][2 * layout.scale, 2 * layout.scale])
    assert (cells[0] == cells[1]).all()


def test_no_change_is_the_neutral_colour_and_rise_and_fall_mirror_each_other():
    table = colour_table("RdBu_r", 255)
    assert table[127].tolist() == [247, 247, 247]
    change = {(1, 1): 0.2, (2, 2): 0.1}
    past = past_of(
        frames(first={(1, 1): 0.1}, last={(1, 1): 0.3, (2, 2): 0.1, (3, 3): -0.1}), stats=stats()
    )
    (one,), layout = maps(PLAIN, past)
    limit = change_limit(past.statistics, 0)
    for (row, column), size in change.items():
        step = 127 + round(127 * size / limit)
        assert (one["change"][row * layout.scale, column * layout.scale] == table[step]).all()
    fallen = one["change"][3 * layout.scale, 3 * layout.scale]
    assert (fallen == table[127 - round(127 * 0.1 / limit)]).all()
    assert fallen[2] > fallen[0]  # blue
    assert (one["change"][0, 0] == 247).all()


def test_cells_that_do_not_exist_are_grey_on_every_map_and_nothing_else_is():
    mask = np.ones((8, 16), bool)
    mask[2, 3] = False
    values = np.random.default_rng(0).random((3, 8, 16)).astype(np.float32)
    values[:, 2, 3] = np.nan
    past = past_of(values, stats=stats(), mask=tuple(map(tuple, mask.tolist())))
    (one,), layout = maps(PLAIN, past)
    for heading in HEADINGS:
        grey = (one[heading] == MISSING).all(-1)
        np.testing.assert_array_equal(grey, np.kron(~mask, np.ones((layout.scale,) * 2, bool)))
    for name, length in (("viridis", 256), ("magma", 256), ("RdBu_r", 255)):
        assert not (colour_table(name, length) == MISSING).all(1).any()


def test_a_hole_in_a_cell_that_exists_is_refused():
    with pytest.raises(S2KDError, match="'c0' has values that are not finite"):
        PLAIN(past_of(frames(middle={(1, 1): np.nan}), stats=stats()))


@given(seed=st.integers(0, 99))
def test_only_the_three_frames_and_the_training_range_show(seed):
    """Other frames of the past, season, context: none of them is drawn."""
    rng = np.random.default_rng(seed)
    first = rng.random((7, 1, 6, 9)).astype(np.float32)
    second = first.copy()
    second[[1, 2, 4, 5]] = rng.random((4, 1, 6, 9))
    training = stats()
    plain = past_of(first, stats=training)
    told = past_of(second, stats=training, season="winter", context=("holiday",))
    np.testing.assert_array_equal(PLAIN(plain), PLAIN(told))


def test_sheets_are_made_of_past_alone():
    """A sheet is a function of one `Past`, which has no future, date, place or file name."""
    past = past_of(frames(last={(1, 1): 1.0}), stats=stats())
    twin = dataclasses.replace(past, frames=past.frames.copy())
    np.testing.assert_array_equal(Sheets(size=300)(past), Sheets(size=300)(twin))


# --- ranges ------------------------------------------------------------------------------------


def test_the_range_is_the_middle_quantiles_widened_within_the_extremes():
    plain = Statistics(
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        minimum=(-50.0, 0.0, 0.0),
        maximum=(50.0, 9.0, 8.0),
        quantiles={0.02: (-2.0, 0.0, 0.0), 0.98: (2.0, 2.0, 0.0), 0.995: (2.5, 5.0, 0.0)},
    )
    assert value_range(plain, 0) == (-3.0, 3.0)  # ± (2 + 0.25 · 4)
    assert value_range(plain, 1) == (0.0, 5.0)  # never below the minimum; up to the 99.5 %
    assert value_range(plain, 2) == (0.0, 8.0)  # nearly always 0: the extremes
    assert change_limit(plain, 0) == 1.0
    assert change_limit(dataclasses.replace(plain, change=(0.5,) * 3), 1) == 2.0


def test_colours_are_matplotlibs():
    import matplotlib

    for name in ("viridis", "magma"):
        expected = np.rint(np.array(matplotlib.colormaps[name].colors) * 255)
        np.testing.assert_allclose(colour_table(name), expected, atol=1)
    lightness = colour_table("viridis").astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all()  # perceptually uniform maps grow lighter all along


# --- sizes and layout ----------------------------------------------------------------------------


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    channels=st.integers(1, 6),
    size=st.sampled_from([224, 336, 384, 768]),
    labels=st.booleans(),
)
def test_maps_keep_apart_and_on_the_sheet(height, width, channels, size, labels):
    try:
        layout = arranged(height, width, channels=channels, size=size, labels=labels)
    except S2KDError:
        assert channels * (max(height, width) + 200) > size / 4  # only where there is much to show
        return
    taken = np.zeros((size, size), int)
    high, wide = layout.panel
    for corners in layout.corners:
        for top, left in corners:
            assert min(top, left) >= 1
            assert top + high < size
            assert left + wide < size
            taken[top : top + high, left : left + wide] += 1
    assert taken.max() == 1
    assert len(layout.corners) == channels
    assert high == -(-height // layout.merge) * layout.scale
    assert layout.merge == 1 or layout.scale == 1


def test_a_larger_scale_would_not_fit():
    layout = arranged(32, 64, channels=2, size=384, labels=False)
    # two rows of 2 maps a channel: 4 · 32 · 2 = 256 down; at 3, four maps of 96 down and lines fit
    assert layout.scale == 2
    assert 2 * 64 * 3 + 3 * 4 > 384 > 2 * 64 * 2 + 3 * 4


@pytest.mark.parametrize("size", [224, 336, 384, 1024])
@pytest.mark.parametrize("labels", [True, False])
def test_a_sheet_has_the_size_asked_for(size, labels):
    past = past_of(np.zeros((4, 2, 32, 64)))
    assert Sheets(size=size, labels=labels)(past).shape == (size, size, 3)


def test_a_fine_grid_is_averaged_over_existing_cells():
    values = np.arange(24.0).reshape(1, 4, 6)
    exists = np.ones((4, 6), bool)
    exists[0, 0] = False
    values[0, 0, 0] = np.nan
    got = merged(values, exists, 2)
    assert got.shape == (1, 2, 3)
    assert got[0, 0, 0] == pytest.approx((1 + 6 + 7) / 3)
    assert got[0, 1, 2] == pytest.approx((16 + 17 + 22 + 23) / 4)
    odd = merged(np.ones((1, 5, 5)), np.ones((5, 5), bool), 2)
    np.testing.assert_array_equal(odd, np.ones((1, 3, 3)))
    big = past_of(np.full((2, 300, 400), 1.0), stats=stats())
    (one,), layout = maps(Sheets(size=384), big)
    assert layout.merge > 1
    assert (one["last"] == colour_table("viridis")[-1]).all()


def test_too_much_for_one_sheet_is_refused_with_the_way_out():
    with pytest.raises(S2KDError, match="do not fit on 224×224 pixels; choose a larger size, or"):
        Sheets(size=224)(past_of(np.zeros((2, 30, 32, 64))))
    with pytest.raises(S2KDError, match="no channel called 't'"):
        Sheets(channels=("t",))(past_of(np.zeros((2, 2, 8, 8))))


def test_chosen_channels_are_shown_alone_and_larger():
    past = past_of(np.zeros((2, 4, 16, 16)))
    every, some = Sheets(size=336), Sheets(size=336, channels=("c3",))
    assert len(every._plate(past).layout.corners) == 4
    assert some._plate(past).channels == [3]
    assert some._plate(past).layout.scale > every._plate(past).layout.scale


# --- labels, files, versions ---------------------------------------------------------------------


def test_labels_change_nothing_on_the_maps():
    past = past_of(np.random.default_rng(0).random((3, 2, 16, 16)), stats=stats(channels=2))
    labelled, plain = Sheets(size=384), Sheets(size=384, labels=False)
    cells = []
    for sheets in (labelled, plain):
        every, layout = maps(sheets, past)
        step = layout.scale
        cells.append([m[::step, ::step] for channel in every for m in channel.values()])
    np.testing.assert_array_equal(*cells)
    ink = (labelled(past) < 60).all(-1).sum()
    assert ink > 100
    assert (plain(past) < 60).all(-1).sum() < ink / 2


def test_a_date_in_a_channels_name_is_not_written_on_the_sheet():
    values = np.zeros((2, 1, 8, 8))
    dated = past_of(values, channels=("wind 2016-08-01",), units=("m/s",))
    bare = past_of(values, channels=("wind",), units=("m/s",))
    np.testing.assert_array_equal(Sheets()(dated), Sheets()(bare))


@pytest.mark.parametrize(
    ("value", "signed", "said"),
    [
        (54213.2, False, "54213"),
        (0.0123456, False, "0.0123"),
        (5.06, True, "+5.06"),
        (-5.06, True, "-5.06"),
        (-0.0, True, "0"),
        (3.2e7, False, "3.2e+07"),
    ],
)
def test_numbers_beside_the_bars_are_short(value, signed, said):
    assert short(value, signed=signed) == said


def test_png_and_jpeg_hold_the_sheet():
    past = past_of(np.random.default_rng(0).random((3, 1, 16, 16)), stats=stats())
    sheet, image = Sheets(size=224)(past), pillow().Image
    again = np.asarray(image.open(io.BytesIO(png(sheet))))
    np.testing.assert_array_equal(again, sheet)
    lossy = np.asarray(image.open(io.BytesIO(jpeg(sheet)))).astype(int)
    assert np.abs(lossy - sheet).mean() < 4
    assert jpeg(sheet)[:2] == b"\xff\xd8"


def test_the_version_names_every_setting():
    versions = {
        Sheets(**settings).version
        for settings in ({}, {"size": 336}, {"labels": False}, {"channels": ("a",)})
    }
    assert len(versions) == 4


def test_another_picture_needs_another_version():
    """Golden: where this fails, raise the number in `Sheets.version` and renew the hash."""
    rows, columns = np.mgrid[:8, :16]
    values = np.stack([np.sin(rows + t) * np.cos(columns / 3) for t in range(3)])
    past = past_of(values, stats=known(low=-1.0, high=1.0))
    assert PLAIN.version == "sheet-1 size=224 labels=False"
    assert hashlib.sha256(PLAIN(past).tobytes()).hexdigest()[:16] == GOLDEN


GOLDEN = "44f549c1da041260"
