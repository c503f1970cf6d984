"""Jobs: narrowed recipes that train in order of worth, until the time is up."""

import time

import pytest
import road
from msgspec import structs

from s2kd import pipeline
from s2kd.core.errors import S2KDError
from s2kd.pipeline.recipes import BASELINE, s2kd


def small(**changes):
    quick = structs.replace(road.QUICK, epochs=1)
    return structs.replace(
        road.tiny(),
        methods=(BASELINE, s2kd()),
        teacher_training=quick,
        student_training=quick,
        **changes,
    )


def queue(recipe, out, **context):
    """Run every job of the recipe; the summary, and the stages with work to do."""
    stages: dict[str, None] = {}

    def progress(stage):
        return lambda done, total, word="": stages.setdefault(stage)

    with pipeline.opened_folders({out: recipe}):
        summary = pipeline.run_jobs(
            pipeline.jobs_of(recipe, out), pipeline.JobContext(progress=progress, **context)
        )
    return summary, list(stages)


def test_jobs_come_seed_by_seed_and_method_by_method(tmp_path):
    jobs = pipeline.jobs_of(small(seeds=(42, 7)), tmp_path / "air")
    assert [job.name for job in jobs] == [
        f"air: unet {method} seed {seed}" for seed in (42, 7) for method in ("baseline", "s2kd")
    ]


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    """A folder that the queue has filled, one job after the other."""
    out = tmp_path_factory.mktemp("queue") / "run"
    summary, stages = queue(small(), out)
    assert summary == pipeline.JobSummary(finished=2, left=0)
    trainings = [stage for stage in stages if stage.startswith("train ")]
    assert trainings == [
        "train unet-baseline-seed42", "train text-seed42", "train unet-s2kd-seed42"
    ]  # fmt: skip
    return out


def test_the_queue_trains_what_run_trains_and_leaves_its_recipe(sequence, tmp_path):
    road.walk(small(), tmp_path / "run", until="distil")
    assert road.weights(sequence) == road.weights(tmp_path / "run")
    assert pipeline.load_recipe(sequence) == small()


def test_a_second_call_has_nothing_to_train(sequence):
    before = road.weights(sequence)
    summary, stages = queue(small(), sequence)
    assert (summary.left, stages) == (0, [])
    assert road.weights(sequence) == before


def test_a_teacher_of_another_folder_is_copied(sequence, tmp_path):
    (*_, job) = pipeline.jobs_of(small(), tmp_path / "run")
    with pipeline.opened_folders({job.folder: small()}):
        pipeline.run_job(job, pipeline.JobContext(), [sequence])
    name = "teachers/text-seed42/model.json"
    copied, original = (folder / name for folder in (job.folder, sequence))
    assert copied.read_bytes() == original.read_bytes(), "not even its versions and dates differ"


def test_when_the_time_is_up_the_next_call_goes_on(sequence, tmp_path, monkeypatch):
    """The clock jumps ahead soon, inside the first training."""
    begun, looks = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: begun + 3600 * (next(looks) > 3))
    summary, _ = queue(small(), tmp_path / "run", minutes=1.0)
    monkeypatch.undo()
    assert summary == pipeline.JobSummary(finished=0, left=2)
    assert not list((tmp_path / "run").glob("students/*/model.json"))
    summary, _ = queue(small(), tmp_path / "run")
    assert summary.left == 0
    assert road.weights(tmp_path / "run") == road.weights(sequence)


@pytest.mark.slow
def test_in_parallel_the_weights_are_the_same(sequence, tmp_path):
    summary, _ = queue(small(), tmp_path / "run", parallel=2)
    assert summary.left == 0
    assert road.weights(tmp_path / "run") == road.weights(sequence)


def test_jobs_share_no_device(tmp_path):
    context = pipeline.JobContext(parallel=2, machine=pipeline.Machine(devices=2))
    with pytest.raises(S2KDError, match="--jobs 2: each job has one device"):
        pipeline.run_jobs([], context)
