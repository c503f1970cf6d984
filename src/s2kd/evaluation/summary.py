"""Results by method, seeds taken together: as numbers, and as a table on screen."""

import math
import statistics as stats
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.evaluation.significance import at_once, by_moment, compare, runs_of

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
    is no better than the baseline, or not clearly so: a share of what chance gives says nothing.
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
        "latency_ms": mean_of_known([row.get("latency_ms") for row in group]),
        "reads_words": about["role"] == "teacher" and about["narrator"] != "none",
        "reads_future": any(row.get("reads_future") for row in group),
    }
    for name in METRICS:
        values = [row["metrics"].get(name) for row in group]
        found[name] = mean_of_known(values)
        found[f"{name}_std"] = _std(values)
    for name in ("gain_percent", "gain_low", "gain_high", "p_value", "gap_closed_percent"):
        found[name] = None
    return found


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Of the values that are there; None where none is."""
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
        teachers = [
            (s, s_rows)
            for s, s_rows in zip(found, groups, strict=True)
            if s["role"] == "teacher" and _same_test(s, base)
        ]
        teachers.sort(key=lambda pair: not pair[0]["reads_words"])
        teacher, teacher_rows = teachers[0] if teachers else (None, [])
        if teacher is not None and not _is_ahead(teacher_rows, base_rows):
            teacher = None
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


def _is_ahead(teacher_rows: list[Row], base_rows: list[Row]) -> bool:
    """Whether the teacher's interval against the baseline leaves out 0; True without interval."""
    both = {"teacher": _window_errors(teacher_rows), "base": _window_errors(base_rows)}
    usable = [errors for errors in both.values() if errors is not None]
    if len(usable) < 2 or usable[0].shape[1] != usable[1].shape[1]:
        return True
    scores = base_rows[0]["scores"]
    overlap, runs = scores["conventions"]["overlap"], runs_of(scores)
    (found,) = compare(both, reference="base", overlap=overlap, runs=runs)
    return found["low"] is None or bool(found["high"] < 0)


def _test_students(
    base: dict[str, Any], base_rows: list[Row], peers: list[tuple[dict[str, Any], list[Row]]]
) -> None:
    errors = {str(i): _window_errors(rows) for i, (_, rows) in enumerate(peers)}
    errors["base"] = _window_errors(base_rows)
    usable = {name: e for name, e in errors.items() if e is not None}
    if "base" not in usable or len({e.shape[1] for e in usable.values()}) != 1:
        return
    scores = base_rows[0]["scores"]
    overlap = scores["conventions"]["overlap"]
    for result in compare(usable, reference="base", overlap=overlap, runs=runs_of(scores)):
        one = peers[int(str(result["method"]))][0]
        percent = 100 / base["mse"]
        if result["low"] is None:
            continue
        one["gain_low"], one["gain_high"] = -result["high"] * percent, -result["low"] * percent
        one["p_value"] = result["p_holm"]


def _window_errors(rows: list[Row]) -> np.ndarray | None:
    """(seed, window) normalised MSE, where every row has as many."""
    listed = [row.get("scores", {}).get("window_mse") for row in rows]
    if any(not one for one in listed) or len({len(one) for one in listed}) != 1:
        return None
    errors = np.asarray(listed, dtype=np.float64)
    return by_moment(errors, at_once(rows[0]["scores"]))


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
    for column, (name, width) in enumerate(zip(HEAD, (0, 7, 7, 7, 7, 7, 8, 6), strict=True)):
        left = column == 0
        table.add_column(name, justify="left" if left else "right", no_wrap=left, min_width=width)
    last = None
    for one in summary:
        if last is not None and (one["role"], _title(one)) != last:
            table.add_section()
        last = (one["role"], _title(one))
        label = label_of(one) if len(titles) == 1 else f"{one['split']}: {label_of(one)}"
        table.add_row(label, *cells_of(one))
    return table


def _title(one: Mapping[str, Any]) -> str:
    return f"{one['data']} · {one['preset']} · {one['split']}"


def label_of(one: Mapping[str, Any]) -> str:
    """A method of the summary in few words."""
    if one["role"] == "reference":
        return one["method"]
    return f"{one['backbone']} {one['method']}"


def cells_of(one: Mapping[str, Any]) -> list[str]:
    """Its line of the table, under all of `HEAD` but the label."""
    reads = "yes" if one["reads_words"] else "no"
    gain = number(one["gain_percent"], "+.1f")
    if one["p_value"] is not None and one["p_value"] < 0.05:
        gain += "*"
    return [
        _size(one["parameters"]),
        *(_spread(one[name], one[f"{name}_std"]) for name in ("mse", "mae", "ssim")),
        gain,
        number(one["gap_closed_percent"], ".0f"),
        f"{reads} (and the future)" if one["reads_future"] else reads,
    ]


def number(value: float | None, form: str = ".4f") -> str:
    """A number in this format; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"


def _spread(mean: float | None, std: float | None) -> str:
    return number(mean, ".4f") + ("" if std is None else f" ±{std:.4f}")


def _size(parameters: int) -> str:
    if not parameters:
        return "–"
    return f"{parameters / 1e6:.2f}\u202fM" if parameters >= 1e5 else f"{parameters:,}"
