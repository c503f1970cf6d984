"""The page of results: a Markdown template filled with tables, figures and numbers from results."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from s2kd.core.files import write_text, write_whole
from s2kd.core.types import S2KDError
from s2kd.evaluation.compare import BASELINE, difference, label, verdict
from s2kd.evaluation.results import read_searches
from s2kd.evaluation.significance import FEWEST_SEEDS
from s2kd.evaluation.tables import Table, number
from s2kd.paper import figures, tables
from s2kd.paper.experiment import (
    Experiment,
    Results,
    experiments,
    full_grid_teacher,
    longer_training,
)
from s2kd.paper.reproduce import read_samples
from s2kd.paper.studies import MAIN_TABLES, SOURCES, TABLES


@dataclass(frozen=True, kw_only=True)
class NamedFigure:
    """A Matplotlib figure with its file's name."""

    name: str
    figure: Any


def contents(
    name: str, all_experiments: Sequence[Experiment], results: Results, folder: Path
) -> list[Table | NamedFigure]:
    """The tables and figures that go by this name (`studies.TABLES`, `searches`)."""
    listed = [experiment for experiment in all_experiments if _shows(name, experiment)]
    usual = [experiment for experiment in listed if experiment.split == "test"]
    title = name.capitalize()
    match name:
        case "table1" | "table2" | "table3":
            return [t for experiment in listed for t in main_tables(experiment, results, name)]
        case "table4" | "fig3":
            entries = [tables.ablation_table(listed, title="Parts of the loss")]
            drawn = {
                experiment.name: experiment
                for experiment in usual
                if experiment.student("semantic").sizes["model"]
            }
            if drawn:
                entries.append(NamedFigure(name="ablation", figure=figures.ablation_bars(drawn)))
        case "fig4":
            entries = [tables.narrator_table(results, listed, title="What the teacher reads")]
            entries += narrator_figure(results, listed)
        case "fig5":
            entries = [
                NamedFigure(name=f"maps-{sample.attrs['data']}", figure=figures.region_maps(sample))
                for sample in read_samples(folder)
                if sample.attrs["data"] in {experiment.data for experiment in listed}
            ]
        case "extremes":
            entries = [
                tables.event_detail_table(experiment) for experiment in listed
            ] + event_figure(listed)
        case "spectra":
            entries = [tables.spectra_table(listed, title=title)]
        case "horizon":
            entries = [tables.rollout_table(listed, title="Roll-outs")]
        case "searches":
            entries = search_contents(folder)
        case _:
            raise S2KDError(f"no table or figure {name!r} (there are {', '.join(TABLES)})")
    return [entry for entry in entries if entry is not None]


def _shows(name: str, experiment: Experiment) -> bool:
    """Whether a table shows this data's kind of field; unknown data are shown everywhere."""
    kind = SOURCES.get(experiment.data, ("", False))[0]
    return name not in TABLES or not kind or kind in TABLES[name][1]


def main_tables(experiment: Experiment, results: Results, name: str) -> list[Table]:
    """The table of an experiment, of longer training, and of the teacher on the full grid."""
    variants = [longer_training(results, experiment), full_grid_teacher(results, experiment)]
    title = f"Table {name[-1]}"
    return [tables.main_table(experiment, title=f"{title}: {experiment.title}", beside=name)] + [
        tables.main_table(variant, title=f"{title}: {variant.title}")
        for variant in variants
        if variant
    ]


def narrator_figure(results: Results, listed: Iterable[Experiment]) -> list[NamedFigure]:
    """Figure 4, where there is a control."""
    panels = {}
    for experiment in listed:
        effects = tables.control_effects(results, experiment)
        points = {tables.READS.get(n, n): pair[1] for n, pair in effects.items() if pair[1]}
        panels |= {experiment.name: points} if points else {}
    figure = figures.narrator_points(panels) if panels else None
    return [NamedFigure(name="narrators", figure=figure)] if figure else []


def event_figure(listed: Iterable[Experiment]) -> list[NamedFigure]:
    """CSI above the 95 % quantile by lead, less the baseline's, first channel."""
    panels = {}
    for experiment in listed:
        if ("above 95 %") not in {event for _, event in tables.events_of(experiment)}:
            continue
        channel, base = str(experiment.scores["channel"].values[0]), experiment.student(BASELINE)
        curves = {
            method: [
                tables.event_gain(group, base, channel, "above 95 %", lead=int(lead))
                for lead in experiment.scores["lead"].values
            ]
            for method, group in experiment.forecasters.items()
            if method in ("teacher", "fitnet", "s2kd", "s2kd_plus")
        }
        panels[experiment.name] = {m: points for m, points in curves.items() if all(points)}
    figure = figures.csi_by_lead(panels) if panels else None
    return [NamedFigure(name="extremes", figure=figure)] if figure else []


def search_contents(folder: Path) -> list[Table]:
    """Searches over one axis, a table per axis."""
    searches = [s for s in read_searches(folder).values() if s["best"] and len(s["axes"]) == 1]
    axes = dict.fromkeys(s["axes"][0] for s in searches)
    return [tables.search_table([s for s in searches if s["axes"] == [a]], a) for a in axes]


# --- output --------------------------------------------------------------------------------------


