"""The stages of a run in their order."""

from typing import TYPE_CHECKING

from s2kd.core.errors import S2KDError

if TYPE_CHECKING:
    from s2kd.pipeline.run import Run

STAGES = ("narrate", "teach", "distil", "evaluate", "report")
"""In the order in which they run; `--until` names the last one."""


def stage_number(name: str) -> int:
    """The place of a stage in `STAGES`; S2KDError where there is none of that name."""
    if name not in STAGES:
        raise S2KDError(f"--until {name}: must be one of {', '.join(STAGES)}")
    return STAGES.index(name)


def run_all(run: "Run", *, until: str = STAGES[-1]) -> None:
    """Every stage from `narrate` to `until`; what is finished is not done again."""
    from s2kd.pipeline.distil import train_students
    from s2kd.pipeline.narratives import narrate
    from s2kd.pipeline.scores import evaluate, is_reported, report
    from s2kd.pipeline.targets import copy_stored
    from s2kd.pipeline.teach import train_teachers

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
