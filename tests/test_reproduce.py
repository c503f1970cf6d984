"""Which trainings the paper's tables need, and that each is done once, wherever it was."""

import json
import shutil

import numpy as np
import pytest
import road
from msgspec.structs import replace

from s2kd import pipeline
from s2kd.core.files import write_whole
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.evaluation.results import read_scores, select, write_scores
from s2kd.paper.figures import detailed_region
from s2kd.paper.reproduce import read_samples, reproduce, to_do
from s2kd.paper.studies import (
    CONTROLS,
    FIRST,
    FULL_GRID,
    LONG_TRAINING,
    check_tables,
    training_jobs,
    variants_of,
)
from s2kd.pipeline.queue import JobContext

RESULTS = "taxi_sf-small-test.nc"


def variants(*, seeds=(42, 43), recipe=None, data="taxi_sf"):
    recipe = replace(recipe or road.tiny(), narrator=Part(name="rules"))
    return variants_of(recipe, data=data, preset="small", seeds=seeds)


def jobs(*, tables=("table4",), **changes):
    return training_jobs(variants(**changes), tables)


# --- the list ------------------------------------------------------------------------------------


def test_variants_differ_from_the_experiment_in_one_field():
    first, *others = variants()
    assert [variant.name for variant in others] == [*CONTROLS, LONG_TRAINING]
    for variant in others:
        one, two = first.recipe.to_dict(), variant.recipe.to_dict()
        differing = {key for key in one if one[key] != two[key]} - {"methods", "students"}
        control = variant.name in CONTROLS
        assert len(differing) == 1
        assert differing <= ({"narrator", "text"} if control else {"student_training"})
    epochs = first.recipe.student_training.epochs
    assert others[-1].recipe.student_training.epochs == 3 * epochs
    assert [v.name for v in variants(data="fds_pool")][-1] == FULL_GRID


def test_whole_tables_come_first():
    listed = jobs(tables=("table2", "table4", "fig4"))
    assert [job.level for job in listed] == sorted(job.level for job in listed)
    first = [job for job in listed if job.level == 1]
    assert [(job.method, job.seed) for job in first] == [
        (method, seed) for seed in (42, 43) for method in (*FIRST, "s2kd_plus")
    ]
    assert len({job.name for job in listed}) == len(listed)


def test_only_what_a_table_needs_is_trained():
    assert {job.method for job in jobs()} == {"baseline", "spectral", "semantic", "s2kd"}
    assert jobs(tables=("table1",)) == []  # of another kind of field
    fig4 = jobs(tables=("fig4",))
    assert {job.variant.name for job in fig4} == {"rules", *CONTROLS}
    with pytest.raises(S2KDError, match=r"no table or figure 'tabel1'"):
        check_tables(["tabel1"])


# --- the trainings -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Table 4 of one seed, on blobs."""
    folder = tmp_path_factory.mktemp("paper")
    runs, results = folder / "runs", folder / "results"
    summary = reproduce(jobs(seeds=(42,)), runs, results, JobContext(), maps=False)
    assert (summary.finished, summary.left) == (4, 0)
    return runs, results


def test_every_job_leaves_its_results_and_is_done_once(trained):
    runs, results = trained
    scores = read_scores(results / RESULTS)
    assert set(scores["method"].values) == {
        "baseline", "spectral", "semantic", "s2kd", "teacher", "persistence", "climatology",
    }  # fmt: skip
    assert set(scores["variant"].values) == {"rules"}
    assert set(scores["preset"].values) == {"small"}
    (metadata,) = runs.glob("*/students/unet-s2kd-seed42/model.json")
    validation = json.loads(metadata.read_text())["validation"]
    assert select(scores, method="s2kd")["validation"].item() == pytest.approx(validation)
    assert to_do(jobs(seeds=(42,)), runs, results, maps=False) == []
    assert len(to_do(jobs(), runs, results, maps=False)) == 4, "the other seed"


def test_a_lost_result_is_written_again_without_training(trained):
    runs, results = trained
    scores = read_scores(results / RESULTS)
    write_scores(
        results / RESULTS, scores.isel(model=scores["method"].values != "s2kd"), write_whole
    )
    weights = {p: p.stat().st_mtime_ns for p in runs.rglob("model.safetensors")}
    summary = reproduce(jobs(seeds=(42,)), runs, results, JobContext(), maps=False)
    assert summary.finished == 1
    again = select(read_scores(results / RESULTS), method="s2kd")
    assert np.array_equal(again["mse"], select(scores, method="s2kd")["mse"])
    assert weights == {p: p.stat().st_mtime_ns for p in runs.rglob("model.safetensors")}


def test_results_from_elsewhere_are_done(trained, tmp_path):
    assert to_do(jobs(seeds=(42,)), tmp_path / "none", trained[1], maps=False) == []


@pytest.mark.parametrize("change", ["recipe", "method", "data", "version", "teacher"])
def test_results_of_another_training_are_not_taken_for_this_one(trained, tmp_path, change):
    scores = read_scores(trained[1] / RESULTS)
    recipe = road.tiny()
    if change == "recipe":
        recipe = replace(recipe, student_training=replace(recipe.student_training, lr=0.5))
    elif change == "method":
        changed = [t.replace('"weight": 0.5', '"weight": 0.25') for t in scores["recipe"].values]
        scores = scores.assign_coords(recipe=("model", changed))
    elif change == "data":
        scores = scores.assign_coords(fingerprint=("model", ["other"] * scores.sizes["model"]))
    elif change == "version":
        scores = scores.assign_coords(versions=("model", ["{}"] * scores.sizes["model"]))
    else:
        scores = scores.isel(model=scores["method"].values != "teacher")
    write_scores(tmp_path / RESULTS, scores, write_whole)
    left = to_do(jobs(seeds=(42,), recipe=recipe), trained[0], tmp_path, maps=False)
    everything = {"baseline", "spectral", "semantic", "s2kd"}
    expected = {"method": {"spectral", "s2kd"}, "teacher": everything - {"baseline"}}
    assert {job.method for job in left} == expected.get(change, everything)


def test_a_missing_map_has_its_models_trained_again_and_results_stay(trained, tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    shutil.copytree(trained[1], results)
    listed = [job for job in jobs(seeds=(42,)) if job.method in ("baseline", "s2kd")]
    before = read_scores(results / RESULTS)
    assert [job.method for job in to_do(listed, runs, results, maps=True)] == ["baseline", "s2kd"]
    reproduce(listed, runs, results, JobContext(), maps=True)
    assert read_scores(results / RESULTS).identical(before)
    (sample,) = read_samples(results)
    truth = sample["field"].sel(name="truth").values
    assert sample["name"].values.tolist() == ["truth", "baseline", "s2kd"]
    assert tuple(sample.attrs["region"]) == detailed_region(truth)
    assert to_do(listed, runs, results, maps=True) == []


def test_without_time_nothing_is_trained(tmp_path):
    context = JobContext(deadline=0.0)
    summary = reproduce(jobs(seeds=(42,)), tmp_path / "runs", tmp_path, context, maps=False)
    assert (summary.finished, summary.left) == (0, 4)
    assert not list(tmp_path.rglob("model.json"))


def test_two_processes_do_not_share_a_folder(trained, tmp_path):
    runs, _ = trained
    with (
        pipeline.locked(runs / "taxi_sf-small-rules"),
        pytest.raises(S2KDError, match="another run is at work"),
    ):
        reproduce(jobs(seeds=(42,)), runs, tmp_path, JobContext(), maps=False)