def show(results: Results, names: Sequence[str], folder: Path, *, as_json: bool) -> None:
    """Tables on the screen, figures as files in `figures/`."""
    from rich.console import Console

    from s2kd.core.console import print_json

    names = names or [*TABLES, "searches"]
    all_experiments = experiments(results)
    listed = {name: contents(name, all_experiments, results, folder) for name in names}
    if not any(listed.values()):
        raise S2KDError(
            f"{folder}: holds no results for {', '.join(names)} yet; train them with --data FOLDER"
        )
    if as_json:
        print_json({n: [vars(t) for t in ts if isinstance(t, Table)] for n, ts in listed.items()})
        return
    console = Console(width=max(Console().width, 160), markup=False)
    for entry in (entry for entries in listed.values() for entry in entries):
        if isinstance(entry, Table):
            console.print(entry)
        else:
            console.print(save_figure(Path("figures"), entry), highlight=False)


def write(page: Path, results: Results, folder: Path) -> Path:
    """Everything as a Markdown page, its figures in `figures/` beside it."""
    import jinja2

    listed = experiments(results)
    if not listed:
        raise S2KDError(f"{folder}: holds no results of students yet")
    by_kind = {
        SOURCES.get(experiment.data, (experiment.data, False))[0]: experiment
        for experiment in reversed(listed)
    }
    usual = [experiment for experiment in listed if experiment in by_kind.values()]
    variants = [
        f(results, experiment)
        for f in (longer_training, full_grid_teacher)
        for experiment in listed
    ]
    further = [
        experiment for experiment in (*listed, *variants) if experiment and experiment not in usual
    ]
    drawn: list[NamedFigure] = [
        NamedFigure(
            name="gap",
            figure=figures.gap_shares({experiment.name: experiment for experiment in listed}),
        )
    ]
    for name in ("fig3", "fig4", "fig5", "extremes"):
        drawn += [f for f in contents(name, listed, results, folder) if isinstance(f, NamedFigure)]
    for figure in drawn:
        save_figure(page.parent / "figures", figure)
    parts = {
        "short": tables.short_table([*listed, *(v for v in further if v.note.startswith("teach"))]),
        "gains": further and tables.gains_table(further, title="Further data, splits and variants"),
        "ablation": tables.ablation_table(listed, title="Parts of the loss"),
        "narrators": tables.narrator_table(results, listed, title="What the teacher reads"),
        "events": tables.event_table(listed, title="Rare events"),
        "spectra": tables.spectra_table(listed, title="Spectra"),
        "rollouts": tables.rollout_table(listed, title="Roll-outs"),
    }
    text = {name: table.markdown() if table else "" for name, table in parts.items()}
    main = [
        tables.main_table(experiment, title=experiment.title, beside=MAIN_TABLES.get(kind, ""))
        for kind, experiment in sorted(by_kind.items(), key=lambda entry: usual.index(entry[1]))
    ]
    source = (files("s2kd.paper") / "results.md.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        source
    )
    filled = template.render(
        **text,
        **summary_numbers(listed, results),
        main=[table.markdown() for table in main],
        searches=[table.markdown() for table in search_contents(folder)],
        drawn=[figure.name for figure in drawn],
        maps=[f.name.removeprefix("maps-") for f in drawn if f.name.startswith("maps-")],
    )
    write_text(page, filled.rstrip() + "\n")
    return page


def summary_numbers(listed: Sequence[Experiment], results: Results) -> dict[str, Mapping]:
    """The numbers in the template's summary."""
    first = listed[0]
    students = first.table[first.table["role"] == "student"]
    row = students.loc[students["mse"].idxmin()]
    persistence = first.table.set_index("method")["mse"].get("persistence")
    unet = students[students["backbone"] == first.backbone].set_index("method")["gain_percent"]
    changes = [
        (difference(experiment.student("s2kd"), experiment.student(BASELINE)),
         experiment.student_row("s2kd"))
        for experiment in listed
        if experiment.student("s2kd").sizes["model"]
    ]  # fmt: skip
    effects = [
        pair[1]
        for experiment in listed
        for pair in tables.control_effects(results, experiment).values()
        if pair[1] and pair[1].seeds >= FEWEST_SEEDS
    ]  # fmt: skip
    return {
        "best": {
            "place": first.name,
            "student": label(row["backbone"]),
            "method": row["label"],
            "parameters": f"{row['parameters']:,}",
            "latency": number(row["latency_ms"], ".1f"),
            "machine": first.machine,
            "of_persistence": number(persistence and 100 * row["mse"] / persistence, ".0f"),
            "share": number(row["gap_closed_percent"], ".0f"),
        },
        "blends": {n: number(unet.get(n), "+.1f") for n in ("output_plus", "s2kd_plus")},
        "s2kd": {
            "count": len(changes),
            "better": sum(verdict(change) == "better" for change, _ in changes),
            "survives": sum(
                verdict(change) == "better" and not (row["p_value"] >= 0.05).any()
                for change, row in changes
            ),
        },
        "words": {
            "count": len(effects),
            "seeds": FEWEST_SEEDS,
            "worse": sum(verdict(effect) == "worse" for effect in effects),
            "survives": sum(verdict(e) == "worse" and e.survives for e in effects),
        },
    }


def save_figure(folder: Path, named: NamedFigure) -> Path:
    """The figure as a PNG file; an unchanged figure is an unchanged file."""
    drawing, path = io.BytesIO(), folder / f"{named.name}.png"
    # without date and version inside
    named.figure.savefig(
        drawing, format="png", dpi=120, facecolor="white", metadata={"Software": ""}
    )
    write_whole(path, lambda new: new.write_bytes(drawing.getvalue()))
    return path
