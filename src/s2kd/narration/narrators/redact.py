"""What must not reach a narrator's eyes even by way of a name: dates, coordinates, file names."""

import re
from dataclasses import replace

from s2kd.core.types import Domain, GridSpec
from s2kd.narration.words import labels_of

FORBIDDEN: dict[str, str] = {
    "file name": r"\S*[/\\]\S*"
    r"|\S+\.(?:nc4?|zarr|h5|hdf5?|grib2?|grb2?|npy|npz|jsonl?|parquet|csv|txt)\b",
    "date": r"(?<!\d)\d{1,4}[-.:]\d{1,2}[-.:]\d{1,4}(?:T[\d:.]*Z?)?(?!\d)"
    r"|(?<!\d)(?:1[89]|20|21)\d\d(?:[-_.]?\d{2}){0,5}(?!\d)"
    r"|(?<!\d)\d{4}[-_.]\d{1,2}(?!\d)|(?<!\d)\d{5,}(?!\d)|(?<!\d)\d{1,2}:\d{2}(?!\d)",
    "coordinate": r"[-+]?\d+(?:\.\d+)?\s*°(?:\s*[NSEWnsew]\b)?|[-+]?\d+(?:\.\d+)?\s?[NSEW]\b",
}
"""What is taken out: what it is, and the pattern. A year alone, five digits in a row and a time
of day count as dates; `500 hPa`, `t850` and `°C` do not."""


def redacted(text: str) -> str:
    """`text` on one line, without anything that looks like a date, a place or a file.

    What is taken out may join what stood on either side, so this is repeated until nothing more
    is found.
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
    """The unit as it is where nothing in it has to go, else as `spoken_unit`."""
    plain = " ".join(unit.replace("/", " per ").split())
    return unit if spoken_unit(unit) == plain else spoken_unit(unit)


def shown_labels(grid: GridSpec, domain: Domain) -> tuple[str, ...]:
    """What to call every channel before a model's eyes, redacted; never empty."""
    # before as well as after: taking a name apart could hide what it is
    clean = replace(grid, channels=tuple(redacted(name) for name in grid.channels))
    return tuple(redacted(label) or "unnamed" for label in labels_of(clean, domain))
