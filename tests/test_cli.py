"""Every verb's happy path, as a user types it."""

import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import gridded
import numpy as np
import pytest
import road
import torch
import xarray as xr
import yaml
from msgspec import structs, to_builtins
from worlds import world

from s2kd import pipeline
from s2kd.cli import main
from s2kd.core.recipe import Recipe, method_named
from s2kd.models.checkpoint import load_student, load_teacher
from s2kd.pipeline import recipes


def settings(*changes: str) -> list[str]:
    return [argument for change in changes for argument in ("--set", change)]


QUICK = ("teacher_training.epochs=1", "student_training.epochs=1", "text.name=hashed")
SMALL = settings(
    *QUICK,
    f"teacher.backbone={json.dumps(to_builtins(road.TEACHER.backbone))}",
    "teacher.width=16",
    'students=[{"name": "unet", "params": {"width": 4}}]',
)


@pytest.fixture
def verb(capsys):
    """Call a verb that must succeed; what it printed on standard output."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert stopped.value.code in (0, None), said.err
        return said.out

    return call


def test_help_names_every_verb_and_h_is_short_for_it(verb):
    text = verb("-h")
    verbs = "distill compare demo label narrate evaluate diagnose report forecast export"
    for name in (
        *verbs.split(),
        "benchmark",
        "serve",
        "list",
        "check",
        "data",
        "sweep",
        "reproduce",
    ):
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
    assert verb("--help") == text
    stage_help = verb("run", "-h")
    assert all(stage in stage_help for stage in pipeline.STAGES)


def test_the_shell_is_told_verbs_options_and_choices():
    def completions(line: str) -> list[str]:
        words = {"_S2KD_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; sys.argv = ['s2kd']; import s2kd.cli as c; c.main()",
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**road.environment(), **words},
        )
        return re.findall(
            r'^"([\w-]+)"', done.stdout.replace("_arguments '*: :((", ""), re.MULTILINE
        )

    assert completions("s2kd di") == ["distill", "diagnose"]
    assert "--max-latency" in completions("s2kd distill --max-")
    assert completions("s2kd compare demo --world pl") == ["plume"]


def test_the_version(verb):
    import s2kd

    assert verb("--version").strip() == s2kd.__version__


def test_run_stage_by_stage_ends_like_run(verb, done, tmp_path):
    out, recipe = tmp_path / "run", road.saved_recipe(tmp_path)
    assert verb("narrate", recipe, "--out", out).strip() == str(out / "narratives.jsonl")
    assert not (out / "teachers").exists()
    assert verb("run", recipe, "--out", out, "--until", "teach").strip() == str(out)
    assert {p.name for p in (out / "teachers").iterdir()} == {"text-seed42", "no_text-seed42"}
    assert not (out / "students").exists()
    verb("run", "--out", out, "--until", "distil")
    assert not (out / "scores.json").exists()
    table = verb("run", "--out", out, "--until", "evaluate")
    assert not (out / "report.html").exists()
    assert verb("report", out).strip() == str(out / "report.html")
    assert (out / "report.html").stat().st_size > 10_000
    for label in ("persistence", "teacher", "no distillation", "standard KD", "FitNet", "S²-KD"):
        assert label in table
    assert road.weights(out) == road.weights(done)


def test_run_prints_the_scores_as_pure_json(verb, mine):
    summary = json.loads(verb("run", "--out", mine, "--json"))
    scores = json.loads((mine / "scores.json").read_text())
    assert [row["method"] for row in summary] == [row["method"] for row in scores]
    assert json.loads(verb("evaluate", mine, "--json")) == summary


def test_diagnose_says_how_near_each_student_comes_to_its_own_teacher(verb, mine):
    """Against the function itself, on the windows asked for; the plain student is the measure."""
    rows = json.loads(verb("diagnose", mine, "--windows", "7", "--json"))
    assert [(row["split"], row["method"]) for row in rows] == [
        (split, method) for split in ("train", "val") for method in ("output", "fitnet", "s2kd")
    ]
    run = pipeline.open_run(pipeline.load_recipe(mine), mine)
    for row in rows:
        windows = run.windows(row["split"])
        index = torch.arange(0, len(windows), math.ceil(len(windows) / 7))
        assert row["windows"] == len(index) <= 7
        teacher, _ = load_teacher(mine / "teachers" / f"{row['teacher']}-seed42")
        states = run.states(row["split"]) if teacher.reads else None
        distances = []
        for method in (row["method"], "baseline"):
            student, _ = load_student(mine / "students" / f"{row['backbone']}-{method}-seed42")
            with torch.no_grad():
                window = windows.gather(index)
                tokens = states.tokens(index, "cpu") if states else None
                own = student.eval()(window.past).future
                told = teacher.eval()(window.past, tokens).future
            unit = student.normaliser.unit[:, None, None]
            distances.append((((own - told) / unit) ** 2).mean().item())
        errors = [row["student_teacher_mse"], row["baseline_teacher_mse"]]
        assert errors == pytest.approx(distances, rel=1e-4)
        gain = 100 * (1 - distances[0] / distances[1])
        assert row["fidelity_gain_percent"] == pytest.approx(gain, abs=0.01)
    written = json.loads((mine / "diagnosis.json").read_text())
    assert written["rows"] == rows
    assert written["recipe"] == run.recipe.digest
    table = verb("diagnose", mine)
    for word in ("reading", "text-free", "gain %", "s2kd"):
        assert word in table


def test_run_shows_the_table_and_names_the_report(verb, mine):
    said = verb("run", "--out", mine)
    assert "S²-KD" in said
    assert "report.html" in said.replace("\n", "")


def test_settings_add_to_a_run(verb, mine):
    verb("run", "--out", mine, "--set", "seeds=[42,43]", "--until", "teach")
    assert {p.name for p in (mine / "teachers").iterdir()} == {
        f"{kind}-seed{seed}" for kind in ("text", "no_text") for seed in (42, 43)
    }


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    return gridded.write(gridded.waves(), tmp_path_factory.mktemp("data") / "waves.nc")


def test_a_users_file_goes_the_whole_road_without_a_recipe(verb, waves, tmp_path):
    out = tmp_path / "run"
    said = verb("run", waves, "--out", out, *SMALL)
    assert "waves" in said
    rows = json.loads((out / "scores.json").read_text())
    assert {row["method"] for row in rows} >= {"persistence", "teacher", "baseline", "s2kd"}
    assert all(np.isfinite(row["mse"]) for row in rows)
    verb("forecast", out, waves, "--out", tmp_path / "forecast.nc")
    made = xr.load_dataset(tmp_path / "forecast.nc")["t2m"]
    assert 250 < float(made.mean()) < 310, "in Kelvin"


def test_describe_prints_json_with_a_recipe_that_fits(verb, waves):
    found = json.loads(verb("data", "describe", waves, "--json"))
    assert found["height"] == 12
    recipe = Recipe.from_dict(found["recipe"])
    assert recipe.dataset.params["path"] == str(waves)
    assert "t2m" in verb("data", "describe", waves)


def test_what_describe_prints_or_writes_as_json_can_be_run(verb, waves, tmp_path):
    from s2kd.cli.options import recipe_of

    path = tmp_path / "recipe.json"
    path.write_text(verb("data", "describe", waves, "--json"))
    made = recipe_of(str(path), tmp_path)
    assert made == recipe_of(str(waves), tmp_path)
    said = verb("data", "describe", waves, "--out", tmp_path / "mine.json")
    assert f"Next: s2kd distill {tmp_path / 'mine.json'} " in said
    assert recipe_of(str(tmp_path / "mine.json"), tmp_path) == made


def test_the_commands_that_are_suggested_can_be_pasted(verb, waves, tmp_path):
    path = tmp_path / "my long folder of data" / f"höhe {'5' * 80}.nc"
    path.parent.mkdir()
    shutil.copy(waves, path)
    said = verb("data", "describe", path)
    (command,) = re.findall("^Next: (s2kd distill .*)$", said, re.MULTILINE)
    assert shlex.split(command) == ["s2kd", "distill", str(path), "--out", "DIR"]
    assert len(said.splitlines()) < 20, "one screen"


@pytest.mark.parametrize("world", ["atmosphere", "plume"])
def test_the_demos_recipe_is_known_to_the_verbs(verb, tmp_path, world):
    """Its narratives are the cheapest stage that proves it; smaller worlds are quicker."""
    small = {
        "atmosphere": ("members=3", "days=10"),
        "plume": ("members=3", "frames=16", "spin_up_frames=4"),
    }[world]
    changes = settings(*(f"dataset.params.{change}" for change in small))
    out = tmp_path / "run"
    verb("narrate", "demo", "--world", world, "--out", out, *SMALL, *changes)
    lines = (out / "narratives.jsonl").read_text().splitlines()
    assert len(lines) > 10
    assert all(json.loads(line)["text"] for line in lines)


HINTED = structs.replace(method_named("fitnet_two_stage"), hint_epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", [recipes.BASELINE, HINTED], ids=["baseline", "hinted"])
def test_two_processes_share_a_run(method, tmp_path):
    """The second process of a run is not taken for a second run in the same folder.

    While a student is hinted at, half of it gets no gradient, which DDP has to be told.
    """
    recipe = structs.replace(road.tiny(), methods=(method,))
    command = [*road.S2KD, "run", str(road.saved_recipe(tmp_path, recipe)), "--json"]
    command += ["--out", str(tmp_path / "run"), "--accelerator", "cpu", "--devices", "2"]
    command += ["--until", "evaluate"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=road.environment(), timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr, "the premise: there were two"
    rows = json.loads((tmp_path / "run/scores.json").read_text())
    assert [row["method"] for row in rows if row["role"] == "student"] == [method.name]
    assert {row["method"] for row in rows} >= {"persistence", "climatology"}


# --- using a student -----------------------------------------------------------------------------


def _last_blobs() -> xr.Dataset:
    """The end of the data that the run was trained on, as a user's file."""
    dataset = world("blobs", **road.tiny().dataset.params)
    return xr.Dataset(
        {"density": (("time", "y", "x"), dataset.frames[-6:, 0], {"units": "1"})},
        coords={"time": dataset.times[-6:]},
    )


