"""Stage 3: every forecaster of a run on the test splits, once."""

from pathlib import Path
from typing import Any

import s2kd
from s2kd.core.files import digest, read_json, write_json
from s2kd.core.recipe import Method, Part
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.rollout import roll_out
from s2kd.evaluation.scoring import SCORES_VERSION, result_row, score
from s2kd.pipeline.stages._entrants import (
    Entrant,
    entrants,
    predictor,
    references,
    stepper,
    student_entrant,
    teacher_entrant,
)
from s2kd.pipeline.stages._run import Run


def evaluate(run: Run, *, horizon: int = 0) -> list[dict[str, Any]]:
    """Score persistence, climatology, every teacher and every student on the test splits.

    With a `horizon` of 2 or more every row also has `long_horizon`: roll-outs to so many times
    the lead (`rollout.roll_out`).
    """
    if horizon < 0 or horizon == 1:
        raise S2KDError(f"--horizon {horizon}: wants at least 2 lead times, or 0 for no roll-out")
    run.horizon = horizon or run.horizon
    rows: list[dict[str, Any]] = []
    run.first_only(lambda: rows.extend(_evaluate(run)))
    return rows


def _evaluate(run: Run) -> list[dict[str, Any]]:
    rows = []
    for split in run.test_splits:
        windows = run.windows(split, device=run.fabric.device)
        for entrant in entrants(run):
            rows.append(_score_one(run, entrant, split, windows, run.climatology))
    path = run.out / "scores.json"
    if not path.exists() or read_json(path) != rows:
        write_json(path, rows)
    return rows


def score_references(run: Run) -> list[dict[str, Any]]:
    """Results of persistence and climatology on every test split."""
    return [row for entrant in references() for row in _score_all(run, entrant)]


def score_teacher(run: Run, kind: str, seed: int) -> list[dict[str, Any]]:
    """Results of one teacher on every test split."""
    return _score_all(run, teacher_entrant(run, kind, seed))


def score_student(run: Run, part: Part, method: Method, seed: int) -> list[dict[str, Any]]:
    """Results of one student on every test split."""
    return _score_all(run, student_entrant(run, part, method, seed))


def _score_all(run: Run, entrant: "Entrant") -> list[dict[str, Any]]:
    return [
        _score_one(
            run, entrant, split, run.windows(split, device=run.fabric.device), run.climatology
        )
        for split in run.test_splits
    ]


def _score_one(
    run: Run, entrant: Entrant, split: str, windows: WindowDataset, climatology: Climatology
) -> dict[str, Any]:
    """One result, from its file where that is of these weights and windows."""
    path = run.out / "scores" / split / f"{entrant.name}.json"
    version = f"{s2kd.__version__} scores {SCORES_VERSION}"
    key = digest([entrant.key, run.dataset.fingerprint, windows.starts.tolist(), version])
    if path.exists():
        row = read_json(path)
        if row.get("key") == key:
            # of the same weights, perhaps by a recipe that has changed elsewhere since
            row |= {"preset": run.recipe.name, "recipe": run.recipe.digest}
            row |= {"validation": entrant.row.get("validation"), **_words(run, entrant)}
            row["settings"] = run.recipe.to_dict()
            return _with_long_horizon(run, entrant, windows, path, row)
    told = run.report(f"score {entrant.name} on {split}")
    predict, speed = predictor(run, entrant, split, windows, climatology)
    scores = score(
        predict,
        windows,
        statistics=run.known,
        climatology=climatology,
        cell_events=run.cell_events,
        progress=lambda done, total: told(done, total, ""),
    )
    row = result_row(
        scores=scores,
        data=run.recipe.dataset.name,
        preset=run.recipe.name,
        split=split,
        latency=speed,
        fingerprint=run.dataset.fingerprint,
        recipe=run.recipe.digest,
        device=run.fabric.device,
        **entrant.row,
    )
    row |= {"key": key, "settings": run.recipe.to_dict(), **_words(run, entrant)}
    write_json(path, row)
    return _with_long_horizon(run, entrant, windows, path, row)


def _words(run: Run, entrant: Entrant) -> dict[str, Any]:
    """Of whose words took part: do they know the future, and which words exactly they are."""
    if entrant.row["role"] == "reference" or entrant.row["narrator"] == "none":
        return {}
    narrator = run.narrator
    return {"reads_future": narrator.reads_future, "narrator_version": narrator.version}


def _with_long_horizon(
    run: Run, entrant: Entrant, windows: WindowDataset, path: Path, row: dict[str, Any]
) -> dict[str, Any]:
    """The row with its roll-out, where one is asked for and it has none of that length."""
    if not run.horizon or row.get("long_horizon", {}).get("horizon") == run.horizon:
        return row
    told = run.report(f"roll out {entrant.name} on {windows.split}")
    step, words = stepper(run, entrant, windows)
    found = roll_out(
        step,
        windows,
        horizon=run.horizon,
        statistics=run.known,
        climatology=run.climatology,
        progress=lambda done, total: told(done, total, ""),
    )
    row = {**row, "long_horizon": {**found, "words": words}}
    write_json(path, row)
    return row


def read_scores(out: Path) -> list[dict[str, Any]]:
    """What `evaluate` found."""
    path = out / "scores.json"
    if not path.exists():
        raise S2KDError(f"{out}: has no scores.json yet; run `s2kd evaluate` first")
    return read_json(path)
