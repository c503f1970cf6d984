"""Five seeds of one student: side by side in processes of one thread, and one after another.

    python benchmarks/bench_seeds.py [epochs]

What `compare`, `distill` and the proof do all day. Two processes here, wall time, the start of the
processes included; one after another means one process that trains with all cores, as torch does
unless told otherwise. Exits 1 where side by side is not 1.5 times as fast.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import save

SEEDS, WANTED_RATIO = 5, 1.5


def train(folder: str, seeds: list[int], epochs: int) -> None:
    """Train the students of these seeds in this process."""
    from s2kd import pipeline
    from s2kd.pipeline import recipes

    recipe = recipes.get("demo", world="atmosphere").with_settings(
        [f"seeds={seeds}", f"student_training.epochs={epochs}", "narrator.name=none"]
    )
    recipe = recipe.with_settings(['methods=["baseline"]', "captures=[]"])
    pipeline.train_students(pipeline.open_run(recipe, Path(folder)))


def seconds(jobs: list[list[int]], epochs: int, *, processes: int) -> float:
    """Wall time of these jobs, each a process with its list of seeds."""
    threads = {"OMP_NUM_THREADS": "1"} if processes > 1 else {}

    def run(job: tuple[int, list[int]]) -> None:
        words = [str(epochs), f"{folder}/{job[0]}", *map(str, job[1])]
        command = [sys.executable, __file__, "--train", *words]
        subprocess.run(command, check=True, env={**os.environ, **threads}, capture_output=True)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
        start = time.perf_counter()
        list(pool.map(run, enumerate(jobs)))
        return time.perf_counter() - start


def main(epochs: int = 40) -> int:
    """Measure, print, save."""
    cores = len(os.sched_getaffinity(0))
    seeds = list(range(SEEDS))
    together = seconds([[seed] for seed in seeds], epochs, processes=cores)
    one_by_one = seconds([seeds], epochs, processes=1)
    ratio = one_by_one / together
    result = {
        "what": f"{SEEDS} seeds of a student of 40 thousand parameters on {cores} cores",
        "peer": "processes of one thread; the other side is one after another on all cores",
        "limit": "the start of a process (torch), cores",
        "ratio": ratio,
        "target": f"at least {WANTED_RATIO:g}",
        "met": ratio >= WANTED_RATIO,
        "seconds": {"side by side": together, "one after another": one_by_one},
    }
    print(f"side by side {together:.1f} s, one after another {one_by_one:.1f} s")
    return save("bench_seeds", result, better="higher") or int(ratio < WANTED_RATIO)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[3], list(map(int, sys.argv[4:])), int(sys.argv[2]))
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