def test_forecast_names_its_student(verb, done, tmp_path):
    latest = gridded.write(_last_blobs(), tmp_path / "latest.nc")
    student = "unet-fitnet-seed42"
    for name in ("forecast.nc", "forecast.zarr"):
        out = tmp_path / name
        assert verb("forecast", done, latest, "--out", out, "--student", student).strip() == (
            f"{out} (by {student})"
        )
        assert out.exists()


def _check_rmse(forecaster, stated):
    """The error of every validation window, by NumPy."""
    data = world("blobs", **road.tiny().dataset.params)
    clips = [
        data.frames[start : start + 5]
        for stretch in data.splits["val"]
        for start in range(stretch.first, stretch.stop - 4)
    ]
    past, future = np.split(np.stack(clips), [3], 1)
    std = np.array(forecaster.metadata["statistics"]["std"])[:, None, None]
    error = (forecaster.predict(past) - future) / std
    assert np.sqrt(np.mean(error**2)) == pytest.approx(stated, rel=1e-4)


def test_an_exported_student_forecasts_the_same_and_stays_a_student(verb, mine, tmp_path):
    """Without --out the folder lies in the student's, whose own metadata must stay."""
    pytest.importorskip("onnxruntime")
    from s2kd.deploy.forecaster import Forecaster

    metadata = road.content(mine, "students/*/model.json")
    inside = Path(verb("export", mine).strip())
    assert inside.parent.parent == mine / "students"
    assert road.content(mine, "students/*/model.json") == metadata
    exported = json.loads((inside / "config.json").read_text())
    assert exported == Forecaster.load(mine).metadata
    errors = {name: form["rmse"] for name, form in exported["formats"].items()}
    assert errors["int8"] <= 1.01 * errors["float32"]
    _check_rmse(Forecaster.load(inside, format="int8"), errors["int8"])
    header = yaml.safe_load((inside / "README.md").read_text(encoding="utf-8").split("---")[1])
    (card,) = header["model-index"]
    assert [result["metrics"][0]["value"] for result in card["results"]] == list(errors.values())
    rows = json.loads(verb("benchmark", mine, "--json"))
    measured = {(row["runtime"], row["format"]): row["rmse"] for row in rows}
    assert measured["ONNX Runtime", "int8"] == pytest.approx(errors["int8"], rel=1e-4)
    assert measured["PyTorch", "float32"] == pytest.approx(errors["float32"], rel=1e-4)
    assert [row["milliseconds"] for row in rows] == sorted(row["milliseconds"] for row in rows)
    latest = gridded.write(_last_blobs(), tmp_path / "latest.nc")
    verb("forecast", mine, latest, "--out", tmp_path / "forecast.nc")
    verb("evaluate", mine)
    path, name = tmp_path / "student", "unet-s2kd-seed42"
    assert verb("export", mine, "--out", path, "--student", name).strip() == str(path)
    past = world("blobs", **road.tiny().dataset.params).frames[None, -3:]
    expected = Forecaster.load(mine, student=name, format="pytorch").predict(past)
    predicted = Forecaster.load(path, format="float32").predict(past)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)


