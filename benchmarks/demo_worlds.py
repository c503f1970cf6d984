"""The demo's students on several worlds of each kind: validation errors and, if asked, test errors.

`python benchmarks/demo_worlds.py --world plume --test` trains what is not yet in the folder and
prints a table in Markdown. Settings are chosen without `--test`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from s2kd import pipeline
from s2kd.core.recipe import Recipe
from s2kd.core.saved import load_metadata
from s2kd.evaluation.results import select
from s2kd.evaluation.tables import Table
from s2kd.pipeline import demo
from s2kd.pipeline.recipes import demo as recipes


def world_recipe(world: str, seed: int, settings: Sequence[str], out: Path) -> Recipe:
    """The demo's recipe on the world of this seed."""
    recipe = recipes.taught(world, out)
    return recipe.with_settings([f"dataset.params.seed={seed}", *settings])


def errors(recipe: Recipe, out: Path, *, test: bool) -> dict[str, float]:
    """Normalised MSE by student; with `test` on the test split, with references and teacher."""
    with pipeline.locked(out):
        run = pipeline.open_run(recipe, out)
        demo.make_capture(run)
        pipeline.narrate(run)
        pipeline.train_students(run)
        if not test:
            part, seed = recipe.students[0], recipe.seeds[0]
            folders = {m.name: pipeline.student_folder(run, part, m, seed) for m in recipe.methods}
            return {name: load_metadata(path)["validation"] for name, path in folders.items()}
        scores = pipeline.evaluate(run)["test"]
    teacher = float(select(scores, role="teacher")["mse"].item())
    names = ["persistence", *(method.name for method in recipe.methods)]
    by_name = {name: float(select(scores, method=name)["mse"].item()) for name in names}
    return {**by_name, "heavy forecaster": teacher}


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="atmosphere", choices=tuple(recipes.RECORD))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=Path("runs/demo-worlds"))
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--test", action="store_true", help="read the test split")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    for seed in options.seeds:
        out = options.out / f"{options.world}-{seed}"
        recipe = world_recipe(options.world, seed, options.settings, out)
        rows[str(seed)] = errors(recipe, out, test=options.test)
        print(seed, rows[str(seed)], flush=True)
    names = tuple(next(iter(rows.values())))
    rows["mean"] = {n: sum(row[n] for row in rows.values()) / len(rows) for n in names}
    print(
        Table(
            title=f"{options.world}, MSE on {'test' if options.test else 'validation'}",
            head=("world", *names),
            lines=tuple((seed, *(f"{row[n]:.3g}" for n in names)) for seed, row in rows.items()),
        ).markdown()
    )


if __name__ == "__main__":
    main()
