"""From data to files: the search of `distill`, and the stages of a run.

The stages are narrate, teach, distil, evaluate and report; nothing is done twice. `compare` runs
them all; `distill` (`main_job`) plans, searches students and methods (`search`), and scores the
best. Both leave one folder:

```
DIR/recipe.json                  the recipe, resolved
DIR/narratives.jsonl             one narrative per window
DIR/states/<split>.safetensors   token states
DIR/teachers/<kind>-seed<n>/     kind is `text` or `no_text` (the same teacher without text)
DIR/targets/<kind>-seed<n>/      the frozen teacher's outputs for every training window
DIR/targets/<kind>-seed<n>-<extra windows>/  those for extra windows, and their inputs
DIR/targets/capture/             inputs and answers of the recipe's captures
DIR/targets/stored/              those of forecasts in a file
DIR/students/<student>-<method>-seed<n>/
DIR/before/<model>-<n>/          what was trained before the data, settings or version changed
DIR/scores/<split>.nc            scores, models along an axis, and scores.json with the headline
DIR/diagnosis.json               fidelity of students to their teachers, by `s2kd diagnose`
DIR/search/, answer.json, distill.log  plan, trials and answer of `distill`
```
"""

from s2kd.core.errors import S2KDError
from s2kd.pipeline.checks import check_models, check_parts, compared_views
from s2kd.pipeline.diagnose import diagnose
from s2kd.pipeline.distil import (
    distill_student,
    student_folder,
    student_objective,
    train_students,
)
from s2kd.pipeline.evaluate import (
    REFERENCES,
    TEACHER_METHODS,
    evaluate,
    export,
    is_reported,
    read_scores,
    report,
    score_models,
)
from s2kd.pipeline.folder import Busy, load_recipe, locked, open_run
from s2kd.pipeline.label import label
from s2kd.pipeline.narrate import (
    limit_requests,
    narrate,
    narrate_shard,
    parse_shard,
    preview_run,
)
from s2kd.pipeline.queue import (
    Job,
    JobContext,
    JobSummary,
    OutOfTime,
    jobs_of,
    opened_folders,
    run_job,
    run_jobs,
)
from s2kd.pipeline.run import Machine, Run, silent
from s2kd.pipeline.targets import (
    copy_stored,
    make_extra,
    make_targets,
    store_teacher_outputs,
    supervision_of,
)
from s2kd.pipeline.teach import (
    copy_teacher,
    teacher_folder,
    teacher_inputs,
    train_teacher,
    train_teachers,
)

__all__ = [
    "REFERENCES",
    "STAGES",
    "TEACHER_METHODS",
    "Busy",
    "Job",
    "JobContext",
    "JobSummary",
    "Machine",
    "OutOfTime",
    "Run",
    "check_models",
    "check_parts",
    "compared_views",
    "copy_stored",
    "copy_teacher",
    "diagnose",
    "distill_student",
    "evaluate",
    "export",
    "jobs_of",
    "label",
    "limit_requests",
    "load_recipe",
    "locked",
    "make_extra",
    "make_targets",
    "narrate",
    "narrate_shard",
    "open_run",
    "opened_folders",
    "parse_shard",
    "preview_run",
    "read_scores",
    "report",
    "run_all",
    "run_job",
    "run_jobs",
    "score_models",
    "silent",
    "stage_number",
    "store_teacher_outputs",
    "student_folder",
    "student_objective",
    "supervision_of",
    "teacher_folder",
    "teacher_inputs",
    "train_students",
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
            train_students(run, seeds=(seed,))
    if "evaluate" in stages:
        evaluate(run)
    if "report" in stages:
        run.first_only(lambda: None if is_reported(run.out) else report(run))