# --- looking around ------------------------------------------------------------------------------


def test_list_is_pure_json_and_knows_every_kind(verb):
    rows = json.loads(verb("list", "--json"))
    kinds = {
        "recipes",
        "methods",
        "readers",
        "narrators",
        "encoders",
        "backbones",
        "losses",
        "extras",
    }
    assert {row["kind"] for row in rows} == kinds
    assert all(row["about"] for row in rows), "every part says what it is"
    named = {row["name"] for row in rows if row["kind"] == "recipes"}
    assert named == set(recipes.names())
    assert "unet" in verb("list", "backbones")
    assert "blobs" not in verb("list", "backbones")
    methods = {row["name"]: row["about"] for row in json.loads(verb("list", "methods", "--json"))}
    assert methods["baseline"] == "L_pred; no teacher"
    assert methods["s2kd"] == "L_pred + semantic + 0.5 spectral; reading teacher"
    assert methods["s2kd_plus"].endswith("; reading teacher; extra windows: blends")
    assert methods["fitnet_two_stage"].endswith("; text-free teacher; 5 epochs of hints first")


def test_check_runs_the_contract(verb):
    rows = json.loads(verb("check", "losses:spectral", "--json"))
    assert rows
    assert {row["result"] for row in rows} == {"ok"}
    assert "ok" in verb("check", "unet")


