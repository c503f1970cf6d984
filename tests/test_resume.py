"""A run that is killed goes on where it was and ends with the same bits.

The runs are processes of their own, killed with SIGKILL. They are forked from a server that has
imported everything once, because importing takes longer than the run.
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import road
import torch
from msgspec import structs

from s2kd.pipeline.recipes import FITNET, s2kd

pytestmark = pytest.mark.slow

PATIENCE = 180  # seconds for a point of the road to be reached on a loaded machine
RECIPE = structs.replace(
    road.tiny(),
    methods=(structs.replace(FITNET, hint_epochs=1), s2kd()),
)


class Runs:
    """Starts runs in a folder, to their end or to a point at which they are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "run"
        self.recipe = road.saved_recipe(folder, RECIPE)

    def _start(self) -> multiprocessing.Process:
        arguments = ["run", str(self.recipe), "--out", str(self.out), "--save-every", "0"]
        return road.start([*arguments, "--accelerator", "cpu"], self.folder / "log.txt")

    def to_the_end(self) -> str:
        """What was said on the way."""
        process = self._start()
        process.join(PATIENCE)
        said = (self.folder / "log.txt").read_text()
        assert process.exitcode == 0, said
        return said

    def kill_when(self, reached: Callable[[Path], bool]) -> None:
        """Wait for a point of the road, then kill without warning."""
        process = self._start()
        end = time.monotonic() + PATIENCE
        try:
            while not reached(self.out):
                assert process.is_alive(), "it ended before it could be killed"
                assert time.monotonic() < end, "this point was never reached"
                time.sleep(0.001)
        finally:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("undisturbed"))
    runs.to_the_end()
    return runs.out


def narrating(out: Path) -> bool:
    path = out / "narratives.jsonl"
    return path.exists() and path.stat().st_size > 0


def teaching(out: Path) -> bool:
    """A state was saved inside the first epoch of the teacher that reads."""
    return (out / "teachers/text-seed42/checkpoint.pt").exists()


def storing(out: Path) -> bool:
    return (out / "targets/text-seed42/latent.npy").exists()


def distilling(out: Path) -> bool:
    return (out / "students/unet-s2kd-seed42/checkpoint.pt").exists()


def scoring(out: Path) -> bool:
    return (out / "scores/test.nc").exists()


def _is_of_the_middle(checkpoint: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)["state"]
    assert state["epoch"] < RECIPE.teacher_training.epochs
    assert state["step"] > 0, "the premise: a state inside an epoch"


@pytest.mark.parametrize(
    "points",
    [(narrating, teaching), (storing, distilling, scoring)],
    ids=lambda points: "+".join(point.__name__ for point in points),
)
def test_killed_and_started_again_it_ends_the_same(undisturbed, tmp_path, points):
    runs = Runs(tmp_path)
    for reached in points:
        runs.kill_when(reached)
        if reached is teaching:
            _is_of_the_middle(runs.out / "teachers/text-seed42/checkpoint.pt")
        if reached is distilling:
            _is_of_the_middle(runs.out / "students/unet-s2kd-seed42/checkpoint.pt")
    said = runs.to_the_end()
    assert road.weights(runs.out) == road.weights(undisturbed)
    assert _scores(runs.out) == _scores(undisturbed)
    assert _told(runs.out) == _told(undisturbed)
    for pattern in ("*/*/log.jsonl", "targets/*/*"):
        assert road.content(runs.out, pattern) == road.content(undisturbed, pattern)
    assert not [p for p in runs.out.rglob("*") if p.suffix in (".pt", ".part")]
    if scoring in points:
        assert "train " not in said, "a finished training was done again"


def _scores(out: Path) -> list[dict]:
    """All but what a clock says."""
    rows = json.loads((out / "scores.json").read_text())
    return [{k: v for k, v in row.items() if not k.startswith("latency")} for row in rows]


def _told(out: Path) -> list[str]:
    lines = (out / "narratives.jsonl").read_text().splitlines()
    assert len(set(lines)) == len(lines), "a narrative was written twice"
    return sorted(lines)
