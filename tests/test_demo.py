"""The demo: the shipped heavy forecasters, and the whole way on tiny settings."""

import json

import numpy as np
import pytest
import xarray as xr

from s2kd import pipeline
from s2kd.cli import main
from s2kd.core.recipe import Recipe
from s2kd.core.saved import load_metadata
from s2kd.models.checkpoint import load_student
from s2kd.pipeline import demo as demos
from s2kd.pipeline.recipes import demo as recipes
from s2kd.training.labels import Labels

WORLDS = {
    "atmosphere": ("dataset.params.days=12", "dataset.params.spin_up_days=2"),
    "plume": ("dataset.params.frames=16", "dataset.params.spin_up_frames=8"),
}


def call(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert stopped.value.code in (0, None), output.err
    return output.out


@pytest.mark.parametrize("world", WORLDS)
def test_shipped_forecaster_is_the_one_that_its_recipe_makes(world):
    folder = recipes.shipped_teacher(world)
    metadata = load_metadata(folder)  # refused where altered
    load_student(folder)  # refused where the weights are others
    made_by, now = Recipe.from_dict(metadata["recipe"]), recipes.heavy(world)
    assert made_by.dataset == now.dataset
    assert made_by.students == now.students
    assert made_by.student_training == now.student_training
    card = (folder / "README.md").read_text("utf-8")
    assert metadata["weights"] in card
    assert f"torch {metadata['versions']['torch']}" in card
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2e6


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_demo_ends_with_table_report_onnx_and_forecast(world, tmp_path, capsys):
    changes = (*WORLDS[world], "student_training.epochs=1", "test_stride=2")
    out = tmp_path / "demo"
    settings = [word for change in changes for word in ("--set", change)]
    printed = call(capsys, "demo", "--world", world, "--out", out, *settings)
    assert printed.count("▸ U-Net") == 1
    assert (out / "report.html").stat().st_size > 1e5
    assert len(list(out.glob("students/*/export/model.onnx"))) == 1
    assert not (out / "teachers").exists()
    assert not (out / "states").exists(), "no text encoder"

    labels = Labels.open(out / recipes.CAPTURE)
    metadata = load_metadata(recipes.shipped_teacher(world))
    assert labels.latent_width == 4 * metadata["part"]["params"]["width"]
    scores = pipeline.read_scores(out)["test"]
    mse = dict(zip(scores["method"].values, scores["mse"].values, strict=True))
    assert {"baseline", "s2kd", "s2kd_plus_capture"} < set(mse)
    assert mse[pipeline.TEACHER_METHODS["given"]] < 0.5 * mse["persistence"]

    forecast = xr.load_dataset(out / demos.FORECAST)
    latest = xr.load_dataset(out / demos.LATEST)
    for name in latest.data_vars:
        assert forecast[name].sizes["lead_time"] == 4
        assert np.isfinite(forecast[name]).all()


def test_retraining_is_bit_for_bit(tmp_path, capsys):
    changes = ("student_training.epochs=1", "dataset.params.members=3", "dataset.params.frames=30")
    settings = [word for change in changes for word in ("--set", change)]
    words = ("demo", "--world", "plume", "--retrain-teacher", "--json", *settings)
    results = [json.loads(call(capsys, *words, "--out", tmp_path / name)) for name in ("a", "b")]
    first, second = ((tmp_path / n / "teacher/model.safetensors").read_bytes() for n in ("a", "b"))
    assert first == second
    assert not results[0]["same_as_shipped"]
