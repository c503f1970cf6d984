"""The question to a multimodal model beside the sheet: one template per domain, no date, no place.

A model knows what happened on a date and at a place, so either would reveal the future. It is
given the variables, the order and spacing of the frames, and, where they are known, a season, a
part of the day and `Past.context`; nothing else. Names are redacted: see `FORBIDDEN`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from s2kd.core.files import digest
from s2kd.core.types import Domain, GridSpec, Past
from s2kd.narration.words import labels_of

MOST_WORDS = 120
"""Of a prompt, and of the narrative that it asks for."""
MOST_VARIABLES = 6
"""Variables named in a prompt; the rest is a number."""

TEMPLATES: dict[Domain, str] = {
    "weather": (
        "Weather maps, north up: {variables}. {order} {setting}"
        "Describe: 1) the pattern: highs, lows, ridges, troughs, fronts; 2) how it changes and "
        "which way it moves; 3) the likely cause; 4) regions to watch next. "
        "Say where by compass direction. {rules}"
    ),
    "traffic": (
        "City traffic on a grid, north up: {variables}. {order} {setting}"
        "Describe: 1) the pattern: where it is busy or quiet; 2) how demand changes and shifts; "
        "3) the likely cause; 4) regions to watch next. "
        "Say where by compass direction. {rules}"
    ),
    "fire": (
        "A fire seen from the side: {variables}. {order} {setting}"
        "Describe: 1) the plume: height, width, lean, hottest part; 2) how it changes and which "
        "way it moves; 3) the likely cause; 4) regions to watch next. "
        "Say where by left, right, upper and lower. {rules}"
    ),
    "generic": (
        "Maps of a moving field, north up: {variables}. {order} {setting}"
        "Describe: 1) the pattern: where it is high and low; 2) how it changes and which way it "
        "moves; 3) the likely cause; 4) regions to watch next. "
        "Say where by compass direction. {rules}"
    ),
}
RULES = (
    f"Use plain sentences, at most {MOST_WORDS} words. "
    "Never guess or mention a date, a year or the name of a place."
)
ORDER = (
    "Each variable has four maps: first, middle and last of {steps} frames {spacing} apart, and "
    "the change from first to last (red rose, blue fell). Brighter is higher."
)
ONE_FRAME = "Each variable is one frame, shown three times, without change. Brighter is higher."

VERSION = f"prompt-1 {digest([TEMPLATES, RULES, ORDER, ONE_FRAME])[:8]}"
"""Part of what narratives are stored under; another wording is another version."""
FORM = (
    " Answer as JSON: `text` holds these sentences, `claims` repeats what they say of each "
    "variable in the words of the schema; claim only what you see."
)
"""Added where the model fills a form beside the text."""

FORBIDDEN: dict[str, str] = {
    "file name": r"\S*[/\\]\S*"
    r"|\S+\.(?:nc4?|zarr|h5|hdf5?|grib2?|grb2?|npy|npz|jsonl?|parquet|csv|txt)\b",
    "date": r"(?<!\d)\d{1,4}[-.:]\d{1,2}[-.:]\d{1,4}(?:T[\d:.]*Z?)?(?!\d)"
    r"|(?<!\d)(?:1[89]|20|21)\d\d(?:[-_.]?\d{2}){0,5}(?!\d)"
    r"|(?<!\d)\d{4}[-_.]\d{1,2}(?!\d)|(?<!\d)\d{5,}(?!\d)|(?<!\d)\d{1,2}:\d{2}(?!\d)",
    "coordinate": r"[-+]?\d+(?:\.\d+)?\s*°(?:\s*[NSEWnsew]\b)?|[-+]?\d+(?:\.\d+)?\s?[NSEW]\b",
}
"""What names must not reveal, as patterns. A year alone, five digits in a row and a time of day
count as dates; `500 hPa`, `t850` and `°C` do not."""


def prompt(past: Past, *, channels: Sequence[str] = ()) -> str:
    """The text that accompanies the sheet of one window, which shows `channels` (all if empty).

    At most `MOST_WORDS` words (of many variables, fewer are named), and nothing in it that looks
    like a date, a coordinate or a file name, whatever channels and units are called.
    """
    steps = len(past.frames)
    spacing = duration(past.grid.step_seconds)
    order = ONE_FRAME if steps == 1 else ORDER.format(steps=min(steps, 999), spacing=spacing)
    for most in range(MOST_VARIABLES, 0, -1):
        text = TEMPLATES[past.domain].format(
            variables=variables(past, channels, most=most),
            order=order,
            setting=setting(past),
            rules=RULES,
        )
        if len(text.split()) <= MOST_WORDS:
            break
    return text


def variables(past: Past, channels: Sequence[str] = (), *, most: int = MOST_VARIABLES) -> str:
    """`temperature (K), humidity (kg per kg)`, at most `most` of them."""
    grid, names = past.grid, []
    for label, channel, unit in zip(
        shown_labels(grid, past.domain), grid.channels, grid.units, strict=True
    ):
        if not channels or channel in channels:
            name, spoken = first_words(label, 4), first_words(spoken_unit(unit), 3)
            names.append(f"{name} ({spoken})" if spoken not in ("", "1") else name)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def setting(past: Past) -> str:
    """`It is winter, morning, rain. `: the known coarse classes, or nothing."""
    classes = [past.season, past.part_of_day, *past.context[:2]]
    words = filter(None, (first_words(redacted(name), 3) for name in classes if name))
    text = ", ".join(words)
    return f"It is {text}. " if text else ""


def duration(seconds: float) -> str:
    """`6 hours`, `30 minutes`, `1 day`, `0.5 seconds`: in the largest unit of at least one."""
    units = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, name = next((unit for unit in units if seconds >= unit[0]), units[-1])
    count = f"{seconds / size:.3g}"
    return f"{count} {name}" + ("" if count == "1" else "s")


def first_words(text: str, most: int) -> str:
    """The first `most` words."""
    return " ".join(text.split()[:most])


def tidied(answer: str, *, most_words: int = MOST_WORDS) -> str:
    """A model's answer as a narrative: one line of whole sentences, at most `most_words` words.

    Text after the last full stop was cut short and is dropped; an answer without any full stop
    ends with its last word that fits.
    """
    words = answer.split()[:most_words]
    ends = [number for number, word in enumerate(words) if re.search(r"[.!?][\"')\]]*$", word)]
    # `1.` and `2)` number what comes after them: no sentence ends there
    ends = [number for number in ends if not re.fullmatch(r"\W*\d+\W*", words[number])]
    return " ".join(words[: ends[-1] + 1] if ends else words)


def redacted(text: str) -> str:
    """`text` on one line, without anything that looks like a date, a place or a file.

    A removal may join its neighbours, so this is repeated until nothing changes.
    """
    before = None
    while before != text:
        before = text
        for pattern in FORBIDDEN.values():
            text = re.sub(pattern, " ", text)
        text = " ".join(text.split())
    return text


def spoken_unit(unit: str) -> str:
    """`W/m²` as `W per m²` (a slash would look like a file's), redacted."""
    return redacted(unit.replace("/", " per "))


def written_unit(unit: str) -> str:
    """The unit unchanged where nothing in it has to go, else as `spoken_unit`."""
    unredacted = " ".join(unit.replace("/", " per ").split())
    return unit if spoken_unit(unit) == unredacted else spoken_unit(unit)


def shown_labels(grid: GridSpec, domain: Domain) -> tuple[str, ...]:
    """The name of every channel as a model may see it, redacted; never empty."""
    # before as well as after: taking a name apart could hide what it is
    clean = replace(grid, channels=tuple(redacted(name) for name in grid.channels))
    return tuple(redacted(label) or "unnamed" for label in labels_of(clean, domain))
