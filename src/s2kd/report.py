"""Results as a table on screen and as one page that stands by itself."""

import base64
import html
import io
import json
import math
import re
import statistics as stats
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd import figures
from s2kd.cell_events import EventCounts, event_interval
from s2kd.files import write_text, write_whole
from s2kd.recipe import Recipe
from s2kd.significance import compare, default_block
from s2kd.types import GridSpec, S2KDError

if TYPE_CHECKING:
    import rich.table

Row = Mapping[str, Any]
ROLES = ("reference", "teacher", "student")
KEYS = ("data", "preset", "split", "role", "backbone", "method", "narrator")
METRICS = ("mse", "mae", "rmse", "ssim")
BASELINE = "baseline"


def summary_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One dict a method, seeds taken together: references first, then teachers, then students.

    Each of `mse`, `mae`, `rmse`, `ssim` is the mean over seeds, with `…_std` (sample standard
    deviation; None for one seed). Students also have, against the student of the same backbone
    trained as "baseline": `gain_percent` of the MSE, its 95 % interval over test windows
    (`gain_low`, `gain_high`) and the `p_value`, adjusted by Holm over the methods of a backbone;
    and `gap_closed_percent` of the distance between baseline and teacher, None where the teacher
    is no better than the baseline.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    found = [_summary(dict(zip(KEYS, key, strict=True)), group) for key, group in groups.items()]
    _compare_students(found, list(groups.values()))
    order = list(dict.fromkeys((s["data"], s["preset"], s["split"]) for s in found))
    backbones = list(dict.fromkeys(s["backbone"] for s in found))

    def place(one: dict[str, Any]) -> tuple:
        where = order.index((one["data"], one["preset"], one["split"]))
        student = one["role"] == "student"
        first = student and one["method"] != BASELINE
        return where, ROLES.index(one["role"]), student and backbones.index(one["backbone"]), first

    return sorted(found, key=place)


def _summary(about: dict[str, Any], group: list[Row]) -> dict[str, Any]:
    found = {
        **about,
        "seeds": len(group),
        "parameters": group[0]["parameters"],
        "latency_ms": _mean([row.get("latency_ms") for row in group]),
        "reads_words": about["role"] == "teacher" and about["narrator"] != "none",
        "reads_future": any(row.get("reads_future") for row in group),
    }
    for name in METRICS:
        values = [row["metrics"].get(name) for row in group]
        found[name] = _mean(values)
        found[f"{name}_std"] = _std(values)
    for name in ("gain_percent", "gain_low", "gain_high", "p_value", "gap_closed_percent"):
        found[name] = None
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stats.fmean(known) if known else None


