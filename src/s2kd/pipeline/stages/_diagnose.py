"""Why a student gained, or did not: how near it comes to the teacher that it learned from."""

from dataclasses import asdict
from typing import Any

import torch

from s2kd.core.files import write_json
from s2kd.core.hardware import hardware, versions
from s2kd.core.recipe import Method
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.summary import BASELINE
from s2kd.models.forecasters import Student, Teacher
from s2kd.pipeline.stages._entrants import Entrant, student_entrant, teacher_entrant
from s2kd.pipeline.stages._run import Run
from s2kd.training.agreement import Agreement, agreement

SPLITS = ("train", "val")
"""What is looked at: never a test split, since what is found here changes a recipe."""


def diagnose(run: Run, *, most: int = 1000) -> list[dict[str, Any]]:
    """The agreement of every student with its own teacher, on training and validation windows.

    At most `most` windows of a split, evenly spaced. A row says `student`, `teacher` and `apart`
    (`agreement.Agreement`), and where the run has a student of the same backbone and seed that
    never had a teacher, how far that one is from the same teacher (`plain_apart`) and by how many
    percent of this the student is nearer (`nearer_percent`). Written to `diagnosis.json`; raises
    S2KDError where no method of the recipe learns from a teacher of the run.
    """
    if most < 1:
        raise S2KDError(f"--windows {most}: wants at least 1")
    methods = [method for method in run.recipe.methods if method.teacher in run.kinds]
    if not methods:
        raise S2KDError(
            f"{run.out}: no method of its recipe learns from a teacher of this run, so there is "
            "nothing that a student could agree with"
        )
    rows: list[dict[str, Any]] = []
    run.first_only(lambda: rows.extend(_diagnose(run, methods, most)))
    return rows


def _diagnose(run: Run, methods: list[Method], most: int) -> list[dict[str, Any]]:
    recipe, rows = run.recipe, []
    plain = next((method for method in recipe.methods if method.name == BASELINE), None)
    cases = [(seed, p, m) for seed in recipe.seeds for p in recipe.students for m in methods]
    for split in SPLITS:
        told = run.report(f"students beside their teachers on {split}")
        windows = run.windows(split, device=run.fabric.device)
        index = torch.arange(0, len(windows), -(-len(windows) // most))
        alone: dict[tuple[int, str, str], float] = {}
        for done, (seed, part, method) in enumerate(cases, 1):
            teacher = teacher_entrant(run, method.teacher, seed)
            found = _agreement(
                run, student_entrant(run, part, method, seed), teacher, windows, index
            )
            case = (seed, part.name, method.teacher)
            if plain is not None and case not in alone:
                without = student_entrant(run, part, plain, seed)
                alone[case] = _agreement(run, without, teacher, windows, index).apart
            rows.append(
                {
                    "backbone": part.name,
                    "method": method.name,
                    "taught_by": method.teacher,
                    "seed": seed,
                    "split": split,
                    "windows": len(index),
                    **asdict(found),
                    "plain_apart": alone.get(case),
                    "nearer_percent": _nearer(found.apart, alone.get(case)),
                }
            )
            told(done, len(cases), f"{part.name} {method.name}")
    about = {
        "recipe": recipe.digest,
        "settings": recipe.to_dict(),
        "fingerprint": run.dataset.fingerprint,
        "versions": versions(),
        "hardware": hardware(run.fabric.device),
    }
    write_json(run.out / "diagnosis.json", {**about, "rows": rows})
    return rows


def _nearer(apart: float, plain_apart: float | None) -> float | None:
    return 100 * (1 - apart / plain_apart) if plain_apart else None


def _agreement(
    run: Run, student: Entrant, teacher: Entrant, windows: WindowDataset, index: torch.Tensor
) -> Agreement:
    own, taught = (_loaded(run, entrant) for entrant in (student, teacher))
    reads = isinstance(taught, Teacher) and taught.reads
    states = run.states(windows.split) if reads else None
    return agreement(own, taught, windows, states, index=index)


def _loaded(run: Run, entrant: Entrant) -> Student | Teacher:
    if entrant.load is None:
        raise S2KDError(f"{entrant.name}: has no weights to load")
    return entrant.load().to(run.fabric.device).to(memory_format=torch.channels_last)
