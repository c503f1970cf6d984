"""What a multimodal model is asked beside the sheet: one template a domain, without date or place.

A model knows what happened on a date and at a place, so either would be the future by another
way. It is told the variables, the order and spacing of the frames, and, where they are known, a
season, a part of the day and what `Past.context` holds; nothing else.
"""

import re
from collections.abc import Sequence

from s2kd.core.files import digest
from s2kd.core.types import Domain, Past
from s2kd.narration.narrators.redact import redacted, shown_labels, spoken_unit

MOST_WORDS = 120
"""Of a prompt, and of the narrative that it asks for."""
MOST_NAMED = 6
"""Variables that a prompt names; of more it says how many."""

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
"""Part of what narratives are stored under; other words in a template make another version."""


def prompt(past: Past, *, channels: Sequence[str] = ()) -> str:
    """The words that go with the sheet of one window, which shows `channels` (all if left out).

    At most `MOST_WORDS` words (where there are many variables, fewer are named), and nothing in
    them that looks like a date, a coordinate or a file name, whatever channels and units are
    called.
    """
    steps = len(past.frames)
    spacing = spoken_time(past.grid.step_seconds)
    order = ONE_FRAME if steps == 1 else ORDER.format(steps=min(steps, 999), spacing=spacing)
    for most in range(MOST_NAMED, 0, -1):
        text = TEMPLATES[past.domain].format(
            variables=variables(past, channels, most=most),
            order=order,
            setting=setting(past),
            rules=RULES,
        )
        if len(text.split()) <= MOST_WORDS:
            break
    return text


def variables(past: Past, channels: Sequence[str] = (), *, most: int = MOST_NAMED) -> str:
    """`temperature (K), humidity (kg per kg)`, at most `most` of them."""
    grid = past.grid
    named = []
    for label, channel, unit in zip(
        shown_labels(grid, past.domain), grid.channels, grid.units, strict=True
    ):
        if not channels or channel in channels:
            said = brief(spoken_unit(unit), 3)
            name = brief(label, 4)
            named.append(f"{name} ({said})" if said not in ("", "1") else name)
    more = len(named) - most
    return ", ".join(named[:most]) + (f" and {more} more" if more > 0 else "")


def setting(past: Past) -> str:
    """`It is winter, morning, rain. `: the coarse classes that are known, or nothing."""
    known = [past.season, past.part_of_day, *past.context[:2]]
    said = [brief(redacted(one), 3) for one in known if one]
    said = [one for one in said if one]
    return f"It is {', '.join(said)}. " if said else ""


def spoken_time(seconds: float) -> str:
    """`6 hours`, `30 minutes`, `1 day`, `0.5 seconds`: the largest unit that there is one of."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or name == "second":
            count = f"{seconds / size:.3g}"
            return f"{count} {name}" + ("" if count == "1" else "s")
    raise AssertionError("there are seconds")


def brief(text: str, most: int) -> str:
    """The first `most` words."""
    return " ".join(text.split()[:most])


def tidied(answer: str, *, most_words: int = MOST_WORDS) -> str:
    """A model's answer as a narrative: one line of whole sentences, at most `most_words` words.

    What follows the last full stop was cut short and is dropped; an answer without any is kept up
    to its last word that fits.
    """
    words = answer.split()
    kept = words[:most_words]
    ends = [number for number, word in enumerate(kept) if re.search(r"[.!?][\"')\]]*$", word)]
    # `1.` and `2)` number what comes after them: no sentence ends there
    ends = [number for number in ends if not re.fullmatch(r"\W*\d+\W*", kept[number])]
    return " ".join(kept[: ends[-1] + 1] if ends else kept)
