"""What a model is asked: the variables, the order of frames, the task; never a date or a place."""

import importlib.util
import json
import re
from datetime import datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from test_narrators import make_past

from s2kd.core.types import Domain
from s2kd.narration import prompts
from s2kd.narration.prompts import (
    MOST_WORDS,
    duration,
    prompt,
    redacted,
    spoken_unit,
    tidied,
    variables,
    written_unit,
)
from s2kd.narration.sheet import Sheets

DOMAINS = get_args(Domain)


def ask(domain="weather", *, steps=12, channels=("z500", "t850"), units=("m", "K"), **rest):
    frames = np.zeros((steps, len(channels), 4, 4))
    return prompt(make_past(frames, domain=domain, channels=channels, units=units, **rest))


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_prompt_asks_for_all_four_things_and_forbids_dates_and_places(domain):
    text = ask(domain, channels=("temperature", "v"), units=("K", "m/s"))
    for part in ("pattern|plume", "changes", "likely cause", "regions to watch"):
        assert re.search(part, text), part
    assert "Never guess or mention a date, a year or the name of a place" in text
    assert "at most 120 words" in text
    assert "temperature" in text
    assert "(K)" in text
    assert "first, middle and last of 12 frames 1 hour apart" in text
    assert ("left, right" if domain == "fire" else "north up") in text


def test_the_coarse_classes_are_told_where_they_are_known():
    assert "It is" not in ask()
    assert "It is winter. " in ask(season="winter")
    text = ask("traffic", part_of_day="morning", context=("rain", "public holiday"))
    assert "It is morning, rain, public holiday. " in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (21600.0, "6 hours"),
        (3600.0, "1 hour"),
        (1800.0, "30 minutes"),
        (86400.0, "1 day"),
        (5400.0, "1.5 hours"),
        (0.25, "0.25 seconds"),
        (1.0, "1 second"),
    ],
)
def test_spacing_is_relative_and_in_the_largest_unit(seconds, text):
    assert duration(seconds) == text


def test_one_frame_has_no_change_to_tell():
    assert "without change" in ask(steps=1)
    assert "apart" not in ask(steps=1)


def test_shown_channels_alone_are_named():
    past = make_past(
        np.zeros((2, 3, 4, 4)), domain="generic", channels=("a", "b", "c"), units=("K", "1", "")
    )
    assert variables(past) == "a (K), b, c"
    assert variables(past, ("b",)) == "b"
    assert variables(past, most=1) == "a (K) and 2 more"


# --- what never gets in --------------------------------------------------------------------------

LEAKS = {
    "a date": r"\d{4}[-_/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}",
    "a year": r"(?<!\d)(19|20)\d\d",
    "a time stamp": r"\d{5}",
    "a time of day": r"\d{1,2}:\d\d",
    "a coordinate": r"\d\s*°|\d+(\.\d+)?\s?[NSEW]\b",
    "a file name": r"[/\\]|\.(nc|zarr|grib|h5|npz?|csv)\b",
}
FORMS = (
    "%Y-%m-%d",
    "%Y%m%d%H",
    "%Y-%m-%dT%H:%M:%S",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%H:%M",
    "%Y_%m",
    "%Y",
)
DATES = st.builds(
    datetime.strftime,
    st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)),
    st.sampled_from(FORMS),
)
COORDINATES = st.tuples(st.floats(-180, 180), st.sampled_from("NSEW°")).map(
    lambda pair: f"{abs(pair[0]):.2f}{pair[1]}"
)
FILES = st.tuples(
    st.text("abcxyz_09", min_size=1, max_size=8), st.sampled_from(["nc", "h5", "npz"])
)
FILES = FILES.map(lambda pair: f"/data/{pair[0]}.{pair[1]}") | FILES.map(".".join)
NAMES = st.lists(
    st.sampled_from(["temperature", "z500", "wind", "-", "_", "t 850"])
    | DATES
    | COORDINATES
    | FILES,
    min_size=1,
    max_size=4,
).map(" ".join)


