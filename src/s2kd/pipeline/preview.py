"""A page to judge narratives by: sheet, words and measured facts of some windows, side by side."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd import __version__
from s2kd.core.files import write_text
from s2kd.core.types import Past, S2KDError
from s2kd.narration import words
from s2kd.narration.facts import Facts, facts
from s2kd.narration.prompts import prompt
from s2kd.narration.sheet import Sheets, png
from s2kd.narration.store import FILE_NAME, narrate_windows
from s2kd.narration.words import labels_of

if TYPE_CHECKING:
    from s2kd.pipeline import Run

SPLIT = "train"
USUAL_SIZE = 608
"""Pixels of a sheet, for narrators that need none."""


def write(run: "Run", *, windows: int) -> Path:
    """Narrate `windows` windows, spread evenly over the training split, into preview.html.

    The narratives are kept in the run's store, so that narrating everything later goes on from
    them. The sheets are those that the narrator was shown.
    """
    if windows < 1:
        raise S2KDError(f"--preview {windows}: must be at least 1")
    every = run.windows(SPLIT)
    numbers = spread(len(every), windows)
    told, name = run.progress(f"narrate {len(numbers)} windows"), run.recipe.narrator.name
    texts = narrate_windows(
        every,
        run.narrator,
        run.train_stats,
        run.out / FILE_NAME,
        name=name,
        numbers=numbers,
        progress=lambda done, total: told(done, total, ""),
    )
    pasts = [every.past_of(number, run.train_stats) for number in numbers]
    sheets = getattr(run.narrator, "sheets", None) or Sheets(size=USUAL_SIZE)
    shown = [png(sheets(past)) for past in pasts]
    path = run.out / "preview.html"
    about = {
        "narrator": name,
        "version": run.narrator.version,
        "reads the future": "yes" if run.narrator.reads_future else "no",
        "sheet": sheets.version,
        "dataset": f"{run.dataset.name}, {len(numbers)} of {len(every)} windows of {SPLIT}",
        "made by": f"s2kd {__version__}",
    }
    write_text(path, page(about, numbers, pasts, shown, texts))
    return path


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` numbers of 0..count - 1: the middles of as many equal parts."""
    wanted = min(count, wanted)
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(int).tolist()


def page(
    about: dict[str, str],
    numbers: Sequence[int],
    pasts: Sequence[Past],
    sheets: Sequence[bytes],
    texts: Sequence[str],
) -> str:
    """The whole page, with its pictures inside; needs no network and no script."""
    title = f"Narratives by {html.escape(about['narrator'])}"
    head = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in about.items()
    )
    cards = "".join(
        _card(number, past, sheet, text, measured)
        for number, past, sheet, text, measured in zip(
            numbers, pasts, sheets, texts, facts(pasts), strict=True
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1><dl>{head}</dl>"
        "<p>Each sheet shows the first, middle and last frame of a window's past and the change "
        "from first to last, in colours whose range is the same for all windows. The facts are "
        "measured on the same frames; σ is the training standard deviation.</p>"
        f"{cards}</body></html>\n"
    )


def _card(number: int, past: Past, sheet: bytes, text: str, measured: tuple[Facts, ...]) -> str:
    picture = base64.b64encode(sheet).decode("ascii")
    told = html.escape(text) if text else "<em>(no words)</em>"
    return (
        f'<section id="window-{number}"><h2>Window {number}</h2><div class="beside">'
        f'<img alt="contact sheet of window {number}" src="data:image/png;base64,{picture}">'
        f'<div><blockquote>{told}</blockquote><p class="count">{len(text.split())} words</p>'
        f"{_table(past, measured)}"
        f"<details><summary>What a multimodal model is asked</summary><p>"
        f"{html.escape(prompt(past))}</p></details></div></div></section>"
    )


def _table(past: Past, measured: tuple[Facts, ...]) -> str:
    """The facts that most narratives speak of, a column a channel."""
    columns = [_cells(past, one) for one in measured]
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels_of(past.grid, past.domain))
    rows = "".join(
        f"<tr><th>{name}</th>"
        + "".join(f"<td>{html.escape(column[name])}</td>" for column in columns)
        + "</tr>"
        for name in columns[0]
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _cells(past: Past, one: Facts) -> dict[str, str]:
    domain, size = past.domain, (past.grid.height, past.grid.width)
    unit = "" if one.unit == "1" else f" {one.unit}"
    moves = "no clear movement"
    if one.coherence >= words.COHERENT:
        pace = (one.east**2 + one.south**2) ** 0.5
        moves = f"{pace:.2f} cells a frame {words.way(one.east, one.south, domain)}".strip()
    return {
        "mean now": f"{one.mean:.4g}{unit}",
        "against usual": f"{_signed(one.anomaly)} σ",
        "trend of the mean": f"{_signed(one.trend)} σ",
        "highest now": f"{one.maximum:.4g}{unit}, "
        + words.place_name(words.third_of(one.maximum_at, *size), domain),
        "lowest now": f"{one.minimum:.4g}{unit}, "
        + words.place_name(words.third_of(one.minimum_at, *size), domain),
        "rose most": f"{_signed(one.rise)} σ, {words.place_name(one.rise_at, domain)}",
        "fell most": f"{_signed(one.fall)} σ, {words.place_name(one.fall_at, domain)}",
        "movement": moves,
    }


def _signed(value: float) -> str:
    near = round(value, 2)
    return f"{near:+.2f}".replace("-", "−") if near else "0.00"


STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--paper:#fff;--faint:#666;--line:#ddd;--band:#f5f5f7}
@media (prefers-color-scheme:dark){
:root{--ink:#e8e8ea;--paper:#161618;--faint:#a0a0a6;--line:#3a3a3e;--band:#222226}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.2}
h2{font-size:1.1rem;margin:2.5rem 0 .8rem;border-bottom:1px solid var(--line)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.9rem}
dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
.beside{display:grid;grid-template-columns:fit-content(40rem) 1fr;gap:1.5rem;align-items:start}
.beside>div{min-width:0}
@media (max-width:60rem){.beside{grid-template-columns:1fr}}
img{max-width:100%;height:auto;background:#fff;outline:1px solid var(--line)}
blockquote{margin:0;padding:.6rem 1rem;border-left:3px solid var(--line);background:var(--band);
font-size:1.05rem}
.count{margin:.2rem 0 1rem;font-size:.8rem;color:var(--faint)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.2rem .9rem .2rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}tr>th:first-child{font-weight:400;color:var(--faint);white-space:nowrap}
details{margin:1rem 0;font-size:.85rem;color:var(--faint)}
""".replace("\n", "")
