"""Student-teacher fidelity: how near each student's forecasts come to its teacher's."""

from dataclasses import asdict
from typing import Any

import torch

from s2kd.core.errors import S2KDError
from s2kd.core.files import write_json
from s2kd.core.hardware import hardware, versions
from s2kd.core.recipe import Method
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.compare import BASELINE
from s2kd.pipeline.run import Run
from s2kd.pipeline.scores import (
    EvaluatedModel,
    evaluated_student,
    evaluated_teacher,
    on_device,
    takes_text,
)
from s2kd.training.agreement import Agreement, agreement

SPLITS = ("train", "val")
"""Never a test split, since what is seen here changes a recipe."""


def diagnose(run: Run, *, most: int = 1000) -> list[dict[str, Any]]:
    """Fidelity of every student to its own teacher, on training and validation windows.

    At most `most` windows per split, evenly spaced. A row holds the mean squared errors of
    `Agreement`, and where the run has a student of the same backbone and seed without a teacher,
    the distance of that one to the same teacher (`baseline_teacher_mse`) and by how many percent
    the student is nearer (`fidelity_gain_percent`). Written to `diagnosis.json`; raises S2KDError
    where no method of the recipe learns from a teacher of the run.
    """
    if most < 1:
        raise S2KDError(f"--windows {most}: wants at least 1")
    methods = [method for method in run.recipe.methods if method.teacher in run.teacher_kinds]
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
    baseline = next((method for method in recipe.methods if method.name == BASELINE), None)
    cases = [(seed, p, m) for seed in recipe.seeds for p in recipe.students for m in methods]
    for split in SPLITS:
        progress = run.progress(f"fidelity of students on {split}")
        windows = run.windows(split, device=run.fabric.device)
        index = torch.arange(0, len(windows), -(-len(windows) // most))
        baseline_mse: dict[tuple[int, str, str], float] = {}
        for done, (seed, part, method) in enumerate(cases, 1):
            teacher = evaluated_teacher(run, method.teacher, seed)
            student = evaluated_student(run, part, method, seed)
            errors = _agreement(run, student, teacher, windows, index)
            case = (seed, part.name, method.teacher)
            if baseline is not None and case not in baseline_mse:
                untaught = evaluated_student(run, part, baseline, seed)
                fidelity = _agreement(run, untaught, teacher, windows, index)
                baseline_mse[case] = fidelity.student_teacher_mse
            reference = baseline_mse.get(case)
            rows.append(
                {
                    "backbone": part.name,
                    "method": method.name,
                    "teacher": method.teacher,
                    "seed": seed,
                    "split": split,
                    "windows": len(index),
                    **asdict(errors),
                    "baseline_teacher_mse": reference,
                    "fidelity_gain_percent": (
                        100 * (1 - errors.student_teacher_mse / reference) if reference else None
                    ),
                }
            )
            progress(done, len(cases), f"{part.name} {method.name}")
    header = {
        "recipe": recipe.digest,
        "settings": recipe.to_dict(),
        "fingerprint": run.dataset.fingerprint,
        "versions": versions(),
        "hardware": hardware(run.fabric.device),
    }
    write_json(run.out / "diagnosis.json", {**header, "rows": rows})
    return rows


def _agreement(
    run: Run,
    student: EvaluatedModel,
    teacher: EvaluatedModel,
    windows: WindowDataset,
    index: torch.Tensor,
) -> Agreement:
    network = on_device(run, teacher)
    states = run.states(windows.split) if takes_text(network) else None
    return agreement(on_device(run, student), network, windows, states, index=index)
