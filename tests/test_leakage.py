"""No test frame, no future and no word reaches what must not see it."""

import dataclasses
import io
import json
import shutil

import hypothesis
import numpy as np
import pytest
import road
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console

from s2kd import pipeline
from s2kd.core.types import GridSpec, Past
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.deploy.forecaster import Forecaster
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.summary import summary_table
from s2kd.narration.narrators import narrators
from s2kd.narration.prompts import prompt
from s2kd.narration.sheet import Sheets
from s2kd.pipeline.recipes import FITNET, s2kd
from s2kd.pipeline.verify import verify_run

RECIPE = structs.replace(road.tiny(), methods=(FITNET, s2kd()))
"""Of the run on other data: with a student of each teacher."""


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


@pytest.fixture(scope="module")
def plain(done):
    """The finished run of every method."""
    return pipeline.open_run(road.tiny(), done)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The test split is noise."""
    run = pipeline.open_run(RECIPE, tmp_path_factory.mktemp("other") / "run")
    run.__dict__["dataset"] = scrambled(run.dataset, ("test",))
    pipeline.run_all(run, until="evaluate")
    return run


@pytest.mark.parametrize("pattern", ["*/*/model.safetensors", "*/*/log.jsonl"])
def test_the_test_split_changes_no_weight(plain, other, pattern):
    trained = road.content(other.out, pattern)
    assert len(trained) == 4
    assert trained.items() <= road.content(plain.out, pattern).items()


def test_the_test_split_changes_the_scores(plain, other):
    """The premise: it really was other data."""
    one, two = (
        {row["method"]: row["mse"] for row in json.loads((run.out / "scores.json").read_text())}
        for run in (plain, other)
    )
    assert all(one[method] != mse for method, mse in two.items())


def test_the_test_split_changes_no_target(plain, other):
    for name in ("latent.npy", "forecast.npy"):
        for kind in ("text", "no_text"):
            one, two = (run.out / f"targets/{kind}-seed42" / name for run in (plain, other))
            assert one.read_bytes() == two.read_bytes()


def _words(run, split):
    windows = run.windows(split)
    told = {
        json.loads(line)["window"]: json.loads(line)["text"]
        for line in (run.out / "narratives.jsonl").read_text().splitlines()
    }
    return [told[windows.past_of(i, run.train_stats).digest] for i in range(len(windows))]


def test_the_test_split_changes_no_narrative_of_the_others(plain, other):
    for split in ("train", "val"):
        assert _words(plain, split) == _words(other, split)
    assert _words(plain, "test") != _words(other, "test"), "the premise"


def test_validation_and_test_change_no_statistic(plain):
    strange = scrambled(plain.dataset, ("val", "test"))
    assert statistics(strange, lead=RECIPE.lead) == plain.train_stats
    assert statistics(scrambled(plain.dataset, ("train",)), lead=RECIPE.lead) != plain.train_stats


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
        blind = WindowDataset(
            dataclasses.replace(dataset, frames=frames), "train", past=RECIPE.past, lead=RECIPE.lead
        )
        pasts = [each.past_of(number, plain.train_stats) for each in (windows, blind)]
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


# what a narrator is handed: nothing of the future, the date, the place or the file


def test_a_past_has_no_field_that_could_tell():
    """A new field has to be thought about here: it must be known when a forecast is made."""
    named = {field.name for field in dataclasses.fields(Past)}
    assert named == {
        "frames", "grid", "domain", "statistics", "season", "part_of_day", "context"
    }  # fmt: skip


def _world(frames, times, name, *, south):
    """A weather grid of one hemisphere whose times are local: season and part of day are known."""
    latitude = tuple((np.linspace(-20, -60, 6) if south else np.linspace(60, 20, 6)).tolist())
    grid = GridSpec(
        channels=("t850", "z500"),
        units=("K", "m"),
        height=6,
        width=8,
        step_seconds=21600.0,
        latitude=latitude,
        longitude=tuple(np.arange(8.0).tolist()),
    )
    return Dataset(
        name=name,
        domain="weather",
        grid=grid,
        frames=frames,
        times=times,
        splits={
            split: (Stretch(first=12 * i, stop=12 * i + 12, name=f"{name}-{i}"),)
            for i, split in enumerate(("train", "val", "test"))
        },
        local_time=True,
    )


FRAMES = np.random.default_rng(4).standard_normal((36, 2, 6, 8)).astype("f4")
TIMES = np.datetime64("1999-01-05", "ns") + np.arange(36) * np.timedelta64(6, "h")
FOUR_YEARS = np.timedelta64(1461 * 24, "h")


def _seen_by_narrators(past):
    """What rules say, and all that a multimodal model is shown: words and picture."""
    said = narrators.build("rules").narrate([past])
    return said, prompt(past), Sheets(size=96, labels=False)(past).tobytes(), past.digest


@given(
    seed=st.integers(0, 2**32 - 1),
    eras=st.integers(-20, 25),
    name=st.text(min_size=1, max_size=20),
    number=st.integers(0, 6),
    south=st.booleans(),
    scale=st.sampled_from([1.0, 1e3, np.nan]),
)
@hypothesis.settings(max_examples=12)
def test_future_date_and_name_change_nothing_that_is_said(seed, eras, name, number, south, scale):
    """Every frame after the past, the era and all names scrambled: words and pictures stay."""
    plain = _world(FRAMES, TIMES, "plain", south=south)
    known = statistics(plain)
    windows = WindowDataset(plain, "train", past=4, lead=2)
    last = int(windows.starts[number]) + 4
    frames = FRAMES.copy()
    noise = np.random.default_rng(seed).standard_normal(frames[last:].shape)
    frames[last:] = (scale * noise).astype("f4")
    other = _world(frames, TIMES + eras * FOUR_YEARS, name, south=south)
    past = WindowDataset(other, "train", past=4, lead=2).past_of(number, known)
    assert _seen_by_narrators(past) == _seen_by_narrators(windows.past_of(number, known))


@given(years=st.integers(1700, 2200), path=st.text(max_size=12))
@hypothesis.settings(max_examples=10)
def test_a_date_or_path_in_a_name_is_not_shown_to_a_model(years, path):
    """Channels named after a year and a file; the picture's words come from the same labels."""
    plain = _world(FRAMES, TIMES, "plain", south=False)
    names = (f"t850_{years}", f"/data/{path}/{years}-07.nc")
    grid = dataclasses.replace(plain.grid, channels=names)
    past = WindowDataset(plain, "train", past=4, lead=2).past_of(0, statistics(plain))
    shown = prompt(dataclasses.replace(past, grid=grid))
    assert str(years) not in shown
    assert ".nc" not in shown


