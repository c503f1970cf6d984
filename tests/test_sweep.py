"""The search: what a trial is, which one is chosen, that none is trained twice, nothing leaks."""

import dataclasses
import json
import os
import socket
import subprocess
import time

import numpy as np
import pytest
import road
import typer.testing
from msgspec import structs

from s2kd import pipeline
from s2kd.cli import app
from s2kd.core.errors import S2KDError
from s2kd.core.files import write_json
from s2kd.core.recipe import Part, method_named
from s2kd.core.saved import load_metadata
from s2kd.evaluation import figures
from s2kd.evaluation.report import write_report
from s2kd.evaluation.results import read_scores, read_searches
from s2kd.pipeline import sweep as sweeping

optuna = pytest.importorskip("optuna")

QUICK = structs.replace(road.QUICK, epochs=1)


def recipe(**changes):
    return structs.replace(road.tiny(), **{"student_training": QUICK, **changes})


def opened(out, changed=None, **settings):
    return pipeline.open_run(changed or recipe(), out, **settings)


def narrowed(run, search):
    return run.narrowed(methods=(search.method,), students=(search.student,))


def prepared(run, search):
    return sweeping.prepare(narrowed(run, search), pipeline.JobContext())


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with narratives, teacher and targets, before any trial."""
    out = tmp_path_factory.mktemp("sweep") / "run"
    run = opened(out)
    assert prepared(run, sweeping.search_of(run))
    return out


@pytest.fixture
def mine(taught, tmp_path):
    return road.copy_of(taught, tmp_path / "run")


def search(run, *, over="lambda,beta", method="s2kd", **options):
    grid = options.get("grid", False)
    what = sweeping.search_of(run, method=method, over=over, grid=grid)
    return sweeping.sweep(run, what, **options)


def states(result):
    return [trial["state"] for trial in result["trials"]]


def watched(run, stages):
    run.progress = lambda stage: lambda done, total, word="": stages.append((stage, done))
    return run


# --- what is searched ----------------------------------------------------------------------------


def test_a_trial_is_the_method_with_other_weights(taught):
    what = sweeping.search_of(opened(taught))
    assert what.axes == ("lambda", "beta", "lr")
    assert what.values() == {"lambda": 1.0, "beta": 0.5, "lr": 2e-3}
    method = what.method_at({"lambda": 3.0, "beta": 0.25, "lr": 1.0})
    assert method.weight == 3.0
    assert {t.loss.name: t.weight for t in method.terms} == {"semantic": 1.0, "spectral": 0.25}
    settings = what.settings({"lambda": 3.0, "beta": 0.25, "lr": 1e-3})
    changed = recipe().with_settings(settings)
    assert [m for m in changed.methods if m.name == "s2kd"] == [method]
    assert changed.student_training.lr == 1e-3


def test_axes_that_a_method_lacks_are_refused_by_name(taught):
    run = opened(taught)
    assert sweeping.search_of(run, method="baseline").axes == ("lr",)
    assert sweeping.search_of(run, method="fitnet").axes == ("lambda", "lr")
    assert sweeping.search_of(run, grid=True).axes == ("lambda", "beta")
    assert sweeping.search_of(run, method="baseline", grid=True).axes == ("lr",)
    for options, hint in (
        ({"method": "fitnet", "over": "beta"}, "method 'fitnet' has no such weight"),
        ({"over": "lamda"}, "--over lamda: must be of lambda, beta, lr"),
        ({"method": "sdkd"}, "--method sdkd: the recipe has baseline, output, fitnet, s2kd"),
        ({"student": "mixer"}, "--student mixer: the recipe has unet"),
    ):
        with pytest.raises(S2KDError, match=hint):
            sweeping.search_of(run, **options)


def test_the_grid_lies_within_what_is_searched(taught):
    """Else Optuna warns of every point beyond."""
    what = sweeping.search_of(opened(taught))
    assert len(what.grid()) == 5 * 5 * 4
    ranges = {**sweeping.RANGES, "lr": (what.lr / 10, what.lr * 10)}
    for point in what.grid():
        assert all(ranges[axis][0] <= value <= ranges[axis][1] for axis, value in point.items())


def test_what_trials_read_is_stored_before_any_begins(taught, tmp_path):
    """Blends too: else every process would store them, in one folder."""
    changed = recipe(
        methods=(
            structs.replace(
                method_named("s2kd_plus"), extra=Part(name="blends", params={"copies": 2})
            ),
        )
    )
    out = road.copy_of(taught, tmp_path / "run")
    write_json(out / "recipe.json", {"recipe": changed.to_dict()})
    run = opened(out, changed)
    assert prepared(run, sweeping.search_of(run, method="s2kd_plus", over="lambda"))
    stores = {path.name for path in (out / "targets").iterdir() if path.is_dir()}
    assert {"text-seed42", "text-seed42-blends2"} <= stores


# --- the search ----------------------------------------------------------------------------------


def test_the_choice_is_the_least_validation_error_and_all_is_written(mine):
    before = road.content(mine / "teachers")
    result = search(opened(mine), trials=4)
    assert json.loads((mine / "sweep.json").read_text()) == result
    assert (mine / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert states(result) == ["complete"] * 4
    values = [trial["values"] for trial in result["trials"]]
    assert values[0] == {"lambda": 1.0, "beta": 0.5}, "the recipe's own come first"
    assert result["own"]["number"] == 0
    assert len({tuple(point.items()) for point in values}) == 4
    run = opened(mine)
    what = sweeping.search_of(run, over="lambda,beta")
    for trial in result["trials"]:
        card = load_metadata(sweeping.trial_folder(run, what, trial["values"], 42))
        assert trial["validation"] == card["validation"]
        (method,) = card["recipe"]["methods"]
        assert method["weight"] == trial["values"]["lambda"]
        assert method["terms"][1]["weight"] == trial["values"]["beta"]
    best = min(result["trials"], key=lambda trial: trial["validation"])
    assert result["best"] == best
    assert result["settings"] == what.settings(best["values"])
    assert road.content(mine / "teachers") == before, "one teacher for all"
    assert not (mine / "students").exists()
    assert not (mine / "scores").exists()
    scatter = figures.sweep(result).axes[0].collections[0]
    errors = sorted(trial["validation"] for trial in result["trials"])
    np.testing.assert_allclose(np.sort(scatter.get_array()), errors)


def test_the_default_trial_is_the_student_that_distilling_gives(mine):
    """The same weights, bit for bit: a trial is no other training."""
    run = opened(mine, recipe(methods=(road.tiny().methods[3],)))
    pipeline.train_students(run)
    what = sweeping.search_of(run)
    sweeping.train(narrowed(run, what), what, what.values())
    trial = sweeping.trial_folder(run, what, what.values(), 42) / "model.safetensors"
    student = mine / "students/unet-s2kd-seed42/model.safetensors"
    assert trial.read_bytes() == student.read_bytes()


def test_a_second_call_continues_the_first(mine):
    first = search(opened(mine), trials=2)
    stages = []
    more = search(watched(opened(mine), stages), trials=3)
    assert more["trials"][:2] == first["trials"]
    assert len({stage for stage, _ in stages}) == 1, "one training, and nothing else"
    stages.clear()
    assert search(watched(opened(mine), stages), trials=3)["trials"] == more["trials"]
    assert stages == []


def test_the_grid_is_the_product_each_point_once(mine, monkeypatch):
    monkeypatch.setattr(sweeping, "GRID", {"lambda": (0.5, 2.0), "beta": (0.1, 1.0)})
    result = search(opened(mine), over="", grid=True)
    points = [(trial["values"]["lambda"], trial["values"]["beta"]) for trial in result["trials"]]
    assert sorted(points) == [(0.5, 0.1), (0.5, 1.0), (2.0, 0.1), (2.0, 1.0)]
    assert result["sampler"] == "grid"
    again = search(opened(mine), over="", grid=True, trials=50)
    assert again["trials"] == result["trials"]


def test_a_wider_grid_is_another_study_of_the_same_students(tmp_path, monkeypatch):
    """Of the baseline, which needs no teacher."""
    out, options = tmp_path / "run", {"method": "baseline", "over": "lr", "grid": True}
    monkeypatch.setattr(sweeping, "GRID_LR", (0.5, 1.0))
    narrow, stages = search(opened(out), **options), []
    monkeypatch.setattr(sweeping, "GRID_LR", (0.5, 1.0, 2.0))
    wide = search(watched(opened(out), stages), **options)
    errors = [
        {trial["values"]["lr"]: trial["validation"] for trial in result["trials"]}
        for result in (narrow, wide)
    ]
    assert len(errors[1]) == 3
    assert errors[0].items() <= errors[1].items()
    assert len({stage for stage, _ in stages}) == 1, "the new point alone"
    assert wide["settings"][0].startswith("student_training.lr=")
    assert not (out / "teachers").exists()


def test_a_best_value_at_the_edge_of_the_grid_is_named():
    def result(*points, sampler="grid"):
        trials = [{"state": "complete", "values": v, "validation": e} for v, e in points]
        best = min(trials, key=lambda trial: trial["validation"])
        return {"sampler": sampler, "axes": list(best["values"]), "trials": trials, "best": best}

    line = [({"lr": 0.1}, 3.0), ({"lr": 0.3}, 2.0), ({"lr": 0.9}, 1.0)]
    assert sweeping.at_edge(result(*line)) == ["lr"]
    assert sweeping.at_edge(result(*line, ({"lr": 2.7}, 1.5))) == []
    assert sweeping.at_edge(result(*line, sampler="TPE")) == []
    square = [({"lambda": a, "beta": b}, abs(a - 2) + b) for a in (1, 2, 3) for b in (1, 2)]
    assert sweeping.at_edge(result(*square)) == ["beta"]
    assert sweeping.at_edge(result(*((v | {"beta": 1}, e) for v, e in line))) == ["lr"]


def test_seeds_are_averaged(mine):
    run = opened(mine, recipe(seeds=(42, 7)))
    what = sweeping.search_of(run, over="lambda")
    result = sweeping.sweep(run, what, trials=1)
    folders = [sweeping.trial_folder(run, what, {"lambda": 1.0}, seed) for seed in (42, 7)]
    errors = [load_metadata(folder)["validation"] for folder in folders]
    assert errors[0] != errors[1]
    assert result["best"]["validation"] == pytest.approx(np.mean(errors))


def test_the_test_split_plays_no_part(mine):
    """Scrambled, it changes no trial."""
    plain = search(opened(mine), trials=3)
    run = opened(mine)
    frames, fingerprint = run.dataset.frames.copy(), run.dataset.fingerprint
    for stretch in run.dataset.splits["test"]:
        block = frames[stretch.first : stretch.stop]
        block[:] = np.random.default_rng(0).normal(size=block.shape)
    run.dataset = dataclasses.replace(run.dataset, frames=frames)
    assert run.dataset.fingerprint != fingerprint
    scrambled = search(run, trials=3)
    assert [(t["values"], t["validation"]) for t in scrambled["trials"]] == [
        (t["values"], t["validation"]) for t in plain["trials"]
    ]


# --- stops, failures, several processes ----------------------------------------------------------


def test_when_the_minutes_are_spent_the_next_call_continues_the_training(mine, monkeypatch):
    """The clock jumps ahead in the middle of the first training."""
    begun, steps = time.time(), []
    slow = recipe(student_training=structs.replace(QUICK, epochs=3))
    write_json(mine / "recipe.json", {"recipe": slow.to_dict()})
    monkeypatch.setattr(time, "time", lambda: begun + 3600 * (len(steps) > 12))
    run = watched(opened(mine, slow, save_seconds=0.0), steps)
    stopped = search(run, trials=2, minutes=1.0)
    monkeypatch.undo()
    assert stopped["best"] is None
    assert list(mine.glob("sweep/trials/*/checkpoint.pt"))
    stages = []
    result = search(watched(opened(mine, slow), stages), trials=1)
    assert states(result) == ["fail", "complete"]
    assert result["trials"][1]["values"] == {"lambda": 1.0, "beta": 0.5}
    assert result["trials"][1]["again"] == 0
    assert min(done for stage, done in stages if "unet" in stage) > 1, "not from the start"


@pytest.mark.parametrize("alive", [True, False])
def test_a_running_trial_is_tried_again_only_where_its_process_is_dead(mine, alive):
    run = opened(mine)
    what = sweeping.search_of(run, over="lambda,beta")
    run = narrowed(run, what)
    trial = sweeping._study(optuna, run, what, False).ask()
    sweeping._suggest(trial, what)
    process = subprocess.Popen(["true"])
    process.wait()
    trial.set_user_attr("process", [socket.gethostname(), os.getpid() if alive else process.pid])
    result = search(opened(mine), trials=2 if alive else 1)
    assert states(result) == (["running", "complete"] if alive else ["fail", "complete"])
    values = result["trials"][1]["values"]
    assert (values == {"lambda": 1.0, "beta": 0.5}) is not alive


@pytest.mark.slow
def test_two_processes_share_the_trials(mine):
    saved = road.saved_recipe(mine.parent, recipe())
    arguments = ["sweep", str(saved), "--out", str(mine), "--trials", "5", "--over", "lambda,beta"]
    logs = [mine.parent / f"{name}.log" for name in "ab"]
    processes = [road.start(arguments, log) for log in logs]
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0], "\n".join(log.read_text() for log in logs)
    result = search(opened(mine), trials=5)
    assert set(states(result)) == {"complete"}
    assert len(result["trials"]) in (5, 6), "two may begin the last one"


def test_values_that_diverge_fail_alone_and_are_not_tried_again(mine, monkeypatch):
    train = sweeping.train

    def diverging(run, what, values):
        if values["lambda"] == 1.0:
            raise S2KDError("the validation error was never a number")
        return train(run, what, values)

    monkeypatch.setattr(sweeping, "train", diverging)
    result = search(opened(mine), trials=3)
    assert states(result) == ["fail", "complete", "complete"]
    assert result["trials"][0]["error"] == "the validation error was never a number"
    assert result["own"] is None
    monkeypatch.setattr(sweeping, "train", lambda *a: (_ for _ in ()).throw(S2KDError("no")))
    with pytest.raises(S2KDError, match="no"):
        search(opened(mine), method="fitnet", over="lr", trials=2)


def test_the_verb_prints_the_choice_and_the_report_shows_the_surface(mine):
    saved = road.saved_recipe(mine.parent, recipe())
    arguments = ["sweep", str(saved), "--out", str(mine), "--trials", "2"]
    output = typer.testing.CliRunner().invoke(app, [*arguments, "--results", str(mine / "kept")])
    assert output.exit_code == 0, output.output
    (kept,) = read_searches(mine / "kept").values()
    result = json.loads((mine / "sweep.json").read_text())
    assert result["axes"] == ["lambda", "beta", "lr"]
    assert [trial["values"] for trial in kept["trials"]] == [
        {axis: pytest.approx(value, rel=1e-5) for axis, value in trial["values"].items()}
        for trial in result["trials"]
    ]
    choice = " ".join(f"--set {setting}" for setting in result["settings"])
    assert f"The choice: {choice}" in output.output
    scores = read_scores(road.finished() / "scores/test.nc")
    page = mine / "report.html"
    write_report(page, scores={"test": scores}, search=result)
    text = page.read_text()
    assert "<h2>Search</h2>" in text
    assert (mine / "figures/sweep.png").exists()
    for trial in result["trials"]:
        assert f"{trial['validation']:.5f}" in text
