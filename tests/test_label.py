"""Labelling from Python and from the command line, and what is said of the store."""

import json

import numpy as np
import pytest
import xarray as xr
from gridded import waves, write

import s2kd
from s2kd.cli import main
from s2kd.core.recipe import Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import load
from s2kd.data.describe import describe
from s2kd.pipeline import recipes
from s2kd.pipeline.labelling import windows_of
from s2kd.training.labels import Labels

HEAVY = """
def rise(past):
    return past[:, -1:].repeat(1, 2, 1, 1, 1) + 1, past.mean(1)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a file of frames and a module with a teacher."""
    write(waves(frames=60), tmp_path / "latest.nc")
    (tmp_path / "heavy_label.py").write_text(HEAVY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(*words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


LABEL = ("label", "heavy_label:rise", "latest.nc", "--out", "labels.zarr", "--past", "3")


def test_the_verb_labels_every_window_and_describe_says_so(folder, capsys):
    assert status(*LABEL, "--lead", "2", "--latents", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    frames = waves(frames=60).t2m.values
    recipe = recipes.for_description(describe("latest.nc"))
    labels, data = Labels.open("labels.zarr"), load(recipe.dataset, recipe.split)
    stretches = [stretch for part in data.splits.values() for stretch in part]
    assert facts["windows"] == sum(s.stop - s.first - 2 for s in stretches)
    last = np.searchsorted(waves(frames=60).time.values, labels.times)
    index = np.arange(len(labels))
    np.testing.assert_array_equal(labels.inputs(index)[:, -1, 0], frames[last])
    np.testing.assert_allclose(labels.forecasts(index)[:, 1, 0], frames[last] + 1, rtol=1e-6)
    np.testing.assert_allclose(
        labels.latents(index)[:, 0], labels.inputs(index)[:, :, 0].mean(1), rtol=1e-6
    )
    taken = np.concatenate([frames[s.first : s.stop] for s in stretches])
    (channel,) = facts["channels"]
    assert channel["inputs"] == [taken.min(), taken.max()]
    assert (channel["name"], channel["units"]) == ("t2m", "K")
    assert status("data", "describe", "labels.zarr", "--json") == 0
    assert json.loads(capsys.readouterr().out) == facts
    assert status("data", "describe", "labels.zarr") == 0
    text = capsys.readouterr().out
    for words in ("label store", "heavy_label:rise", "t2m", "latent: 1", "2020-01-01T12:00:00"):
        assert words in text


def test_python_and_the_command_line_agree_and_no_other_labels_are_mixed(folder, capsys):
    assert status(*LABEL, "--lead", "2", "--stride", "5", "--split", "test") == 0
    by_name = Labels.open("labels.zarr")
    with xr.open_dataset("latest.nc") as data:
        by_object = s2kd.label(
            "heavy_label:rise", data, out="again.zarr", past=3, lead=2, stride=5, splits=["test"]
        )
    assert by_object.digest == by_name.digest
    assert status(*LABEL, "--lead", "2", "--stride", "5", "--split", "train") == 2
    assert "holds other labels (they differ in data, windows)" in capsys.readouterr().err

    def other(past):
        return past[:, :2]

    with pytest.raises(S2KDError, match=r"again.zarr: holds other labels \(they differ in teacher"):
        s2kd.label(other, "latest.nc", out="again.zarr", past=3, lead=2, stride=5, splits=["test"])
    assert Labels.open("again.zarr").digest == by_object.digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "tset"], "--split tset: latest has no such split (there are all, train"),
        (["--out", "labels.nc"], "a label store is a folder that ends in .zarr"),
        (["--out", "latest.nc/x.zarr"], "would overwrite, lie in or hold"),
        (["--accelerator", "abacus"], "--accelerator abacus --devices 1"),
        (["--lead", "3"], "gives (2, 2, 1, 12, 16) for 2 windows of 3 past frames"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(folder, capsys, words, message):
    assert status(*LABEL, "--lead", "2", *words) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == [
        "heavy_label.py", "latest.nc",
    ]  # fmt: skip


def test_a_label_store_is_no_data_to_train_on(folder, capsys):
    assert status(*LABEL, "--lead", "2", "--split", "test") == 0
    assert status("run", "labels.zarr", "--out", "runs") == 2
    assert "is a label store" in capsys.readouterr().err
    settings = ("--set", "stored.path=labels.zarr", "--set", 'methods=["s2kd_stored"]')
    assert status("run", "latest.nc", "--out", "runs", *settings) == 2
    assert "names none; label again with --latents" in capsys.readouterr().err


def test_windows_cross_no_edge_of_a_split_and_need_no_future():
    data = load(Part(name="blobs", params={"size": 8, "runs": 5, "length": 16}), Split())
    windows = windows_of(data, ["val", "train"], past=3, lead=9, stride=1, device="cpu")
    stretches = [*data.splits["train"], *data.splits["val"]]
    expected = [n for s in stretches for n in range(s.first, s.stop - 2)]
    assert windows.starts.tolist() == sorted(expected)
    assert set(windows.groups) == {s.name for s in stretches}
