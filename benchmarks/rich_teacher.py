"""Extra windows by validation, where the teacher has seen more than the student's owner holds.

`python benchmarks/rich_teacher.py --data FOLDER --on ncep_air taxi_sf` trains what is not yet in
the folder and prints a table in Markdown. The teacher, the stand-in's own without text, learns
from all training windows; the owner holds episodes of them, also for statistics. The test split is
never read. The defaults of `s2kd distill` were chosen by these errors (docs/log.md).
"""

import argparse
from pathlib import Path
from statistics import mean

from msgspec.structs import replace

from s2kd import pipeline
from s2kd.core.methods import Method, Part, Term, method_named
from s2kd.core.recipe import Recipe, Stored
from s2kd.core.saved import load_metadata
from s2kd.evaluation.tables import Table
from s2kd.pipeline import recipes
from s2kd.pipeline.study import prepare_supervision
from s2kd.pipeline.teach import teacher_folder, train_teacher

EPISODES = {
    "ncep_air": (16, 133),
    "taxi_sf": (16, 80),
    "fds_pool": (42, 168),
    "fds_runs": (420, 1680),
    "fds_runs_p": (90, 360),
}
"""Of so many training frames the owner holds the first few; of fires one environment of four."""


EPOCHS = 80
"""Of a student, on the few windows of its owner."""


def combined(name: str, extra: Part | None, *, output: float = 1.0, latents: float = 1.0) -> Method:
    """Standard KD and S²-KD's terms, β = 0.5, on extra windows of the given teacher."""
    weights = {"output": output, "semantic": latents, "spectral": 0.5 * latents}
    terms = tuple(Term(loss=Part(name=loss), weight=w) for loss, w in weights.items() if w)
    return Method(name=name, teacher="given", terms=terms, extra=extra)


def rollouts(copies: int) -> Part:
    """Roll-outs that start from blends."""
    return Part(name="rollouts", params={"copies": copies, "start": "blends"})


CAPTURE, BLENDS = Part(name="capture"), Part(name="blends", params={"copies": 16})
METHODS = (
    method_named("baseline"),
    combined("s2kd", None, output=0.0),
    combined("capture", CAPTURE, latents=0.0),
    combined("capture_s2kd_0.1", CAPTURE, latents=0.1),
    combined("capture_s2kd_1", CAPTURE),
    combined("capture_2_s2kd_0.1", CAPTURE, output=2.0, latents=0.1),
    combined("rollouts", rollouts(24), latents=0.0),
    combined("rollouts_s2kd_1", rollouts(24)),
    combined("blends_2_s2kd_0.1", BLENDS, output=2.0, latents=0.1),
)
"""Each by the name that the table has."""


def base_recipe(name: str, data: str) -> Recipe:
    """The stand-in without narratives."""
    recipe = recipes.get(name, data=data)
    return replace(recipe, narrator=Part(name="none"), methods=(method_named("output"),))


def errors(name: str, data: str, seeds: list[int], methods: list[str], out: Path) -> None:
    """Train one stand-in's teacher and students, and print their validation errors."""
    recipe = base_recipe(name, data)
    run = pipeline.open_run(recipe, out / "teacher")
    with pipeline.locked(run.out):
        train_teacher(run, "no_text", recipe.seeds[0])
    teacher, capture = teacher_folder(run, "no_text", recipe.seeds[0]), out / "capture.zarr"
    pipeline.label(str(teacher), recipe, out=capture, splits=("train",), latents=True)
    owner = replace(
        recipe,
        split=replace(recipe.split, episodes=EPISODES[name]),
        stride=1,
        student_training=replace(recipe.student_training, epochs=EPOCHS, stop_patience=EPOCHS),
        methods=tuple(method for method in METHODS if not methods or method.name in methods),
        given=str(teacher),
        captures=(Stored(path=str(capture)),),
        seeds=tuple(seeds),
    )
    best = load_metadata(teacher)["validation"]
    rows: dict[str, list[float]] = {}
    owned = pipeline.open_run(owner, out / "owner")
    with pipeline.locked(owned.out):
        prepare_supervision(owned)
        for method in owner.methods:
            for seed in seeds:
                pipeline.distill_student(owned, owner.students[0], method, seed)
                folder = pipeline.student_folder(owned, owner.students[0], method, seed)
                rows.setdefault(method.name, []).append(load_metadata(folder)["validation"])
            print(name, method.name, rows[method.name], flush=True)
    windows = f"{len(owned.windows('train'))} windows of {len(run.windows('train'))}"
    plain = rows[METHODS[0].name]
    lines = tuple(
        (
            method,
            " ".join(f"{value:.4f}" for value in values),
            f"{mean(100 * (p - v) / (p - best) for p, v in zip(plain, values, strict=True)):.0f}",
        )
        for method, values in rows.items()
    )
    title = f"{name}: {windows}; the teacher's validation error is {best:.4f}"
    head = ("method", "validation error by seed", "gap closed, %")
    print(Table(title=title, head=head, lines=lines).markdown(), flush=True)


def main() -> None:
    """Train and print, one stand-in after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--on", nargs="+", choices=tuple(EPISODES), default=list(EPISODES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--methods", nargs="+", default=[], help="only these; all without")
    parser.add_argument("--out", type=Path, default=Path("runs/rich-teacher"))
    options = parser.parse_args()
    for name in options.on:
        errors(name, options.data, options.seeds, options.methods, options.out / name)


if __name__ == "__main__":
    main()
