"""Tests of the main job: plan, search by successive halving, answer."""

import dataclasses
import json
import math
import subprocess
import time

import pytest
import road
from msgspec import structs

import s2kd
from s2kd import pipeline
from s2kd.core.errors import S2KDError
from s2kd.core.files import read_json
from s2kd.core.methods import method_named
from s2kd.core.recipe import Part
from s2kd.core.saved import load_metadata
from s2kd.evaluation.answer import Answer, summary
from s2kd.pipeline import main_job, search
from s2kd.pipeline import plan as planning
from s2kd.pipeline.candidates import (
    Budget,
    Design,
    MeasuredStudent,
    designs,
    measured,
    student_parts,
)
from s2kd.pipeline.options import MILLISECONDS, MINUTES, quantity
from s2kd.pipeline.search_methods import search_methods, with_unlabelled

FAST = road.tiny()
FAST = structs.replace(FAST, narrator=Part(name="none"))
SHORT = 6
"""Epochs of a candidate."""
OPTIONS = planning.SearchOptions(minutes=1.0, students=("unet",), sizes=("small",))


def student(name: str, *, step: float = 1.0, excess: str = "") -> MeasuredStudent:
    return MeasuredStudent(
        name=name,
        part=Part(name=name.partition("-")[0], params={"width": 4}),
        parameters=1000,
        bytes=4000,
        latency_ms=1.0,
        step_seconds=step,
        excess=excess,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished search, with the steps of every stage that it reported."""
    out = tmp_path_factory.mktemp("distill") / "run"
    stages = []

    def progress(stage):
        return lambda done, total, word="": stages.append(stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "MOST_EPOCHS", SHORT)
        answer = main_job.distill(FAST, out=out, options=OPTIONS, progress=progress)
    return out, answer, stages


# --- the parts of a plan -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("5ms", MILLISECONDS, 5.0),
        ("0.5 s", MILLISECONDS, 500.0),
        ("90s", MINUTES, 1.5),
        ("2h", MINUTES, 120.0),
        (3, MINUTES, 3.0),
    ],
)
def test_quantities_have_units(text, units, value):
    assert quantity("--x", text, units) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "0", "-5ms", "5 parsecs", "ms", "1e3", "nan"])
def test_other_quantities_are_refused_by_the_name_of_the_option(text):
    with pytest.raises(S2KDError, match="--time"):
        quantity("--time", text, MINUTES)


def test_a_budget_names_what_exceeds_it():
    budget = Budget(max_latency_ms=2.0, max_parameters=100)
    assert budget.excess(latency_ms=2.0, parameters=100) == ""
    assert budget.excess(latency_ms=2.5, parameters=100) == "2.50 ms"
    assert budget.excess(latency_ms=0.1, parameters=1101) == "1,101 parameters"
    assert Budget().excess(latency_ms=1e9, parameters=10**12) == ""


def test_students_over_the_budget_are_not_among_the_designs():
    methods = (method_named("s2kd"), method_named("baseline"))
    students = [student("unet-small"), student("unet-large", excess="9.00 ms")]
    assert [d.name for d in designs(students, methods)] == [
        "unet-small s2kd",
        "unet-small baseline",
    ]


def test_every_search_includes_the_student_without_a_teacher_and_learns_from_one_teacher():
    for kind in ("text", "no_text", "given", "stored", "none"):
        methods = search_methods(kind, captures=False, latents=kind != "given")
        assert "baseline" in {method.name for method in methods}
        assert {method.teacher for method in methods if method.terms} <= {kind}
    names = [m.name for m in search_methods("stored", captures=False, latents=False)]
    assert names == ["output_stored", "baseline"]


def test_unlabelled_frames_join_the_extra_windows_of_the_first_method_or_are_refused():
    first, baseline, *_ = search_methods("given", captures=False, latents=True)
    mixed, second, third, *_ = with_unlabelled((first, baseline))
    assert (second, third) == (baseline, first)
    parts = mixed.extra.params["parts"]
    assert [part["name"] for part in parts] == ["rollouts", "unlabelled"]
    assert parts[0]["params"] == first.extra.params
    for kind in ("text", "stored", "none"):
        with pytest.raises(S2KDError, match="--unlabelled: needs a teacher"):
            with_unlabelled(search_methods(kind, captures=False, latents=True))


def test_methods_and_then_the_slowest_students_are_dropped_until_the_time_suffices():
    methods = [method_named(name) for name in ("output", "baseline", "s2kd")]
    students = [student("unet-small", step=1.0), student("unet-large", step=50.0)]
    left, tried, cost = planning._in_time(students, methods, 500, 12 * 500 * 2.5)
    assert [s.excess != "" for s in left] == [False, True]
    assert [method.name for method in tried] == ["output", "baseline"]
    # 500 steps of 1 s: half of one distillation, 0.6 of a baseline, and the baseline to the end
    assert cost == pytest.approx(500 * (0.5 * 1.15 + 0.6 + 1.0))
    assert planning._in_time(students, methods, 500, 1e9)[1] == methods


def test_a_student_that_cannot_be_built_is_a_sentence_before_anything_is_trained(tmp_path):
    run = pipeline.Run(recipe=FAST, out=tmp_path)
    with pytest.raises(S2KDError, match="patch of 32"):
        measured(run, "mixer-large", Part(name="mixer", params={"patch": 32}), Budget())


def test_no_student_within_the_budget_names_the_smallest(tmp_path):
    options = dataclasses.replace(OPTIONS, budget=Budget(max_parameters=10))
    with pytest.raises(S2KDError, match=r"the smallest has [\d,]+ parameters \(\w+-small\)"):
        main_job.distill(FAST, out=tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_names_of_students_and_sizes_are_checked(tmp_path):
    grid = pipeline.Run(recipe=FAST, out=tmp_path).dataset.grid
    with pytest.raises(S2KDError, match=r"--students unit: .*did you mean 'unet'"):
        student_parts(grid, backbones=("unit",))
    with pytest.raises(S2KDError, match="--sizes tiny"):
        student_parts(grid, sizes=("tiny",))
    assert list(student_parts(grid, backbones=("unet",), sizes=("small",))) == ["unet-small"]


# --- the search ----------------------------------------------------------------------------------


def test_the_answer_is_the_least_validation_error_of_what_trained_to_the_end(folder):
    out, answer, _ = folder
    finished = [c for c in answer.candidates if c.state == "finished"]
    best = min(finished, key=lambda c: c.validation)
    assert answer.chosen == f"{best.student.partition('-')[0]} {best.method}"
    trained = load_metadata(out / "students" / f"{answer.chosen.replace(' ', '-')}-seed42")
    assert trained["validation"] == pytest.approx(best.validation)
    assert {c.method for c in answer.candidates} >= {"baseline", "s2kd_plus"}
    assert answer.forecaster(answer.baseline).method == "baseline"
    assert answer.forecaster("persistence") is not None
    teacher = answer.forecaster(answer.teacher)
    assert teacher.cost.parameters > 0
    assert teacher.cost.latency_ms > 0


def test_candidates_that_fell_behind_were_stopped_at_a_rung(folder):
    _, answer, _ = folder
    plan_epochs = answer.search["epochs"]
    for candidate in answer.candidates:
        if candidate.state == "pruned":
            assert candidate.epochs < plan_epochs
        if candidate.state == "finished":
            assert 0 < candidate.epochs <= plan_epochs


def test_test_windows_are_read_after_the_last_training(folder):
    _, _, stages = folder
    scored = [number for number, stage in enumerate(stages) if " on test" in stage]
    trained = [number for number, stage in enumerate(stages) if stage.startswith("train ")]
    assert scored
    assert min(scored) > max(trained)


def test_the_folder_holds_the_answer_and_a_student_and_nothing_that_only_training_needed(folder):
    out, answer, _ = folder
    assert Answer.from_dict(read_json(out / "answer.json")) == answer
    assert summary(answer) in (out / "report.html").read_text(encoding="utf-8")
    assert not (out / "targets").exists()
    assert not list(out.glob("search/trials/*/checkpoint.pt"))
    assert list(out.glob("students/*/export/model.onnx"))
    forecaster = s2kd.Forecaster.load(out)
    assert forecaster.metadata["method"] == answer.forecaster(answer.chosen).method


def test_the_same_command_again_trains_nothing_and_answers_the_same(folder):
    out, answer, _ = folder
    stages = []

    def progress(stage):
        return lambda done, total, word="": stages.append(stage)

    again = main_job.distill(FAST, out=out, options=OPTIONS, progress=progress)
    assert not [stage for stage in stages if stage.startswith(("train ", "score ", "targets "))]
    assert again.chosen == answer.chosen
    assert again.forecasters == answer.forecasters


def designs_of(*names):
    students = [student("unet-small"), student("unet-medium")]
    return designs(students, [method_named(name) for name in names])


def test_a_search_ends_in_time_with_what_there_is(tmp_path):
    """One epoch at least: a forecaster that is not trained to the end is better than none."""
    recipe = structs.replace(FAST, methods=(method_named("baseline"),))
    run = pipeline.open_run(recipe, tmp_path / "run")
    task = search.Search(
        run=run, designs=designs_of("baseline"), epochs=50, deadline=time.monotonic() + 0.01
    )
    task.run_until_done()
    ((error, design),) = task.finished()
    assert math.isfinite(error)
    assert load_metadata(search.trial_folder(run, design))["epochs"] < 50


def test_students_wait_for_each_other_at_the_first_rung(tmp_path):
    """Both to a sixth of the epochs, then the better one to the end, then the other method."""
    recipe = structs.replace(
        FAST,
        methods=(method_named("baseline"), method_named("mixup")),
        student_training=structs.replace(road.QUICK, epochs=12),
    )
    run = pipeline.open_run(recipe, tmp_path / "run")
    students = [
        dataclasses.replace(
            student(f"unet-{width}"), part=Part(name="unet", params={"width": width})
        )
        for width in (2, 6)
    ]
    methods = [method_named("baseline"), method_named("mixup")]
    task = search.Search(
        run=run, designs=designs(students, methods), epochs=12, deadline=time.monotonic() + 120
    )
    steps = []
    while (step := task.next_design()) is not None:
        steps.append((step[0].name, step[1]))
        task.try_design(step[0], to_the_end=step[1])
    assert steps[:2] == [("unet-2 baseline", False), ("unet-6 baseline", False)]
    assert steps[2] == ("unet-6 baseline", True)
    best = {c.label: c for c in task.candidates()}
    assert best["unet-6 baseline"].state == "finished"
    assert best["unet-2 baseline"].epochs == 2 or best["unet-2 baseline"].state == "finished"


def test_a_pruned_candidate_goes_on_from_its_checkpoint(tmp_path):
    recipe = structs.replace(FAST, methods=(method_named("baseline"),))
    recipe = structs.replace(recipe, student_training=structs.replace(road.QUICK, epochs=4))
    run = pipeline.open_run(recipe, tmp_path / "run")
    first, second = designs_of("baseline")

    def stop(record):
        if record["epoch"] == 1:
            raise search.Pruned
        return 4

    with pytest.raises(search.Pruned):
        search.train_design(run, first, on_epoch=stop)
    assert (search.trial_folder(run, first) / "checkpoint.pt").exists()
    epochs = []
    folder = search.train_design(run, first, on_epoch=lambda r: epochs.append(r["epoch"]) or 4)
    assert epochs == [2, 3]
    whole = search.train_design(pipeline.open_run(recipe, tmp_path / "other"), first)
    assert load_metadata(folder)["weights"] == load_metadata(whole)["weights"]
    assert isinstance(second, Design)


def test_the_plan_alone_trains_nothing(tmp_path):
    plans = []
    answer = main_job.distill(
        FAST, out=tmp_path / "run", options=OPTIONS, show_plan=plans.append, plan_only=True
    )
    assert answer is None
    (plan,) = plans
    assert {s.name for s in plan.students} == {"unet-small"}
    assert json.dumps(plan.seconds)
    assert plan.disk_bytes > 0
    assert plan.memory_bytes > 0
    assert not (tmp_path / "run" / "teachers").exists()


def test_two_processes_share_one_search(tmp_path):
    """Every design is trained once; the folder holds the answer of the one that ended last."""
    recipe = road.saved_recipe(tmp_path)
    arguments = [
        *road.S2KD, "distill", str(recipe), "--out", str(tmp_path / "run"), "--time", "20s",
        "--students", "unet", "--sizes", "small", "--set", "narrator.name=none", "--json",
    ]  # fmt: skip
    processes = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    answers = [Answer.from_dict(json.loads(out)) for out, _ in outputs]
    last = Answer.from_dict(read_json(tmp_path / "run" / "answer.json"))
    assert last in answers
    states = [c.state for c in last.candidates]
    assert "running" not in states
    assert "finished" in states
