"""The page of a report: its sections, and their HTML."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from s2kd.evaluation import figures
from s2kd.evaluation.compare import label
from s2kd.evaluation.maps import ChannelMaps
from s2kd.evaluation.tables import Table, below


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training, or one to come: its model (`teacher`, or a student), method, seed and state.

    `points` are (epochs, validation error), hints left out; it ends after `most` epochs at the
    latest.
    """

    model: str
    method: str
    seed: int
    points: Sequence[tuple[int, float]]
    state: str
    most: int

    @property
    def best(self) -> float:
        """The lowest validation error so far; infinite before the first epoch."""
        return min((value for _, value in self.points), default=math.inf)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A PNG and what it shows."""

    png: bytes
    title: str

    @property
    def base64(self) -> str:
        """The PNG as text."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Numbers by row and column, each with its share of the largest of its column."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[tuple[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Maps of one window: `when` names the leads, `size` is in degrees or cells."""

    channels: Sequence[ChannelMaps]
    when: Sequence[tuple[str, str]]
    size: tuple[float, float]
    coast: str


@dataclass(kw_only=True)
class Section:
    """A heading and a note, then what there is of maps, figures, heat maps and tables."""

    heading: str
    note: str = ""
    narrative: str = ""
    maps: Maps | None = None
    figures: list[Figure] = field(default_factory=list)
    heat_maps: list[HeatMap] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    folded: list[Table] = field(default_factory=list)


def figure_of(drawing: Any, title: str) -> Figure:
    """A Matplotlib figure for a page."""
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", dpi=170, facecolor="white")
    return Figure(png=stream.getvalue(), title=title)


def render(**content: Any) -> str:
    """The page of a `title`, with `facts`, `sections` and the other names of its template."""
    from jinja2 import Environment

    template = files("s2kd.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["below"] = below
    return environment.from_string(template).render(**content)


def training_section(
    trainings: Iterable[Training],
    style: Mapping[str, tuple[str, str]],
    figure: Callable[[Any, str], Figure] = figure_of,
) -> Section | None:
    """Validation error by epoch, a figure per model, all on one y axis; None without any epoch.

    `figure` makes one of a Matplotlib figure and its title.
    """
    by_model: dict[str, list[Training]] = {}
    for training in trainings:
        if training.points:
            by_model.setdefault(label(training.model), []).append(training)
    values = [value for group in by_model.values() for t in group for _, value in t.points]
    if not values:
        return None
    note = "Validation error by epoch, one line per seed; a dot marks the lowest."
    section = Section(heading="Training", note=note)
    for title, group in by_model.items():
        runs = [(training.method, training.points) for training in group]
        limits = (0.93 * min(values), 1.07 * max(values))
        drawing = figures.training_curves(runs, title=title, style=style, limits=limits)
        section.figures.append(figure(drawing, title))
    return section
