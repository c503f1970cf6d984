"""A page to review narratives: sheet, narrative and measured facts of some windows."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2kd.core.files import write_text
from s2kd.core.types import Past, S2KDError, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration import words
from s2kd.narration.facts import Facts, facts
from s2kd.narration.narrators import Narrator
from s2kd.narration.prompts import prompt
from s2kd.narration.sheet import Sheets, png
from s2kd.narration.store import narrate_windows

TEMPLATE = Path(__file__).with_name("preview.html.j2")
SHEET_SIZE = 608
"""Pixels of a sheet, for narrators that need none."""


def write_preview(
    path: Path,
    windows: WindowDataset,
    narrator: Narrator,
    train_stats: Statistics,
    *,
    store: Path,
    name: str,
    count: int,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Narrate `count` windows, spread evenly over a split, and write the HTML page.

    A multimodal model is shown with the sheets it reads. The narratives stay in `store`, under the
    narrator's registered `name`. Raises S2KDError where `count` is below 1.
    """
    if count < 1:
        raise S2KDError(f"--preview {count}: must be at least 1")
    numbers = spread(len(windows), count)
    texts = narrate_windows(
        windows, narrator, train_stats, store, name=name, numbers=numbers, progress=progress
    )
    sheets = narrator.sheets or Sheets(size=SHEET_SIZE)
    metadata = {
        "narrator": name,
        "version": narrator.version,
        "reads the future": "yes" if narrator.reads_future else "no",
        "sheet": sheets.version,
        "dataset": f"{windows.dataset.name}, {len(numbers)} of {len(windows)} windows of "
        f"{windows.split}",
    }
    pasts = [windows.past_of(number, train_stats) for number in numbers]
    images = [png(sheets(past)) for past in pasts]
    write_text(path, page(metadata, numbers, pasts, images, texts))


def spread(total: int, count: int) -> list[int]:
    """At most `count` of the numbers 0..total - 1: the middles of as many equal parts."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / count).astype(int).tolist()


def page(
    metadata: dict[str, str],
    numbers: Sequence[int],
    pasts: Sequence[Past],
    images: Sequence[bytes],
    texts: Sequence[str],
) -> str:
    """The complete page with images inside; it needs no network and no script."""
    from jinja2 import Template

    columns = zip(numbers, pasts, images, texts, facts(pasts), strict=True)
    windows: list[dict[str, Any]] = [
        {
            "number": number,
            "sheet": base64.b64encode(image).decode("ascii"),
            "text": text,
            "prompt": prompt(past),
            "facts": [
                {"label": label, "cells": cells(past, measured)}
                for label, measured in zip(
                    words.labels_of(past.grid, past.domain), channels, strict=True
                )
            ],
        }
        for number, past, image, text, channels in columns
    ]
    template = Template(TEMPLATE.read_text("utf-8"), autoescape=True)
    return template.render(metadata=metadata, windows=windows)


def cells(past: Past, measured: Facts) -> dict[str, str]:
    """The facts of one channel that most narratives are about."""
    domain = past.domain
    unit = "" if measured.unit == "1" else f" {measured.unit}"
    highest, lowest = (
        words.place_name(words.third_of(cell, past.grid), domain)
        for cell in (measured.maximum_at, measured.minimum_at)
    )
    speed = (measured.east**2 + measured.south**2) ** 0.5
    direction = words.way(measured.east, measured.south, domain)
    moves = measured.coherence >= words.COHERENT
    return {
        "mean now": f"{measured.mean:.4g}{unit}",
        "against usual": f"{measured.anomaly:+.2f} σ",
        "trend of the mean": f"{measured.trend:+.2f} σ",
        "highest now": f"{measured.maximum:.4g}{unit}, {highest}",
        "lowest now": f"{measured.minimum:.4g}{unit}, {lowest}",
        "rose most": f"{measured.rise:+.2f} σ, {words.place_name(measured.rise_at, domain)}",
        "fell most": f"{measured.fall:+.2f} σ, {words.place_name(measured.fall_at, domain)}",
        "movement": f"{speed:.2f} cells per frame {direction}".strip() if moves else "none",
    }