def test_check_says_when_an_outsiders_part_breaks_it(capsys, tmp_path, monkeypatch):
    """A loss that forgets its gradient: found, and the exit status says so."""
    from s2kd.training.losses import losses

    (tmp_path / "outsider.py").write_text(
        "from s2kd.training.losses import losses\n\n\n"
        '@losses.register("forgetful")\n'
        "def forgetful(student, teacher):\n"
        '    """A loss without a gradient."""\n'
        "    return (student.detach() - teacher).square().mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(SystemExit) as stopped:
            main(["check", "outsider:forgetful", "--json"])
    finally:
        losses._entries.pop("forgetful", None)
        sys.modules.pop("outsider", None)
    assert stopped.value.code == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["part"] for row in rows} == {"losses:forgetful"}
    assert any(row["result"] != "ok" for row in rows)


def test_reproduce_trains_a_figure_and_another_machine_goes_on_from_its_results(verb, tmp_path):
    """The stand-in for weather at a few cells; what differs from run to run is `--out` alone."""
    file = tmp_path / "data" / "ncep_air_sig995_6h_2013_2014.nc"
    file.parent.mkdir()
    days = np.datetime64("2013-01-01", "ns") + np.arange(730) * np.timedelta64(1, "D")
    frames = gridded.waves(frames=730, rows=8, columns=8).rename(t2m="air")
    gridded.write(frames.assign_coords(time=days), file)
    ask = (
        *("reproduce", "fig3", "--data", file.parent, "--on", "ncep_air", "--seeds", "42"),
        *("--results", tmp_path / "results", "--json"),
        *SMALL,
        *settings("stride=40", "test_stride=20"),
    )
    out = tmp_path / "out"
    plan = json.loads(verb(*ask, "--out", out, "--plan"))["trainings"]
    assert len(plan) == 4
    assert not any(job["done"] for job in plan)
    assert not out.exists()
    (table,) = json.loads(verb(*ask, "--out", out))["fig3"]
    assert [line[0] for line in table["lines"]] == ["+ spectral", "+ semantic", "S²-KD"]
    plan = json.loads(verb(*ask, "--out", tmp_path / "elsewhere", "--plan"))["trainings"]
    assert all(job["done"] for job in plan)
    page = tmp_path / "docs" / "results.md"
    said = verb("reproduce", "--results", tmp_path / "results", "--page", page)
    assert said.strip() == str(page)
    assert "| loss | ncep_air |" in page.read_text()
