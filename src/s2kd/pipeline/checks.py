"""Whether a recipe can work: its parts, its stored forecasts, its models."""

from typing import TYPE_CHECKING

from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Method, Part, Recipe
from s2kd.core.registry import Registry
from s2kd.data import check_part
from s2kd.data.readers.files import files_of
from s2kd.models.registry import backbones
from s2kd.narration.registries import encoders, narrators
from s2kd.training.label_files import holds_latents
from s2kd.training.registries import extra_windows, losses, shares_of

if TYPE_CHECKING:
    from s2kd.pipeline.run import Run


def check_settings(recipe: Recipe) -> None:
    """Refuse an unknown part, or a setting that a part does not have."""
    Recipe.from_dict(recipe.to_dict())  # a recipe built in Python has unchecked fields
    pairs: list[tuple[Registry, Part]] = [
        (narrators, recipe.narrator),
        (encoders, recipe.text),
        (backbones, recipe.teacher.backbone),
        *[(backbones, student) for student in recipe.students],
        *[(losses, term.loss) for method in recipe.methods for term in method.terms],
    ]
    pairs += [(extra_windows, part) for method in recipe.methods for part in parts_of(method)]
    check_part(recipe.dataset)
    for registry, part in pairs:
        registry.check(part.name, part.params)


def check_parts(recipe: Recipe) -> None:
    """Refuse a recipe that cannot work, as far as that shows before any data is read."""
    check_settings(recipe)
    for method in recipe.methods:
        _check_teacher(recipe, method)
        if method.extra is not None:
            _check_extra(recipe, method)
    _check_stored(recipe)


def parts_of(method: Method | Part) -> list[Part]:
    """The kinds of extra windows of a method, those of a mixture one by one."""
    part = method.extra if isinstance(method, Method) else method
    if part is None:
        return []
    if part.name != "mixture":
        return [part]
    return [Part(name=share.name, params=share.params) for share in shares_of(part.params)]


def _check_teacher(recipe: Recipe, method: Method) -> None:
    if method.teacher == "given" and not recipe.given:
        raise S2KDError(
            f"method {method.name!r} learns from a teacher of your own: name it with --set "
            "given=MODULE:CALLABLE, an ONNX file or the folder of a model"
        )
    if method.teacher == "given" and "feature_pyramid" in compared_views(method):
        raise S2KDError(
            f"method {method.name!r} compares feature pyramids, which a given teacher does not show"
        )


def _check_extra(recipe: Recipe, method: Method) -> None:
    """Extra windows need truth, a teacher that can be asked, or answers of their own."""
    label = f"method {method.name!r}: extra windows {method.extra.name!r}"
    kinds = [extra_windows.get(part.name) for part in parts_of(method)]
    if not method.terms and (method.extra.name == "mixture" or not kinds[0].has_truth):
        raise S2KDError(f"{label} have no truth, so the method needs losses and their answers")
    unanswered = [
        part.name for part, kind in zip(parts_of(method), kinds, strict=True) if kind.asks
    ]
    if method.terms and unanswered and method.teacher in ("none", "stored"):
        raise S2KDError(
            f"{label} need a teacher that answers new windows; teacher {method.teacher!r} does "
            "not: set it to text, no_text or given"
        )
    if "captures" in {field for kind in kinds for field in kind.reads} and not recipe.captures:
        raise S2KDError(
            f"{label} are those of label stores: name them with --set "
            """'captures=[{"path": "LABELS.zarr"}]'"""
        )
    stored = method.extra.name == "mixture" or any(kind.has_answers for kind in kinds)
    if stored and "feature_pyramid" in compared_views(method):
        raise S2KDError(f"{label} have no feature pyramids, which a loss compares")


def check_captures(run: "Run") -> None:
    """Refuse label stores that do not fit the data, or lack the latents that a method compares."""
    for method in run.recipe.methods:
        reads = {field for part in parts_of(method) for field in extra_windows.get(part.name).reads}
        compares = compared_views(method) & {"latent", "unprojected"}
        for labels in run.captures if "captures" in reads else ():
            if compares and method.teacher == "none" and labels.latent_width is None:
                raise S2KDError(
                    f"method {method.name!r} compares latents, which {labels.path} does not hold; "
                    "label with latents, or choose output_capture"
                )


def compared_views(method: Method) -> set[str]:
    """What this method's losses compare: latent, forecast, unprojected or feature_pyramid."""
    return {losses.compares(term.loss.name) for term in method.terms}


def _check_stored(recipe: Recipe) -> None:
    """Stored forecasts and methods that learn from them go together, and the file exists."""
    methods = [method for method in recipe.methods if method.teacher == "stored"]
    if recipe.stored.path and not methods:
        raise S2KDError(
            "stored.path is set, but no method learns from stored forecasts; add one, as in "
            '--set \'methods=["baseline","output_stored"]\''
        )
    for method in methods:
        if not recipe.stored.path:
            raise S2KDError(
                f"method {method.name!r} learns from stored forecasts: say where they are with "
                "--set stored.path=FILE"
            )
        views = compared_views(method)
        if "feature_pyramid" in views:
            raise S2KDError(
                f"method {method.name!r} compares feature pyramids, which stored "
                "forecasts do not hold"
            )
        if views != {"forecast"} and not holds_latents(recipe.stored):
            raise S2KDError(
                f"method {method.name!r} compares latents, and {recipe.stored.path} names none; "
                "label again with --latents, or name the variable of another file that holds the "
                "teacher's features with --set stored.latent=NAME"
            )
    if methods:
        files_of(recipe.stored.path)


def check_models(run: "Run") -> None:
    """Build every model once on this grid and evaluate every loss once.

    Otherwise a setting that no model can be built with would come to light only after hours of
    narration and teacher training.
    """
    import torch

    from s2kd.models.checkpoint import build_student, build_teacher

    check_captures(run)
    recipe, grid = run.recipe, run.dataset.grid
    cropped = min(grid.height, 32), min(grid.width, 32)
    views = {"forecast": torch.zeros(4, recipe.lead, len(grid.channels), *cropped)}
    with torch.random.fork_rng(devices=[]):
        for part in recipe.students:
            build_student(part, run.setting)
        for kind in run.teacher_kinds:
            teacher = build_teacher(recipe.teacher, run.setting, text_width=1, reads=kind == "text")
            views["latent"] = torch.zeros(4, teacher.latent_width, *teacher.latent_grid)
            views["unprojected"] = views["latent"]
    for method in recipe.methods:
        check_batch(run, method)
        for loss in (term.loss for term in method.terms):
            difference, view = losses.build(loss.name, **loss.params), losses.compares(loss.name)
            if view in views:
                difference(views[view], views[view])


def check_batch(run: "Run", method: Method) -> None:
    """Refuse batches of fewer than three examples per process for relational losses."""
    share = run.recipe.student_training.batch_size // run.fabric.world_size
    if "relational" in {term.loss.name for term in method.terms} and share < 3:
        raise S2KDError(
            f"method {method.name!r} compares the examples of a batch with one another and wants "
            f"at least 3 a process, not {share}; raise student_training.batch_size"
        )
