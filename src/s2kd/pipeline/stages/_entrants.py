"""Everything of a run that is scored, and how it forecasts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s2kd.core.recipe import Method, Part
from s2kd.core.types import Batch, S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.rollout import Step, climatology_step, persistence_step
from s2kd.evaluation.scoring import climatology_forecast, latency, persistence
from s2kd.models.checkpoint import load_card, load_student, load_teacher
from s2kd.models.forecasters import FramesOnly, Student, Teacher
from s2kd.narration.forecast_words import ForecastWords
from s2kd.narration.text import encoders
from s2kd.pipeline.stages._distill import student_folder
from s2kd.pipeline.stages._run import Run
from s2kd.pipeline.stages._teach import teacher_folder
from s2kd.training.objectives import foresee

REFERENCES = ("persistence", "climatology")
TEACHER_METHODS = {"text": "teacher", "blind": "teacher-blind"}
"""What the results of a kind of teacher are called by."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One forecaster to be scored: `row` are the fields of its result that are known already."""

    name: str
    key: str
    row: dict[str, Any]
    load: Callable[[], Student | Teacher] | None = None


def entrants(run: Run) -> Iterator[Entrant]:
    yield from references()
    for seed in run.recipe.seeds:
        for kind in run.kinds:
            yield teacher_entrant(run, kind, seed)
        for method in run.recipe.methods:
            for part in run.recipe.students:
                yield student_entrant(run, part, method, seed)


def references() -> Iterator[Entrant]:
    for name in REFERENCES:
        row = {"backbone": name, "role": "reference", "method": name, "seed": None}
        yield Entrant(name=name, key=name, row=row)


def own_card(run: Run, folder: Path) -> dict[str, Any]:
    """The card of a model of this run; `S2KDError` where the data are not what it learned from."""
    card, now = load_card(folder), run.dataset.fingerprint
    if card.get("fingerprint", now) != now:
        raise S2KDError(
            f"{folder}: was trained on other data (fingerprint {card['fingerprint']}) than "
            f"{run.recipe.dataset.name!r} gives now ({now}); put the data back, or train it again "
            "with `s2kd run`"
        )
    return card


def teacher_entrant(run: Run, kind: str, seed: int) -> Entrant:
    folder = teacher_folder(run, kind, seed)
    card = own_card(run, folder)
    row = {
        "backbone": run.recipe.teacher.backbone.name,
        "role": "teacher",
        "method": TEACHER_METHODS[kind],
        "seed": seed,
        "narrator": card["narrator"],
        "parameters": card["parameters"],
        "validation": card["validation"],
    }
    return Entrant(
        name=f"teacher-{folder.name}",
        key=card["weights"],
        row=row,
        load=lambda: load_teacher(folder)[0],
    )


def student_entrant(run: Run, part: Part, method: Method, seed: int) -> Entrant:
    folder = student_folder(run, part, method, seed)
    card = own_card(run, folder)
    row = {
        "backbone": part.name,
        "role": "student",
        "method": method.name,
        "seed": seed,
        "narrator": run.recipe.narrator.name if method.teacher == "text" else "none",
        "parameters": card["parameters"],
        "validation": card["validation"],
    }
    return Entrant(
        name=folder.name, key=card["weights"], row=row, load=lambda: load_student(folder)[0]
    )


def predictor(
    run: Run, entrant: Entrant, split: str, windows: WindowDataset, climatology: Climatology
) -> tuple[Callable[[torch.Tensor, Batch], torch.Tensor], dict[str, Any] | None]:
    """What forecasts, and how long one window takes it."""
    if entrant.load is None:
        if entrant.name == "persistence":
            return persistence(windows.lead), None
        return climatology_forecast(climatology, windows), None
    model = entrant.load().to(run.fabric.device).to(memory_format=torch.channels_last)
    reads = isinstance(model, Teacher) and model.reads
    states = run.states(split) if reads else None
    one = windows.gather(torch.tensor([0]))
    tokens = states.tokens(one.index, one.past.device) if states is not None else None
    speed = latency(FramesOnly(model, tokens).eval(), one.past)
    return lambda past, window: foresee(model, past, window.index, states), speed


def stepper(run: Run, entrant: Entrant, windows: WindowDataset) -> tuple[Step, str | None]:
    """What forecasts block after block, and what a reader reads after the first of them."""
    if entrant.load is None:
        if entrant.name == "persistence":
            return persistence_step(windows.lead), None
        return climatology_step(run.climatology, windows, horizon=run.horizon), None
    model = entrant.load().to(run.fabric.device).to(memory_format=torch.channels_last)
    if not (isinstance(model, Teacher) and model.reads):
        return lambda past, window, block: foresee(model, past, window.index, None), None
    states, words = run.states(windows.split), _forecast_words(run, windows)

    def step(past: torch.Tensor, window: Batch, block: int) -> torch.Tensor:
        if block == 0:
            return foresee(model, past, window.index, states)
        return model(past, words.tokens(past, window.index, block * windows.lead)).future

    return step, words.kind


def _forecast_words(run: Run, windows: WindowDataset) -> ForecastWords:
    """The run's own rules where they are rules; another's words cannot be made of forecasts."""
    narrator, width = run.recipe.narrator, run.states(windows.split).width
    rules = narrator.name == "rules"
    rules |= narrator.name == "shuffled" and narrator.params.get("of", "rules") == "rules"
    if not rules:
        return ForecastWords(windows, run.known, width=width)
    encoder = encoders.build(run.recipe.text.name, **run.recipe.text.params)
    return ForecastWords(windows, run.known, width=width, narrator=run.narrator, encoder=encoder)