def _std(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stats.stdev(known) if len(known) > 1 else None


def _same_test(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("data", "preset", "split"))


def _compare_students(found: list[dict[str, Any]], groups: list[list[Row]]) -> None:
    """Fill in what needs the baseline and the teacher beside a student."""
    for base, base_rows in zip(found, groups, strict=True):
        if base["role"] != "student" or base["method"] != BASELINE:
            continue
        teachers = [s for s in found if s["role"] == "teacher" and _same_test(s, base)]
        teacher = next((s for s in teachers if s["reads_words"]), teachers[0] if teachers else None)
        peers = [
            (one, one_rows)
            for one, one_rows in zip(found, groups, strict=True)
            if one["role"] == "student"
            and one is not base
            and _same_test(one, base)
            and one["backbone"] == base["backbone"]
        ]
        for one, _ in peers:
            one["gain_percent"] = 100 * (base["mse"] - one["mse"]) / base["mse"]
            # as in scoring.gap_closed; without a gap there is nothing to close
            if teacher is not None and base["mse"] > teacher["mse"]:
                gap = base["mse"] - teacher["mse"]
                one["gap_closed_percent"] = 100 * (base["mse"] - one["mse"]) / gap
        _test_students(base, base_rows, peers)


def _test_students(
    base: dict[str, Any], base_rows: list[Row], peers: list[tuple[dict[str, Any], list[Row]]]
) -> None:
    errors = {str(i): _window_errors(rows) for i, (_, rows) in enumerate(peers)}
    errors["base"] = _window_errors(base_rows)
    usable = {name: e for name, e in errors.items() if e is not None}
    if "base" not in usable or len({e.shape[1] for e in usable.values()}) != 1:
        return
    windows = usable["base"].shape[1]
    overlap = base_rows[0]["scores"]["conventions"]["overlap"]
    block = default_block(windows, overlap=overlap)
    if windows < 4 * block:
        return
    for result in compare(usable, reference="base", block=block):
        one = peers[int(str(result["method"]))][0]
        percent = 100 / base["mse"]
        one["gain_low"], one["gain_high"] = -result["high"] * percent, -result["low"] * percent
        one["p_value"] = result["p_holm"]


def _window_errors(rows: list[Row]) -> np.ndarray | None:
    """(seed, window) normalised MSE, where every row has as many."""
    listed = [row.get("scores", {}).get("window_mse") for row in rows]
    if any(not one for one in listed) or len({len(one) for one in listed}) != 1:
        return None
    return np.asarray(listed, dtype=np.float64)


# --- the table ---------------------------------------------------------------------------------

HEAD = ("", "Size", "MSE", "MAE", "SSIM", "Gain %", "Gap closed %", "Reads words?")


def summary_table(rows: Iterable[Row]) -> "rich.table.Table":
    """The summary for a terminal; MSE and MAE are normalised, ± is over seeds."""
    from rich import box
    from rich.table import Table

    summary = summary_rows(rows)
    titles = list(dict.fromkeys(_title(one) for one in summary))
    seeds = max((one["seeds"] for one in summary), default=0)
    caption = "MSE, MAE: normalised, mean per element" + (f"; ± over {seeds} seeds" * (seeds > 1))
    starred = any((one["p_value"] or 1) < 0.05 for one in summary)
    caption += "; * p < 0.05 over test windows" * starred
    table = Table(title=" and ".join(titles), caption=caption, box=box.SIMPLE, padding=0)
    # widths that fit 80 columns; ± goes to a second line
    for number, (name, width) in enumerate(zip(HEAD, (0, 7, 7, 7, 7, 7, 8, 6), strict=True)):
        left = number == 0
        table.add_column(name, justify="left" if left else "right", no_wrap=left, min_width=width)
    last = None
    for one in summary:
        if last is not None and (one["role"], _title(one)) != last:
            table.add_section()
        last = (one["role"], _title(one))
        label = _label(one) if len(titles) == 1 else f"{one['split']}: {_label(one)}"
        table.add_row(label, *_cells(one))
    return table


def _title(one: Mapping[str, Any]) -> str:
    return f"{one['data']} · {one['preset']} · {one['split']}"


def _label(one: Mapping[str, Any]) -> str:
    if one["role"] == "reference":
        return one["method"]
    if one["role"] == "teacher":
        return f"{one['backbone']} {one['method']}"
    return f"{one['backbone']} {one['method']}"


def _cells(one: Mapping[str, Any]) -> list[str]:
    reads = "yes" if one["reads_words"] else "no"
    gain = _number(one["gain_percent"], "+.1f")
    if one["p_value"] is not None and one["p_value"] < 0.05:
        gain += "*"
    return [
        _size(one["parameters"]),
        *(_spread(one[name], one[f"{name}_std"]) for name in ("mse", "mae", "ssim")),
        gain,
        _number(one["gap_closed_percent"], ".0f"),
        f"{reads} (and the future)" if one["reads_future"] else reads,
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"


def _spread(mean: float | None, std: float | None) -> str:
    return _number(mean, ".4f") + ("" if std is None else f" ±{std:.4f}")


def _size(parameters: int) -> str:
    if not parameters:
        return "–"
    return f"{parameters / 1e6:.2f}\u202fM" if parameters >= 1e5 else f"{parameters:,}"


# --- the page ----------------------------------------------------------------------------------


def write_report(
    path: Path,
    *,
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    samples: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    sweep: Mapping[str, Any] | None = None,
) -> None:
    """One self-contained page at `path`, and its figures as PNG in `figures/` beside it.

    `rows` are those of `scoring.result_row`; `curves` the records of every training's `log.jsonl`
    by run name; `samples` one test window: `past`, `truth` (frame, channel, height, width),
    `forecasts` by name, `narrative` and `grid`; `recipe` is printed whole;
    `sweep` is what `s2kd sweep` found. Nothing is linked.
    """
    if not rows:
        raise S2KDError(f"{path}: there are no scores to report yet")
    page = _Page(path.parent / "figures")
    _across_splits(page, rows)
    for split in dict.fromkeys((row["data"], row["preset"], row["split"]) for row in rows):
        _split_section(page, [r for r in rows if (r["data"], r["preset"], r["split"]) == split])
    if samples:
        _sample_section(page, rows, samples)
    if curves:
        _curve_section(page, rows, curves)
    if sweep and sweep["best"]:
        _sweep_section(page, sweep)
    _method_section(page, rows, recipe)
    write_text(path, page.render(f"{rows[0]['data']}: {rows[0]['preset']}", _stated(rows)))


class _Page:
    """Pieces of HTML in order; figures are stored beside it as they are added."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pieces = folder, []

    def heading(self, text: str, *, level: int = 2) -> None:
        self.pieces.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str, *, kind: str = "p") -> None:
        self.pieces.append(f"<{kind}>{html.escape(text)}</{kind}>")

    def table(self, head: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> None:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(line(cells, "td") for cells in lines)
        self.pieces.append(
            f'<div class="wide"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody>'
            f"</table></div><p class=caption>{html.escape(caption)}</p>"
        )

    def figure(self, name: str, drawn: Any, caption: str) -> None:
        drawing = io.BytesIO()
        drawn.savefig(drawing, format="png", dpi=150, facecolor="white")
        name = re.sub(r"[^\w.-]+", "_", name)
        content = drawing.getvalue()
        write_whole(self.folder / f"{name}.png", lambda beside: beside.write_bytes(content))
        source = base64.b64encode(content).decode()
        words = html.escape(caption)
        self.pieces.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{source}">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def folded(self, title: str, text: str) -> None:
        self.pieces.append(
            f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre>"
            "</details>"
        )

    def render(self, title: str, stated: str) -> str:
        """The whole page."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
            f"<h1>{html.escape(title)}</h1><p class=caption>{html.escape(stated)}</p>\n"
            + "\n".join(self.pieces)
            + "\n</body></html>\n"
        )


STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--paper:#fff;--faint:#666;--line:#ddd;--band:#f5f5f7}
@media (prefers-color-scheme:dark){
:root{--ink:#e8e8ea;--paper:#161618;--faint:#a0a0a6;--line:#3a3a3e;--band:#222226}
img{filter:brightness(.88)}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:54rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;white-space:nowrap;
font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
th{font-weight:600}tbody tr:hover td{background:var(--band)}
figure{margin:1.5rem 0}img{width:100%;max-width:46rem;height:auto;border-radius:6px;
background:#fff;display:block}
figcaption,.caption{font-size:.85rem;color:var(--faint);margin-top:.4rem}
blockquote{margin:1rem 0;padding:.5rem 1rem;border-left:3px solid var(--line);
background:var(--band)}
details{margin:1rem 0}pre{overflow-x:auto;font-size:.8rem;background:var(--band);padding:.8rem}
""".replace("\n", "")


def _stated(rows: Sequence[Row]) -> str:
    """What every figure must say: data, preset, split, seeds, hardware."""
    seeds = sorted({row["seed"] for row in rows if row["seed"] is not None})
    about, scored = rows[0]["hardware"], rows[0]["scores"]["conventions"]
    threads = f"{about['threads']} thread{'s' * (about['threads'] != 1)}"
    machine = about.get("gpu") or f"{about['processor']}, {threads}"
    splits = ", ".join(dict.fromkeys(row["split"] for row in rows))
    return (
        f"Data {rows[0]['data']}, preset {rows[0]['preset']}, {splits} split, "
        f"{scored['windows']} windows of {scored['past']} past and {scored['lead']} future frames, "
        f"seeds {', '.join(map(str, seeds)) or 'none'}, scored on {machine}."
    )


def _across_splits(page: _Page, rows: Sequence[Row]) -> None:
    """Where a model was scored on several test splits: its MSE on each, and against the first."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    if len(splits) < 2:
        return
    windows = {row["split"]: row["scores"]["conventions"]["windows"] for row in rows}
    scores: dict[tuple, dict[str, float | None]] = {}
    labels: dict[tuple, str] = {}
    several = len({(row["data"], row["preset"]) for row in rows}) > 1
    for one in summary_rows(rows):
        key = tuple(one[k] for k in KEYS if k != "split")
        scores.setdefault(key, {})[one["split"]] = one["mse"]
        labels[key] = f"{one['preset']}: {_label(one)}" if several else _label(one)
    lines = []
    for key, known in scores.items():
        base = known.get(splits[0])
        cells = [_number(known.get(split), ".4f") for split in splits]
        for number, split in enumerate(splits[1:], 1):
            if base and known.get(split) is not None:
                cells[number] += f" (×{known[split] / base:.2f})"
        lines.append([labels[key], *cells])
    page.heading("Test splits side by side")
    page.table(
        ("", *splits),
        lines,
        f"Normalised MSE of each test split, and how many times that on {splits[0]} it is. "
        f"Windows: {', '.join(f'{split} {windows[split]}' for split in splits)}.",
    )


def _split_section(page: _Page, rows: list[Row]) -> None:
    split, stated = rows[0]["split"], _stated(rows)
    page.heading(f"Results on the {split} split")
    summary = summary_rows(rows)
    page.table(
        (*HEAD, "Latency ms", "95 % interval of gain", "p (Holm)"),
        [
            [
                _label(one),
                *_cells(one),
                _number(one["latency_ms"], ".2f"),
                "–"
                if one["gain_low"] is None
                else f"{one['gain_low']:+.1f} to {one['gain_high']:+.1f}",
                _number(one["p_value"], ".3f"),
            ]
            for one in summary
        ],
        "MSE and MAE are means per element of fields divided by their training standard "
        "deviation; ± is the standard deviation over seeds. Gain: MSE saved against the same "
        "backbone's baseline, * where p < 0.05 in a paired block bootstrap over test windows. "
        "Gap closed: share of the way from baseline to teacher. " + stated,
    )
    style = figures.colours([r["method"] for r in rows])
    _overview(page, summary, split, stated, style)
    _lead_figures(page, rows, split, stated, style)
    _spectrum_figures(page, rows, split, stated, style)
    _extremes_table(page, rows, stated)
    _cell_extremes_table(page, rows, stated)
    _horizon_figures(page, rows, split, stated, style)
    _group_table(page, rows, stated)


def _overview(page: _Page, summary: list[dict], split: str, stated: str, style: dict) -> None:
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for one in summary:
        if one["role"] == "student":
            spread = (one["mse"], one["mse_std"] or 0.0)
            groups.setdefault(one["backbone"], {})[one["method"]] = spread
    if groups:
        worst = max(mean for methods in groups.values() for mean, _ in methods.values())
        lines = {
            one["method"]: one["mse"]
            for one in summary
            # a reference far off the scale would squeeze all students into a corner
            if one["role"] == "teacher" or (one["role"] == "reference" and one["mse"] < 1.5 * worst)
        }
        drawn = figures.overview(groups, lines=lines, style=style)
        page.figure(f"{split}-overview", drawn, f"Students, teachers and references. {stated}")


def _backbones(rows: Sequence[Row]) -> list[str]:
    """Backbones of students, or one empty name where there are only teachers and references."""
    return list(dict.fromkeys(r["backbone"] for r in rows if r["role"] == "student")) or [""]


def _beside(rows: Sequence[Row], backbone: str) -> dict[str, list[Row]]:
    """References, teachers and the students of one backbone, by method."""
    chosen: dict[str, list[Row]] = {}
    for row in rows:
        if row["role"] != "student" or row["backbone"] == backbone:
            chosen.setdefault(row["method"], []).append(row)
    return chosen


def _lead_times(conventions: Mapping[str, Any]) -> tuple[list[float], str]:
    """Every lead time, in the largest unit that keeps the steps readable, and that unit."""
    step = conventions["step_seconds"]
    last = step * conventions["lead"]
    units = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
    unit = next((u for u, long in units.items() if last >= 4 * long), "seconds")
    return [step * (n + 1) / units[unit] for n in range(conventions["lead"])], unit


def _lead_figures(page: _Page, rows: list[Row], split: str, stated: str, style: dict) -> None:
    about = rows[0]["scores"]["conventions"]
    hours, unit = _lead_times(about)
    labels = {
        channel: f"{channel}: RMSE ({u})"
        for channel, u in zip(about["channels"], about["units"], strict=True)
    }
    for backbone in _backbones(rows):
        panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for channel in about["channels"]:
            for method, ones in _beside(rows, backbone).items():
                curves = np.array([r["scores"]["by_lead"][channel]["rmse"] for r in ones], float)
                spread = curves.std(0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
                shown = curves.mean(0).tolist(), spread.tolist()
                panels.setdefault(channel, {})[method] = shown
        drawn = figures.lead_curves(
            panels, hours=hours, unit_of_time=unit, labels=labels, style=style
        )
        name = "-".join(filter(None, (split, "lead", backbone)))
        page.figure(
            name,
            drawn,
            f"Error by lead time{f', students of {backbone}' if backbone else ''}; mean over "
            f"seeds, shaded by their standard deviation. {stated}",
        )


def _spectrum_figures(page: _Page, rows: list[Row], split: str, stated: str, style: dict) -> None:
    known = rows[0]["scores"]["spectra"]
    if not known:
        return
    style = {**style, "truth": figures.FIXED["truth"], "teacher": ("black", "-.")}
    first = next(iter(known.values()))
    for backbone in _backbones(rows):
        panels: dict[str, dict[str, list[float]]] = {}
        for channel, truth in known.items():
            panels[channel] = {"truth": truth["truth"][-1]}
            for method, ones in _beside(rows, backbone).items():
                if ones[0]["role"] != "reference":
                    power = [row["scores"]["spectra"][channel]["forecast"][-1] for row in ones]
                    panels[channel][method] = np.mean(power, axis=0).tolist()
        drawn = figures.spectra(panels, wavenumber=first["wavenumber"], style=style)
        page.figure(
            "-".join(filter(None, (split, "spectra", backbone))),
            drawn,
            f"Radial power spectrum at lead {first['lead'][-1]}"
            f"{f', students of {backbone}' if backbone else ''}, mean over windows and seeds; "
            f"right, its ratio to the truth's: below 1 the forecast is too smooth. {stated}",
        )


def _extremes_table(page: _Page, rows: list[Row], stated: str) -> None:
    """CSI and SEDI of the 95 % event, or of the nearest there is."""
    known = rows[0]["scores"]["extremes"]
    events = [name for name in next(iter(known.values()), {}) if name.startswith("above")]
    if not events:
        return
    event = "above 95 %" if "above 95 %" in events else events[0]
    names = ("csi", "pod", "far", "bias", "sedi")
    lines = []
    for one, ones in _by_summary(rows):
        for channel in known:
            scores = [row["scores"]["extremes"][channel][event] for row in ones]
            means = [_number(_mean([s[name] for s in scores]), ".3f") for name in names]
            lines.append([_label(one), channel, *means])
    page.heading(f"Extremes: {event} of the training split", level=3)
    page.table(
        ("", "Channel", "CSI", "POD", "FAR", "Bias", "SEDI"),
        lines,
        f"Over all cells, leads and windows; other thresholds are in scores.json. {stated}",
    )


CELL_EVENTS = ("below 5 %", "above 95 %", "above 99.5 %", "surge above 95 %")


def _cell_extremes_table(page: _Page, rows: list[Row], stated: str) -> None:
    """CSI with its interval, POD, FAR and SEDI of events by each cell's own quantiles."""
    if not all(row["scores"].get("cell_extremes") for row in rows):
        return  # results of before
    about = rows[0]["scores"]["conventions"]
    block = default_block(about["windows"], overlap=about["overlap"])
    if about["windows"] < 4 * block:
        return
    known = EventCounts.from_scores(rows[0]["scores"])
    lines = []
    for one, ones in _by_summary(rows):
        counted = [EventCounts.from_scores(row["scores"]) for row in ones]
        for channel in known.channels:
            for event in CELL_EVENTS:
                if event in known.events and known.cells_of(channel, event):
                    where = {"channel": channel, "event": event, "block": block}
                    found = event_interval(counted, **where, resamples=400)
                    scores = [r["scores"]["cell_extremes"]["scores"][channel][event] for r in ones]
                    means = [_mean([s[name] for s in scores]) for name in ("pod", "far", "sedi")]
                    lines.append(
                        [
                            _label(one),
                            channel,
                            event,
                            _number(found.value, ".3f"),
                            f"{_number(found.low, '.3f')} to {_number(found.high, '.3f')}",
                            *(_number(mean, ".3f") for mean in means),
                            str(max(scores[0]["left_out"])),
                        ]
                    )
    page.heading("Extremes by each cell's own training quantiles", level=3)
    page.table(
        ("", "Channel", "Event", "CSI", "95 % interval", "POD", "FAR", "SEDI", "Left out"),
        lines,
        "Over all leads and windows, seeds pooled; the interval is of a block bootstrap over test "
        f"windows. Left out: cells where training saw no such event. {stated}",
    )


def _horizon_figures(page: _Page, rows: list[Row], split: str, stated: str, style: dict) -> None:
    """Growth of the error in roll-outs, where there are some."""
    rolled = [row for row in rows if row.get("long_horizon", {}).get("windows")]
    if not rolled:
        return
    about = rolled[0]["scores"]["conventions"]
    steps = rolled[0]["long_horizon"]["steps"]
    hours, unit = _lead_times({**about, "lead": steps})
    lines = []
    for backbone in _backbones(rolled):
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for method, ones in _beside(rolled, backbone).items():
            errors = np.array([row["long_horizon"]["mse"] for row in ones], float)
            spread = errors.std(0, ddof=1) if len(errors) > 1 else np.zeros(errors.shape[1])
            curves[method] = errors.mean(0).tolist(), spread.tolist()
        drawn = figures.lead_curves(
            {"": curves},
            hours=hours,
            unit_of_time=unit,
            labels={"": "MSE, normalised"},
            style=style,
        )
        page.figure(
            "-".join(filter(None, (split, "horizon", backbone))),
            drawn,
            f"Roll-outs to {rolled[0]['long_horizon']['horizon']} lead times"
            f"{f', students of {backbone}' if backbone else ''}: error by step; mean over seeds, "
            f"shaded by their standard deviation. {stated}",
        )
    for one, ones in _by_summary(rolled):
        found = [row["long_horizon"] for row in ones]
        lines.append(
            [
                _label(one),
                _number(_mean([f["mse"][-1] for f in found]), ".4f"),
                f"{sum(f['stable'] for f in found)} of {len(found)}",
                _number(_mean([float(f["ahead_of_persistence"]) for f in found]), ".1f"),
                _number(_mean([float(f["ahead_of_climatology"]) for f in found]), ".1f"),
                found[0]["words"] or "–",
            ]
        )
    first = rolled[0]["long_horizon"]
    page.table(
        ("", "MSE at the end", "Stable", "Ahead of persistence", "Ahead of climatology", "Reads"),
        lines,
        f"{first['windows']} windows ({first['skipped']} too near the end of their stretch were "
        f"skipped). Stable: every value finite and the error below {first['limit']:g} times the "
        f"variance about the climatology; ahead: steps. {stated}",
    )


def _by_summary(rows: Sequence[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    """Every line of the summary with the rows behind it."""
    return [
        (one, [row for row in rows if all(row[key] == one[key] for key in KEYS)])
        for one in summary_rows(rows)
    ]


def _group_table(page: _Page, rows: list[Row], stated: str) -> None:
    names = list(rows[0]["scores"]["by_group"])
    if not 1 < len(names) <= 24:
        return
    lines = [
        [
            _label(one),
            *(
                _number(_mean([r["scores"]["by_group"][name]["mse"] for r in ones]), ".4f")
                for name in names
            ),
        ]
        for one, ones in _by_summary(rows)
    ]
    page.heading("MSE by run or environment", level=3)
    page.table(("", *names), lines, f"Normalised MSE of each. {stated}")


MOST_MAPS = 6


def _sample_section(page: _Page, rows: Sequence[Row], samples: Mapping[str, Any]) -> None:
    grid: GridSpec = samples["grid"]
    page.heading("One test window")
    if samples.get("narrative"):
        page.text("What the teacher read of the past:")
        page.text(samples["narrative"], kind="blockquote")
    forecasts = _chosen(samples["forecasts"])
    steps, unit = _lead_times(rows[0]["scores"]["conventions"])
    when = [f"+{step:g} {unit if step != 1 else unit.removesuffix('s')}" for step in steps]
    for channel, name in enumerate(grid.channels):
        drawn = figures.maps(
            past=samples["past"],
            truth=samples["truth"],
            forecasts=forecasts,
            channel=channel,
            grid=grid,
            when=when,
        )
        page.figure(
            f"maps-{name}",
            drawn,
            f"{name} ({grid.units[channel]}): truth, forecasts and their errors at the last lead, "
            f"in one colour range each. {_stated(rows)}",
        )


def _chosen(forecasts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """At most six: teachers, then one backbone's methods before the next one's."""
    names = sorted((name for name in forecasts if name.startswith("teacher")), key=len)
    students = [name for name in forecasts if name not in names]
    backbones = list(dict.fromkeys(name.split(" ")[0] for name in students))
    students.sort(key=lambda name: backbones.index(name.split(" ")[0]))
    return {name: forecasts[name] for name in (names + students)[:MOST_MAPS]}


def _curve_section(
    page: _Page, rows: Sequence[Row], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    curves = {name: records for name, records in curves.items() if records}
    panels: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for name, records in curves.items():
        kind, _, rest = name.partition(" ")
        backbone = next((b for b in _backbones(rows) if b and rest.startswith(f"{b}-")), "")
        panels.setdefault(f"{kind} {backbone}".strip(), {})[rest or name] = records
    if not panels:
        return
    page.heading("Training")
    page.figure(
        "training",
        figures.training_curves(panels),
        "Validation MSE by epoch, one line a seed; the dot marks the weights that were kept. "
        + _stated(rows),
    )
    several = {}
    for name, records in curves.items():
        if len(records) > 1 and len(records[0].get("terms") or {}) > 1:
            several.setdefault(figures.without_seed(name), records)
    if several:
        page.figure(
            "terms",
            figures.term_curves(dict(list(several.items())[:8])),
            "Terms of the training loss by epoch, weights not applied, first seed. "
            + _stated(rows),
        )


def _sweep_section(page: _Page, sweep: Mapping[str, Any]) -> None:
    """The chosen values, the whole surface and every trial."""
    done = [one for one in sweep["trials"] if one["state"] == "complete"]
    done.sort(key=lambda one: one["validation"])
    seeds = ", ".join(map(str, sweep["seeds"]))
    stated = (
        f"{sweep['backbone']} {sweep['method']} on {sweep['data']}, preset {sweep['preset']}, "
        f"{len(done)} trials ({sweep['sampler']}), seeds {seeds}; {sweep['measure']}. The test "
        "split was not opened."
    )
    page.heading("Search")
    page.text("Chosen: " + ", ".join(sweep["settings"]))
    page.figure(
        "sweep",
        figures.sweep(sweep),
        f"The star is the choice, the ring the recipe's own. {stated}",
    )
    lines = [
        [str(one["number"]), *(f"{one['values'][a]:g}" for a in sweep["axes"]),
         f"{one['validation']:.5f}"]
        for one in done
    ]  # fmt: skip
    head = ("Trial", *(figures.AXIS_LABELS[axis] for axis in sweep["axes"]), "Validation error")
    page.table(head, lines, stated)


def _method_section(page: _Page, rows: Sequence[Row], recipe: Recipe | None) -> None:
    page.heading("How it was measured")
    about = rows[0]["scores"]["conventions"]
    notes = {
        "Normalised unit": about["normalised"],
        "SSIM": about["ssim"] or "grid too small",
        "Climatology": about["climatology"] or "none",
        "Spectra": about["spectra"],
        "Versions": ", ".join(f"{k} {v}" for k, v in rows[0]["versions"].items()),
        "Hardware": ", ".join(f"{k} {v}" for k, v in rows[0]["hardware"].items()),
        "Data fingerprint": rows[0]["fingerprint"],
    }
    page.table(("", ""), [[name, value] for name, value in notes.items()], _stated(rows))
    if recipe is not None:
        plain = json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False)
        page.folded("The recipe", plain)
