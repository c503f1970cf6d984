"""Whether a recipe's models can be built at all, asked before anything that takes long."""

import torch

from s2kd.core.recipe import Method
from s2kd.core.types import S2KDError
from s2kd.models.checkpoint import build_student, build_teacher
from s2kd.pipeline.stages._run import Run
from s2kd.pipeline.stages._training import shape
from s2kd.training.losses import losses


def check_models(run: Run) -> None:
    """Build every model once, on this grid, ask every loss once, and let them go.

    What no model can be built with would else come to light when the first student is due: after
    every window is told and a teacher is trained. Raises S2KDError, with the part's own words.
    """
    recipe, grid = run.recipe, run.dataset.grid
    part_of_grid = min(grid.height, 32), min(grid.width, 32)
    views = {"forecast": torch.zeros(4, recipe.lead, len(grid.channels), *part_of_grid)}
    with torch.random.fork_rng(devices=[]):
        for part in recipe.students:
            build_student(part, **shape(run))
        for kind in run.kinds:
            teacher = build_teacher(
                recipe.teacher, **shape(run), text_width=1, reads=kind == "text"
            )
            views["latent"] = torch.zeros(4, teacher.latent_width, *teacher.latent_grid)
            views["unprojected"] = views["latent"]
    for method in recipe.methods:
        check_relations(run, method)
        for loss in (term.loss for term in method.terms):
            difference, view = losses.build(loss.name, **loss.params), losses.compares(loss.name)
            if view in views:
                difference(views[view], views[view])


def check_relations(run: Run, method: Method) -> None:
    """Refuse batches in which there are no three examples to compare."""
    share = run.recipe.student_training.batch_size // run.fabric.world_size
    if "relational" in {term.loss.name for term in method.terms} and share < 3:
        raise S2KDError(
            f"method {method.name!r} compares the examples of a batch with one another and wants "
            f"at least 3 a process, not {share}; raise student_training.batch_size"
        )
