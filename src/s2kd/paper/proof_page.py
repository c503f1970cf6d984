"""The page of results: tables and figures from result files."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2kd.core.files import write_text, write_whole
from s2kd.core.types import S2KDError
from s2kd.evaluation import figures
from s2kd.evaluation.results import Row, read_searches
from s2kd.evaluation.significance import FEWEST_SEEDS
from s2kd.paper import proof_figures, rare_tables, search_tables, tables
from s2kd.paper.experiment import Models, counted, experiment, longer, on_full_grid
from s2kd.paper.published import PUBLISHED
from s2kd.paper.reproduce import SOURCES, kind_of, samples
from s2kd.paper.studies import ABLATION
from s2kd.paper.tables import Table


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with its file's name and caption."""

    name: str
    figure: Any
    caption: str


Made = Table | Drawn


def experiments(rows: Sequence[Row]) -> list[Models]:
    """Every experiment on every test split: official data first, then stand-ins."""
    named = dict.fromkeys((r["data"], r["preset"], r["split"]) for r in rows)
    order = list(SOURCES)

    def place(one: tuple[str, str, str]) -> tuple:
        return (order.index(one[0]) if one[0] in order else len(order), one[1], one[2])

    found = []
    for data, preset, split in sorted(named, key=place):
        models = experiment(rows, data=data, preset=preset, split=split)
        if models.students:
            found.append(models)
    return found


def _main(table: str, kind: str) -> Callable[[list[Models], Sequence[Row], Path], Iterable[Made]]:
    def make(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made]:
        for models in every:
            if kind_of(models.data) == kind:
                name = f"Table {table[-1]}"
                title = f"{name}: {models.title}"
                yield tables.main_table(models, title=title, published=PUBLISHED[table])
                for other in (longer(rows, models), on_full_grid(rows, models)):
                    if other is not None:
                        yield tables.main_table(other, title=f"{name}: {other.title}")

    return make


def _ablations(
    kinds: Sequence[str],
) -> Callable[[list[Models], Sequence[Row], Path], Iterable[Made]]:
    def make(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made]:
        panels = {}
        for models in every:
            if kind_of(models.data) not in kinds:
                continue
            models = models.shared(ABLATION)
            if not models.of("student", "semantic"):
                continue
            title = f"Parts of the loss: {models.title}"
            published = PUBLISHED["table2"] if kind_of(models.data) == "traffic" else None
            yield tables.ablation_table(models, title=title, published=published)
            if models.split == "test":
                panels[models.title] = models
        if panels and "weather" in kinds:
            yield Drawn(
                name="ablation",
                figure=proof_figures.ablation_bars(panels),
                caption="Figure 3: prediction loss alone, with each half of the distillation loss, "
                f"and with both. {_seeds(panels.values())}",
            )

    return make


def _narrators(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made]:
    panels = {}
    for models in every:
        if not models.of("student", "s2kd_no_text"):
            continue
        title = f"What the teacher reads: {models.title}"
        yield tables.narrator_table(rows, models, title=title)
        panels[_short(models)] = tables.narrator_points(rows, models)
    if panels:
        yield Drawn(
            name="narrators",
            figure=proof_figures.narrator_points(panels),
            caption="Figure 4: how much more the student errs than with the rule narrator's words, "
            "by what its teacher read (below 0: less), over the seeds that both have; 95 % "
            f"intervals (hollow: fewer than {FEWEST_SEEDS} seeds, so of test windows alone). "
            f"{_seeds(m for m in every if _short(m) in panels)}",
        )


def _maps(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made]:
    for where, sample in samples(results, rows).items():
        yield Drawn(
            name=f"maps-{sample['data']}",
            figure=proof_figures.region_maps(sample),
            caption=f"Figure 5: {where}, the middle test window at lead step {sample['lead']}, "
            f"seed {sample['seed']}. Below, the region in the dashed box, which is where the truth "
            "has most fine detail; neither window nor region was chosen by looking at a forecast.",
        )


def _seeds(every: Iterable[Models]) -> str:
    every = list(every)
    seeds = (f"{models.title}: {counted(models.seeds, 'seed')}." for models in every)
    machines = dict.fromkeys(models.machine for models in every)
    return f"{' '.join(seeds)} Trained on {', '.join(machines)}."


def _rare(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made | None]:
    panels, drawn = {}, []
    for models in every:
        yield rare_tables.extremes_table(models)
        yield rare_tables.lead_table(models)
        curves = rare_tables.hits_by_lead(models, ("teacher", "fitnet", "s2kd", "s2kd_plus"))
        if curves:
            panels[_short(models)] = curves
            drawn.append(models)
    if panels:
        yield Drawn(
            name="extremes",
            figure=proof_figures.hits_by_lead(panels),
            caption="Hits on values above the 95 % training quantile of their own cell (CSI, first "
            "channel) by lead step, less the plain student's, with 95 % intervals (seeds paired). "
            f"{_seeds(drawn)}",
        )


def _spectra(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made | None]:
    yield from map(rare_tables.spectra_table, every)
    panels = {m.data: m for m in every if m.split == "test" and proof_figures.with_spectra(m)}
    if panels:
        yield Drawn(
            name="spectra",
            figure=proof_figures.spectra_at_the_end(panels),
            caption="Power of the forecasts at the last lead as a multiple of the truth's, by "
            "wavenumber: below 1 is blurred; what lies beyond 2 (where the truth has next to no "
            f"power) is cut off. {_seeds(panels.values())}",
        )


