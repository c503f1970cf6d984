"""The search: what a trial is, that nobody does it twice, that nothing is lost, nothing leaks."""

import dataclasses
import json
import shutil
import sys
import time

import numpy as np
import pytest
import road
import typer.testing
from msgspec import structs

from s2kd import pipeline
from s2kd.cli import app
from s2kd.core.files import write_json
from s2kd.core.recipe import method_named
from s2kd.core.types import S2KDError
from s2kd.evaluation import figures
from s2kd.evaluation.report import write_report
from s2kd.evaluation.results import read_searches
from s2kd.models.checkpoint import load_metadata
from s2kd.pipeline import sweep as searching

pytest.importorskip("optuna")

QUICK = structs.replace(road.QUICK, epochs=1)


def recipe(**changes):
    return structs.replace(road.tiny(), student_training=QUICK, **changes)


def opened(out, made=None, **settings):
    return pipeline.open_run(made or recipe(), out, **settings)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with narratives, teacher and targets, before any trial."""
    out = tmp_path_factory.mktemp("sweep") / "run"
    run = opened(out)
    assert searching.prepare(searching.narrowed(run, searching.search_of(run)))
    return out


@pytest.fixture
def mine(taught, tmp_path):
    return road.copy_of(taught, tmp_path / "run")


def search(out, *, over="lambda,beta", method="s2kd", **options):
    run = opened(out)
    found = searching.search_of(run, method=method, over=over, grid=options.get("grid", False))
    return searching.sweep(run, found, **options)


def states(found):
    return [one["state"] for one in found["trials"]]


# --- what is searched ----------------------------------------------------------------------------


def test_what_trials_read_is_labelled_before_any_begins(taught, tmp_path):
    """Blends too: else every process would label them, in one folder."""
    out = road.copy_of(taught, tmp_path / "run")
    (out / "recipe.json").unlink()
    shutil.rmtree(out / "targets")
    made = recipe(methods=(structs.replace(method_named("s2kd_plus"), blends=2),))
    write_json(out / "recipe.json", {"recipe": made.to_dict()})
    run = opened(out, made)
    assert searching.prepare(
        searching.narrowed(run, searching.search_of(run, method="s2kd_plus", over="lambda"))
    )
    stores = {path.name for path in (out / "targets").iterdir()}
    assert stores == {"text-seed42", "text-seed42-blends2"}


def test_a_trial_is_the_method_with_other_weights(taught):
    run = opened(taught)
    found = searching.search_of(run)
    assert found.axes == ("lambda", "beta", "lr")
    assert found.values() == {"lambda": 1.0, "beta": 0.5, "lr": 2e-3}
    made = found.method_at({"lambda": 3.0, "beta": 0.25, "lr": 1.0})
    assert made.weight == 3.0
    assert {t.loss.name: t.weight for t in made.terms} == {"semantic": 1.0, "spectral": 0.25}
    settings = found.settings({"lambda": 3.0, "beta": 0.25, "lr": 1e-3})
    changed = recipe().with_settings(settings)
    (method,) = [m for m in changed.methods if m.name == "s2kd"]
    assert method == made
    assert changed.student_training.lr == 1e-3


def test_axes_that_a_method_lacks_are_refused_by_name(taught):
    run = opened(taught)
    assert searching.search_of(run, method="baseline").axes == ("lr",)
    assert searching.search_of(run, method="fitnet").axes == ("lambda", "lr")
    assert searching.search_of(run, grid=True).axes == ("lambda", "beta")
    assert searching.search_of(run, method="baseline", grid=True).axes == ("lr",)
    for options, said in (
        ({"method": "fitnet", "over": "beta"}, "method 'fitnet' has no such weight"),
        ({"over": "lamda"}, "--over lamda: must be of lambda, beta, lr"),
        ({"method": "sdkd"}, "--method sdkd: the recipe has baseline, output, fitnet, s2kd"),
        ({"student": "mixer"}, "--student mixer: the recipe has unet"),
    ):
        with pytest.raises(S2KDError, match=said):
            searching.search_of(run, **options)


# --- the search ----------------------------------------------------------------------------------


def test_the_choice_is_the_least_validation_error_and_all_is_written(mine):
    before = road.content(mine / "teachers")
    found = search(mine, trials=4)
    assert json.loads((mine / "sweep.json").read_text()) == found
    assert (mine / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert states(found) == ["complete"] * 4
    values = [one["values"] for one in found["trials"]]
    assert values[0] == {"lambda": 1.0, "beta": 0.5}, "the recipe's own come first"
    assert found["own"]["number"] == 0
    assert len({tuple(one.items()) for one in values}) == 4
    run = opened(mine)
    what = searching.search_of(run, over="lambda,beta")
    for one in found["trials"]:
        card = load_metadata(searching.trial_folder(run, what, one["values"], 42))
        assert one["validation"] == card["validation"]
        (method,) = card["recipe"]["methods"]
        assert method["weight"] == one["values"]["lambda"]
        assert method["terms"][1]["weight"] == one["values"]["beta"]
    best = min(found["trials"], key=lambda one: one["validation"])
    assert found["best"] == best
    assert found["settings"] == what.settings(best["values"])
    assert found["split"] == "val"
    assert road.content(mine / "teachers") == before, "one teacher for all"
    assert not (mine / "students").exists()
    assert not (mine / "scores").exists()


def test_the_default_trial_is_the_student_that_distilling_gives(mine):
    """The same weights, bit for bit: a trial is no other training."""
    run = opened(mine, recipe(methods=(road.tiny().methods[3],)))
    pipeline.distill(run)
    what = searching.search_of(run)
    searching.train(searching.narrowed(run, what), what, what.values())
    trial = searching.trial_folder(run, what, what.values(), 42)
    plain = mine / "students/unet-s2kd-seed42"
    assert (trial / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_it_goes_on_where_it_stopped(mine):
    first = search(mine, trials=2)
    told = []
    run = opened(mine, progress=lambda stage: lambda done, total, word="": told.append(stage))
    what = searching.search_of(run, over="lambda,beta")
    more = searching.sweep(run, what, trials=3)
    assert more["trials"][:2] == first["trials"]
    assert len(set(told)) == 1, "one training, and nothing else"
    told.clear()
    assert searching.sweep(run, what, trials=3)["trials"] == more["trials"]
    assert told == []


def test_the_grid_is_the_product_each_point_once(mine, monkeypatch):
    monkeypatch.setattr(searching, "GRID", {"lambda": (0.5, 2.0), "beta": (0.1, 1.0)})
    found = search(mine, over="", grid=True)
    points = [(one["values"]["lambda"], one["values"]["beta"]) for one in found["trials"]]
    assert sorted(points) == [(0.5, 0.1), (0.5, 1.0), (2.0, 0.1), (2.0, 1.0)]
    assert found["sampler"] == "grid"
    again = search(mine, over="", grid=True, trials=50)
    assert again["trials"] == found["trials"]


def test_the_grid_lies_within_what_is_searched():
    """Else Optuna warns of every point beyond."""
    ranges = {**searching.RANGES, "lr": (1 / searching.LR_RANGE, searching.LR_RANGE)}
    for axis, points in {**searching.GRID, "lr": searching.GRID_LR}.items():
        assert ranges[axis][0] <= min(points)
        assert max(points) <= ranges[axis][1]


def test_a_wider_grid_is_another_study_of_the_same_students(mine, monkeypatch):
    monkeypatch.setattr(searching, "GRID_LR", (0.5, 1.0))
    narrow = search(mine, method="baseline", over="lr", grid=True)
    monkeypatch.setattr(searching, "GRID_LR", (0.5, 1.0, 2.0))
    run, told = opened(mine), []
    run.progress = lambda stage: told.append(stage) or (lambda done, total, word: None)
    what = searching.search_of(run, method="baseline", over="lr")
    wide = searching.sweep(run, what, grid=True)
    values = {one["values"]["lr"]: one["validation"] for one in wide["trials"]}
    assert len(values) == 3
    assert {one["values"]["lr"]: one["validation"] for one in narrow["trials"]}.items() <= (
        values.items()
    )
    assert len([stage for stage in told if stage.startswith("train")]) == 1, "the new point alone"


def test_a_best_at_the_edge_of_the_grid_is_told():
    def found(*points, sampler="grid"):
        trials = [{"state": "complete", "values": v, "validation": e} for v, e in points]
        best = min(trials, key=lambda one: one["validation"])
        return {"sampler": sampler, "axes": list(best["values"]), "trials": trials, "best": best}

    line = [({"lr": 0.1}, 3.0), ({"lr": 0.3}, 2.0), ({"lr": 0.9}, 1.0)]
    assert searching.at_edge(found(*line)) == ["lr"]
    assert searching.at_edge(found(*line, ({"lr": 2.7}, 1.5))) == []
    assert searching.at_edge(found(*line, sampler="TPE")) == []
    square = [({"lambda": a, "beta": b}, abs(a - 2) + b) for a in (1, 2, 3) for b in (1, 2)]
    assert searching.at_edge(found(*square)) == ["beta"]
    assert searching.at_edge(found(*((v | {"beta": 1}, e) for v, e in line))) == ["lr"]


def test_the_learning_rate_of_the_baseline_needs_no_teacher(tmp_path):
    found = search(tmp_path / "run", method="baseline", over="lr", trials=2)
    assert states(found) == ["complete"] * 2
    assert found["settings"][0].startswith("student_training.lr=")
    assert not (tmp_path / "run/teachers").exists()
    cards = [load_metadata(p) for p in (tmp_path / "run/sweep/trials").iterdir()]
    rates = {card["recipe"]["student_training"]["lr"] for card in cards}
    assert rates == {one["values"]["lr"] for one in found["trials"]}


def test_seeds_are_averaged(mine):
    run = opened(mine, recipe(seeds=(42, 7)))
    what = searching.search_of(run, over="lambda")
    found = searching.sweep(run, what, trials=1)
    folders = [searching.trial_folder(run, what, {"lambda": 1.0}, seed) for seed in (42, 7)]
    each = [load_metadata(folder)["validation"] for folder in folders]
    assert each[0] != each[1]
    assert found["best"]["validation"] == pytest.approx(np.mean(each))


def test_the_test_split_plays_no_part(mine, monkeypatch):
    """Scrambled, it changes no trial; and its windows are never asked for while searching."""
    plain = search(mine, trials=3)
    run = opened(mine)
    frames = run.dataset.frames.copy()
    for stretch in run.dataset.splits["test"]:
        frames[stretch.first : stretch.stop] = np.random.default_rng(0).normal(
            size=frames[stretch.first : stretch.stop].shape
        )
    fingerprint = run.dataset.fingerprint
    run.__dict__["dataset"] = dataclasses.replace(run.dataset, frames=frames)
    assert run.dataset.fingerprint != fingerprint
    what = searching.search_of(run, over="lambda,beta")
    other = searching.sweep(run, what, trials=3)
    assert [(t["values"], t["validation"]) for t in other["trials"]] == [
        (t["values"], t["validation"]) for t in plain["trials"]
    ]


# --- several processes, and what befalls them ----------------------------------------------------


def test_a_trial_that_was_killed_is_taken_up_from_its_checkpoint(mine):
    """Interrupted in the second epoch; the next process goes on and gets the same student."""
    slow = structs.replace(recipe(), student_training=structs.replace(QUICK, epochs=3))
    (mine / "recipe.json").write_text(json.dumps({"recipe": slow.to_dict()}))

    class Killed(Exception):
        pass

    def progress(stage):
        def show(done, total, word=""):
            if stage.startswith("train unet") and done == total // 2 + 1:
                raise Killed

        return show

    run = opened(mine, slow, progress=progress, save_seconds=0.0)
    what = searching.search_of(run, over="lambda")
    with pytest.raises(Killed):
        searching.sweep(run, what, trials=1)
    folder = searching.trial_folder(run, what, {"lambda": 1.0}, 42)
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "model.json").exists()
    steps = []

    def counted(stage):
        return lambda done, total, word="": steps.append(done) if "unet" in stage else None

    again = searching.sweep(opened(mine, slow, progress=counted), what, trials=1)
    assert states(again) == ["fail", "complete"]
    assert again["trials"][1]["again"] == 0
    assert again["trials"][1]["values"] == {"lambda": 1.0}
    assert min(steps) > 1, "not from the start"


def test_a_living_process_keeps_its_trial(mine):
    """A trial that another process holds is neither taken up nor counted as free."""
    run = opened(mine)
    what = searching.search_of(run, over="lambda,beta")
    run = searching.narrowed(run, what)
    optuna = searching._optuna()
    study = searching._study(optuna, run, what, False)
    trial, values = searching._ask(study, what)
    held = searching._hold(run, trial.number)
    found = search(mine, trials=2)
    assert states(found) == ["running", "complete"]
    study.tell(trial, searching.train(run, what, values))
    held.close()
    assert states(search(mine, trials=2)) == ["complete"] * 2


@pytest.mark.slow
def test_two_processes_share_the_work_and_do_nothing_twice(mine):
    saved = road.saved_recipe(mine.parent, recipe())
    arguments = ["sweep", str(saved), "--out", str(mine), "--trials", "5", "--over", "lambda,beta"]
    logs = [mine.parent / f"{name}.log" for name in "ab"]
    processes = [road.start(arguments, log) for log in logs]
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0], "\n".join(log.read_text() for log in logs)
    found = search(mine, trials=5)
    assert states(found) == ["complete"] * 5
    assert len(list((mine / "sweep/trials").iterdir())) == 5


def test_when_the_minutes_are_spent_the_trial_waits_for_the_next_call(mine, monkeypatch):
    begun = time.monotonic()
    clock = iter([begun, *[begun + 1] * 5])
    monkeypatch.setattr(searching.time, "monotonic", lambda: next(clock, begun + 1000))
    stopped = search(mine, trials=2, minutes=1.0)
    monkeypatch.undo()
    assert stopped["best"] is None
    assert "running" not in states(stopped)
    found = search(mine, trials=2)
    done = [one for one in found["trials"] if one["state"] == "complete"]
    assert len(done) == 2
    assert done[0]["values"] == {"lambda": 1.0, "beta": 0.5}


def test_values_that_diverge_fail_alone_and_are_not_tried_again(mine, monkeypatch):
    train = searching.train

    def diverging(run, what, values, deadline):
        if values["lambda"] == 1.0:
            raise S2KDError("the validation error was never a number")
        return train(run, what, values, deadline)

    monkeypatch.setattr(searching, "train", diverging)
    found = search(mine, trials=3)
    assert states(found) == ["fail", "complete", "complete"]
    assert found["trials"][0]["error"] == "the validation error was never a number"
    assert found["own"] is None
    monkeypatch.setattr(searching, "train", lambda *a: (_ for _ in ()).throw(S2KDError("no")))
    with pytest.raises(S2KDError, match="no"):
        search(mine, method="fitnet", over="lr", trials=2)


# --- what the user sees --------------------------------------------------------------------------


def test_the_verb_prints_the_choice_and_the_report_shows_the_surface(mine):
    saved = road.saved_recipe(mine.parent, recipe())
    told = typer.testing.CliRunner().invoke(
        app,
        ["sweep", str(saved), "--out", str(mine), "--trials", "2", "--results", str(mine / "kept")],
    )
    assert told.exit_code == 0, told.output
    (kept,) = read_searches(mine / "kept").values()
    found = json.loads((mine / "sweep.json").read_text())
    assert found["axes"] == ["lambda", "beta", "lr"]
    assert [one["values"] for one in kept["trials"]] == [
        {axis: pytest.approx(value, rel=1e-5) for axis, value in one["values"].items()}
        for one in found["trials"]
    ]
    choice = " ".join(f"--set {setting}" for setting in found["settings"])
    assert f"The choice: {choice}" in told.output
    rows = json.loads((road.finished() / "scores.json").read_text())
    page = mine / "report.html"
    write_report(page, rows=rows[:1], sweep=found)
    text = page.read_text()
    assert "<h2>Search</h2>" in text
    assert (mine / "figures/sweep.png").exists()
    for one in found["trials"]:
        assert f"{one['validation']:.5f}" in text


def test_the_figure_shows_every_trial(mine):
    found = search(mine, trials=3)
    drawn = figures.sweep(found)
    scatter = drawn.axes[0].collections[0]
    assert len(scatter.get_offsets()) == 3
    np.testing.assert_allclose(
        np.sort(scatter.get_array()), sorted(one["validation"] for one in found["trials"])
    )
    alone = {**found, "axes": ["lambda"]}
    assert len(figures.sweep(alone).axes) == 1


def test_without_optuna_the_extra_is_named(taught, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(S2KDError, match=r"Optuna is not installed: pip install 's2kd\[sweep\]'"):
        search(taught, trials=1)
