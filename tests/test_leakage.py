"""No test frame, no future and no word reaches what must not see it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import road

from s2kd import stages
from s2kd.climatology import Climatology
from s2kd.dataset import Dataset
from s2kd.forecaster import Forecaster
from s2kd.narrators import narrators
from s2kd.normalise import statistics
from s2kd.recipes import FITNET, s2kd
from s2kd.windows import Windows

RECIPE = dataclasses.replace(road.tiny(), methods=(FITNET, s2kd()))


def scrambled(dataset: Dataset, splits: tuple[str, ...]) -> Dataset:
    """The same with other values in every frame that none of the other splits holds."""
    frames = dataset.frames.copy()
    kept = np.zeros(len(frames), dtype=bool)
    for name, stretches in dataset.splits.items():
        for stretch in stretches if name not in splits else ():
            kept[stretch.first : stretch.stop] = True
    noise = np.random.default_rng(9).normal(50, 20, frames.shape).astype(np.float32)
    frames[~kept] = noise[~kept]
    assert (~kept).any()
    assert kept.any()
    return dataclasses.replace(dataset, frames=frames)


def walk(out, splits):
    """The road on the tiny recipe, its dataset's `splits` scrambled."""
    run = stages.open_run(RECIPE, out)
    run.__dict__["dataset"] = scrambled(run.dataset, splits)
    stages.run_all(run)
    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    run = stages.open_run(RECIPE, out)
    stages.run_all(run)
    return run


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The test split is noise."""
    return walk(tmp_path_factory.mktemp("other") / "run", ("test",))


def test_the_test_split_changes_no_weight(plain, other):
    assert road.weights(other.out) == road.weights(plain.out)
    assert road.content(other.out, "*/*/log.jsonl") == road.content(plain.out, "*/*/log.jsonl")


def test_the_test_split_changes_the_scores(plain, other):
    """The premise: it really was other data."""
    one, two = (json.loads((run.out / "scores.json").read_text()) for run in (plain, other))
    assert all(a["metrics"]["mse"] != b["metrics"]["mse"] for a, b in zip(one, two, strict=True))


def test_the_test_split_changes_no_target(plain, other):
    for name in ("latent.npy", "forecast.npy"):
        for kind in ("text", "blind"):
            one, two = (run.out / f"targets/{kind}-seed42" / name for run in (plain, other))
            assert one.read_bytes() == two.read_bytes()


def _words(run, split):
    windows = run.windows(split)
    told = {
        json.loads(line)["window"]: json.loads(line)["text"]
        for line in (run.out / "narratives.jsonl").read_text().splitlines()
    }
    return [told[windows.past_of(i, run.known).digest] for i in range(len(windows))]


def test_the_test_split_changes_no_narrative_of_the_others(plain, other):
    for split in ("train", "val"):
        assert _words(plain, split) == _words(other, split)
    assert _words(plain, "test") != _words(other, "test"), "the premise"


def test_validation_and_test_change_no_statistic(plain):
    strange = scrambled(plain.dataset, ("val", "test"))
    assert statistics(strange, lead=RECIPE.lead) == plain.known
    assert statistics(scrambled(plain.dataset, ("train",)), lead=RECIPE.lead) != plain.known


def test_validation_and_test_change_no_climatology(plain):
    number = np.arange(4)
    windows = plain.windows("test")
    expected = Climatology.fit(plain.dataset)
    found = Climatology.fit(scrambled(plain.dataset, ("val", "test")))
    times = plain.dataset.times[windows.starts[number]]
    np.testing.assert_array_equal(found.at(times), expected.at(times))


@pytest.mark.parametrize("name", ["rules"])
def test_no_future_frame_changes_a_narrative(plain, name):
    """Every window told twice, the second time with other frames after its past."""
    narrator, dataset = narrators.build(name), plain.dataset
    windows = plain.windows("train")
    for number in range(0, len(windows), 5):
        frames = dataset.frames.copy()
        start = int(windows.starts[number])
        frames[start + RECIPE.past :] = 99
        blind = Windows(
            dataclasses.replace(dataset, frames=frames), "train", past=RECIPE.past, lead=RECIPE.lead
        )
        pasts = [each.past_of(number, plain.known) for each in (windows, blind)]
        assert pasts[0].digest == pasts[1].digest
        assert narrator.narrate([pasts[0]]) == narrator.narrate([pasts[1]])


def test_a_student_forecasts_without_words(plain, tmp_path):
    out = road.copy_of(plain.out, tmp_path / "run")
    past = plain.windows("test").gather(_first(6)).past.numpy()
    before = Forecaster.load(out, student="unet-s2kd-seed42").predict(past)
    (out / "narratives.jsonl").unlink()
    for folder in ("states", "teachers", "targets"):
        shutil.rmtree(out / folder)
    after = Forecaster.load(out, student="unet-s2kd-seed42").predict(past)
    np.testing.assert_array_equal(after, before)


def _first(count):
    import torch

    return torch.arange(count)