def test_another_past_changes_what_is_said():
    """The premise of the two tests above."""
    plain = _world(FRAMES, TIMES, "plain", south=False)
    known, windows = statistics(plain), WindowDataset(plain, "train", past=4, lead=2)
    one, two = (_seen_by_narrators(windows.past_of(number, known)) for number in (0, 5))
    assert one[0] != two[0]
    assert one[2] != two[2]
    summer = _world(FRAMES, TIMES + np.timedelta64(180 * 24, "h"), "plain", south=False)
    later = WindowDataset(summer, "train", past=4, lead=2).past_of(0, known)
    assert _seen_by_narrators(later)[1] != one[1]


def test_a_narrator_that_read_the_future_is_marked_wherever_scores_are_shown(plain, tmp_path):
    """From the line of the store to the table on screen and the page."""
    run = pipeline.open_run(road.tiny(), road.copy_of(plain.out, tmp_path / "run"))
    store, told = run.out / "narratives.jsonl", tmp_path / "told.jsonl"
    lines = [json.loads(line) for line in store.read_text().splitlines()]
    told.write_text("".join(json.dumps({**line, "reads_future": True}) + "\n" for line in lines))
    assert narrators.build("recorded", path=told).reads_future
    before = pipeline.read_scores(plain.out)["test"]
    assert not before["reads_future"].any()
    run.__dict__["narrator"] = narrators.build("recorded", path=told)
    pipeline.evaluate(run)
    scores = pipeline.read_scores(run.out)["test"]
    models = zip(*(scores[n].values for n in ("role", "method", "reads_future")), strict=True)
    marked = {(role, method): future for role, method, future in models}
    assert marked["teacher", "teacher"]
    assert marked["student", "s2kd"]
    assert not marked["student", "fitnet"], "its teacher read no words"
    assert not any(future for (role, _), future in marked.items() if role == "reference")
    screen = io.StringIO()
    Console(file=screen, width=200).print(summary_table(scores))
    assert screen.getvalue().count("(and the future)") == 2
    assert "(and the future)" not in summary_table(before).markdown()
    assert [row["reads_future"] for row in verify_run(run)] == [True] * 3
    pipeline.report(run)
    assert "(and the future)" in (run.out / "report.html").read_text()