def _shares(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made]:
    panels = {_short(models): models for models in every}
    yield Drawn(
        name="gap",
        figure=proof_figures.gap_shares(panels),
        caption="Share of the gap between baseline (0) and reading teacher (100) that each method "
        "closes, U-Net student, 95 % intervals (hollow: without end); where the teacher is not "
        f"clearly better than the baseline there is no share. {_seeds(every)}",
    )
    yield Drawn(
        name="lead",
        figure=proof_figures.error_by_lead(panels),
        caption="Error by lead step as a multiple of the plain student's, U-Net student, over the "
        f"seeds that both have. {_seeds(every)}",
    )


def _short(models: Models) -> str:
    """The data, and on a line of its own what is unlike in a split beyond the usual one."""
    return f"{models.data}\n{models.beyond}" if models.beyond else models.data


def _searches(every: list[Models], rows: Sequence[Row], results: Path) -> Iterable[Made]:
    """What was searched on validation data: surfaces with their choice, then lines of one axis."""
    found = {name: one for name, one in read_searches(results).items() if one["best"] is not None}
    for name, one in found.items():
        if len(one["axes"]) > 1:
            yield Drawn(
                name=f"search-{name}",
                figure=figures.sweep(one),
                caption=f"Validation error of {one['preset']}, {tables.name_of(one['backbone'])}, "
                f"{tables.name_of(one['method'])}. Star: the choice. Ring: the recipe's values.",
            )
    yield from search_tables.by_axis(list(found.values()))


MAKERS: dict[str, Callable[[list[Models], Sequence[Row], Path], Iterable[Made]]] = {
    "table1": _main("table1", "weather"),
    "table2": _main("table2", "traffic"),
    "table3": _main("table3", "fire"),
    "table4": _ablations(("traffic",)),
    "fig3": _ablations(("weather", "fire")),
    "fig4": _narrators,
    "fig5": _maps,
    "extremes": _rare,
    "spectra": _spectra,
    "horizon": lambda every, rows, results: rare_tables.horizon_tables(every),
    "searches": _searches,
}

SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Gain over no distillation", ("table1", "table2", "table3")),
    ("Parts of the loss", ("table4", "fig3")),
    ("Search: weights of the loss and learning rate, on validation data", ("searches",)),
    ("Narratives and controls", ("fig4",)),
    ("Rare events", ("extremes",)),
    ("Spectra and maps", ("spectra", "fig5")),
    ("Roll-outs beyond the trained lead", ("horizon",)),
)


def made(name: str, every: list[Models], rows: Sequence[Row], results: Path) -> list[Made]:
    """The tables and figures of these experiments that go by this name."""
    return [one for one in MAKERS[name](every, rows, results) if one is not None]


def show(rows: Sequence[Row], wanted: Sequence[str], results: Path, *, as_json: bool) -> None:
    """Tables on the screen, figures as files beside where one stands."""
    from rich.console import Console

    from s2kd.core.console import print_json

    every = experiments(rows)
    found = {name: made(name, every, rows, results) for name in wanted or MAKERS}
    if not any(found.values()):
        raise S2KDError(
            f"{results}: holds no results for {', '.join(found)} yet; train them with --data FOLDER"
        )
    if as_json:
        print_json(
            {
                name: [vars(one) for one in some if isinstance(one, Table)]
                for name, some in found.items()
            }
        )
        return
    console = Console(width=max(Console().width, 160))
    for one in (one for some in found.values() for one in some):
        if isinstance(one, Table):
            console.print(one.rich())
        else:
            path = Path("figures") / f"{one.name}.png"
            _draw(path, one)
            console.print(f"{one.caption}\n  {path}", highlight=False)


def write(page: Path, rows: Sequence[Row], results: Path) -> Path:
    """Everything as a Markdown page, its figures in `figures/` beside it."""
    every = experiments(rows)
    if not every:
        raise S2KDError(f"{results}: holds no results of students yet")
    pieces = [
        "# Results",
        "Made by `s2kd reproduce --page docs/results.md` from the files in `results/`.",
        tables.short_table([*every, *_on_full_grid(every, rows)]).markdown(),
    ]
    overview = list(_shares(every, rows, results))
    pieces += [_placed(page, one) for one in overview]
    for heading, names in SECTIONS:
        section = [_placed(page, one) for n in names for one in made(n, every, rows, results)]
        if section:
            pieces += [f"## {heading}", *section]
    write_text(page, "\n\n".join(pieces) + "\n")
    return page


def _on_full_grid(every: Iterable[Models], rows: Sequence[Row]) -> list[Models]:
    variants = (on_full_grid(rows, models) for models in every)
    return [variant for variant in variants if variant is not None]


def _placed(page: Path, one: Made) -> str:
    if isinstance(one, Table):
        return one.markdown()
    path = page.parent / "figures" / f"{one.name}.png"
    _draw(path, one)
    return f"![{one.caption}](figures/{one.name}.png)\n\n*{one.caption}*"


def _draw(path: Path, one: Drawn) -> None:
    drawing = io.BytesIO()
    # no date and no version inside, so that an unchanged figure is an unchanged file
    one.figure.savefig(drawing, format="png", dpi=120, facecolor="white", metadata={"Software": ""})
    write_whole(path, lambda beside: beside.write_bytes(drawing.getvalue()))
