"""The road: recipe in, files out. Every stage does what is not yet done, and nothing twice.

```
DIR/recipe.json                  the recipe, resolved
DIR/narratives.jsonl             one narrative a window
DIR/states/<split>.safetensors   token states
DIR/teachers/<kind>-seed<n>/     kind is `text` or `blind` (the same teacher without text)
DIR/targets/<kind>-seed<n>/      what the frozen teacher says of every training window
DIR/targets/stored/              what the forecasts in somebody's file say of them
DIR/students/<student>-<method>-seed<n>/
DIR/before/<model>-<n>/           what was trained before the data, settings or version changed
DIR/scores/<split>/<model>.json  one result a model, and scores.json with all of them
DIR/diagnosis.json               how near students come to their teachers, where it was asked for
```
"""

from s2kd.core.errors import S2KDError
from s2kd.pipeline.stages._diagnose import diagnose
from s2kd.pipeline.stages._distill import distill, distill_one, student_folder, student_objective
from s2kd.pipeline.stages._entrants import REFERENCES, TEACHER_METHODS
from s2kd.pipeline.stages._evaluate import (
    evaluate,
    read_scores,
    score_references,
    score_student,
    score_teacher,
)
from s2kd.pipeline.stages._label import blends_of, copy_stored, label, make_targets
from s2kd.pipeline.stages._narrate import narrate
from s2kd.pipeline.stages._open import Busy, check_parts, compared, load_recipe, locked, open_run
from s2kd.pipeline.stages._report import export, is_reported, report
from s2kd.pipeline.stages._run import Machine, Report, Run, silent
from s2kd.pipeline.stages._teach import (
    borrow_teacher,
    teacher_folder,
    teacher_key,
    train_teacher,
    train_teachers,
)

__all__ = [
    "REFERENCES",
    "STAGES",
    "TEACHER_METHODS",
    "Busy",
    "Machine",
    "Report",
    "Run",
    "blends_of",
    "borrow_teacher",
    "check_parts",
    "compared",
    "copy_stored",
    "diagnose",
    "distill",
    "distill_one",
    "evaluate",
    "export",
    "label",
    "load_recipe",
    "locked",
    "make_targets",
    "narrate",
    "open_run",
    "read_scores",
    "report",
    "run_all",
    "score_references",
    "score_student",
    "score_teacher",
    "silent",
    "stage_number",
    "student_folder",
    "student_objective",
    "teacher_folder",
    "teacher_key",
    "train_teacher",
    "train_teachers",
]


STAGES = ("narrate", "teach", "distil", "evaluate", "report")
"""In the order in which they run; `--until` names the last one."""


def stage_number(name: str) -> int:
    """The place of a stage in `STAGES`; S2KDError where there is none of that name."""
    if name not in STAGES:
        raise S2KDError(f"--until {name}: must be one of {', '.join(STAGES)}")
    return STAGES.index(name)


def run_all(run: Run, *, until: str = STAGES[-1]) -> None:
    """Every stage from `narrate` to `until`; what is finished is not done again."""
    stages = STAGES[: stage_number(until) + 1]
    if "distil" in stages and any(method.teacher == "stored" for method in run.recipe.methods):
        copy_stored(run)  # first, so that what does not fit is told before anything is trained
    narrate(run)
    for seed in run.recipe.seeds:  # whole seeds first: a run that is cut short is a table already
        if "teach" in stages:
            train_teachers(run, seeds=(seed,))
        if "distil" in stages:
            distill(run, seeds=(seed,))
    if "evaluate" in stages:
        evaluate(run)
    if "report" in stages:
        run.first_only(lambda: None if is_reported(run.out) else report(run))