@given(
    domain=st.sampled_from(DOMAINS),
    names=st.lists(NAMES, min_size=1, max_size=9, unique=True),
    unit=st.sampled_from(["K", "m s**-1", "W/m²", "°C", "vehicles/30min"]) | NAMES,
    context=st.lists(NAMES, max_size=3).map(tuple),
    season=st.sampled_from([None, "winter"]) | DATES,
    steps=st.sampled_from([1, 2, 12, 48]),
)
def test_nothing_like_a_date_a_coordinate_or_a_file_name_gets_into_a_prompt(
    domain, names, unit, context, season, steps
):
    text = ask(
        domain,
        steps=steps,
        channels=tuple(names),
        units=(unit,) * len(names),
        context=context,
        season=season,
    )
    for what, pattern in LEAKS.items():
        assert not re.search(pattern, text), f"{what} in: {text}"
    assert len(text.split()) <= MOST_WORDS


@given(st.text(st.sampled_from("0123456789-/:.°NSEW ab_T\\"), max_size=30))
def test_redacting_leaves_nothing_and_is_done_at_once(text):
    once = redacted(text)
    assert redacted(once) == once
    assume(once)
    assert not re.search(r"(?<!\d)(?:19|20)\d\d(?!\d)|\d°|[/\\]|\d{5}", once)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("2m_temperature_2019-08-05", "2m_temperature_"),
        ("geopotential 500 hPa", "geopotential 500 hPa"),
        ("t850", "t850"),
        ("1000 hPa", "1000 hPa"),
        ("/data/era5/z.nc", ""),
        ("era5.nc z", "z"),
        ("at 52.5°N 13.4°E", "at"),
        ("12:00 UTC", "UTC"),
        ("W m-2", "W m-2"),
        ("storm of 1999", "storm of"),
        ("m**2 s**-2", "m**2 s**-2"),
    ],
)
def test_what_goes_and_what_stays(name, shown):
    assert redacted(name) == shown


def test_units_are_spoken_without_a_slash_and_written_as_they_are():
    assert spoken_unit("W/m²") == "W per m²"
    assert written_unit("W/m²") == "W/m²"
    assert spoken_unit("°C") == written_unit("°C") == "°C"
    assert written_unit("days since 1900-01-01") == "days since"


# --- versions and answers ------------------------------------------------------------------------


def test_other_words_make_another_version():
    before = prompts.VERSION
    assert re.fullmatch(r"prompt-1 [0-9a-f]{8}", before)
    source = prompts.__spec__.loader.get_source(prompts.__name__)
    space = {"__name__": "other"}
    exec(source.replace("the likely cause", "the cause"), space)
    assert space["VERSION"] != before


@pytest.mark.parametrize(
    ("answer", "narrative"),
    [
        ("A low lies west.\n\n It deepens. The cause is", "A low lies west. It deepens."),
        ("1. A low lies west. 2. It", "1. A low lies west."),
        ("no stop at all", "no stop at all"),
        ("", ""),
        ('It said "rise." And then', 'It said "rise."'),
        ("It rose by 2.5 K since", "It rose by 2.5 K since"),
    ],
)
def test_an_answer_ends_with_its_last_whole_sentence(answer, narrative):
    assert tidied(answer) == narrative


@given(st.text(st.sampled_from("ab .!\n"), max_size=900), st.integers(1, 120))
def test_an_answer_is_never_too_long_and_a_beginning_of_what_was_said(answer, most):
    words = tidied(answer, most_words=most).split()
    assert len(words) <= most
    assert answer.split()[: len(words)] == words
    assert tidied(" ".join(words), most_words=most).split() == words


# --- what docs/narration.md shows ----------------------------------------------------------------


def test_the_prompts_and_sheets_in_the_documents_are_those_of_the_code():
    root = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("generate", root / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = generate.NARRATION.read_text("utf-8")
    examples = json.loads(generate.SHOWN.read_text("utf-8"))
    assert generate.with_sheets(generate.with_prompts(page), examples) == page
    for domain, example in examples.items():
        # where this fails: python docs/generate.py sheets
        assert example["versions"] == f"{Sheets().version} {prompts.VERSION}"
        with Image.open(root / f"docs/sheet-{domain}.png") as picture:
            assert picture.size == (Sheets().size, Sheets().size)
    for template in prompts.TEMPLATES.values():
        assert template in page
    with pytest.raises(ValueError, match="no marks of 'prompts'"):
        generate.with_prompts("a page without")
