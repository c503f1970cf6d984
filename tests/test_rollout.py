"""Roll-outs by hand: what is fed back, what is skipped, what counts as a blow-up."""

import json
import math

import numpy as np
import pytest
import road
import torch

from s2kd import pipeline
from s2kd.core import spectral
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.deploy.forecaster import Forecaster
from s2kd.evaluation import scoring
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.report import write_report
from s2kd.evaluation.rollout import climatology_step, long_windows, persistence_step, roll_out
from s2kd.models.forecasters import Student
from s2kd.models.normaliser import Normaliser

PAST, LEAD = 3, 2


def world(*, mask=None, domain="weather", seed=0):
    """Two channels of drifting noise, 6-hourly; the test split has a long and a short stretch."""
    generator = np.random.default_rng(seed)
    frames = generator.normal(size=(300, 2, 6, 8))
    for t in range(1, 300):
        frames[t] = 0.9 * np.roll(frames[t - 1], 1, -1) + 0.3 * frames[t]
    grid = GridSpec(
        channels=("t", "z"),
        units=("K", "m"),
        height=6,
        width=8,
        step_seconds=21_600.0,
        latitude=tuple(np.linspace(60, 35, 6).tolist()),
        longitude=tuple(np.linspace(0, 30, 8).tolist()),
        mask=mask,
    )
    return Dataset(
        name="made",
        domain=domain,
        grid=grid,
        frames=(frames * np.array([2.0, 50.0])[:, None, None] + 10).astype(np.float32),
        times=np.datetime64("2013-01-01", "ns") + np.arange(300) * np.timedelta64(6, "h"),
        splits={
            "train": (Stretch(first=0, stop=200),),
            "val": (Stretch(first=200, stop=220),),
            "test": (Stretch(first=220, stop=270), Stretch(first=280, stop=290)),
        },
        local_time=True,
        context=tuple(("rain",) for _ in range(300)),
    )


@pytest.fixture(scope="module")
def made():
    return world()


def rolled(made, step, *, horizon=4, stride=1, **options):
    windows = WindowDataset(made, "test", past=PAST, lead=LEAD, stride=stride)
    found = roll_out(
        step,
        windows,
        horizon=horizon,
        statistics=statistics(made),
        climatology=Climatology.fit(made),
        **options,
    )
    return windows, json.loads(json.dumps(found, allow_nan=False))


def still(past, window, block):
    return past[:, -1:].expand(-1, LEAD, -1, -1, -1)


def test_scoring_gives_it_by_its_name():
    assert scoring.roll_out is roll_out


def test_only_its_own_frames_are_fed_back(made):
    """A forecaster that adds 1 a step; every past it is handed is checked."""
    handed = []

    def count(past, window, block):
        handed.append((past.clone(), window.index.clone(), block, window.future))
        return past[:, -1:] + torch.arange(1.0, LEAD + 1)[None, :, None, None, None]

    windows, found = rolled(made, count, batch_size=1000)
    assert [block for _, _, block, _ in handed] == [0, 1, 2, 3]
    first, numbers = handed[0][0], handed[0][1]
    starts = windows.starts[numbers.numpy()]
    truth = np.stack([made.frames[s : s + PAST] for s in starts])
    np.testing.assert_array_equal(first.numpy(), truth)
    for block, (past, index, _, future) in enumerate(handed):
        assert torch.equal(index, numbers)
        assert future.isnan().all(), "the frames to come are out of reach"
        done = block * LEAD
        if block >= 2:  # nothing but forecasts by now
            want = first[:, -1:] + torch.arange(done - PAST + 1.0, done + 1)[:, None, None, None]
            torch.testing.assert_close(past, want)
    # the error of each step by plain loops
    scale = np.array(statistics(made).std)
    for step in range(4 * LEAD):
        errors = [
            ((made.frames[s + PAST - 1] + step + 1 - made.frames[s + PAST + step]) ** 2).mean(
                (1, 2)
            )
            / scale**2
            for s in starts
        ]
        assert found["mse"][step] == pytest.approx(np.mean(errors), rel=1e-4)
    assert found["steps"] == 8


def test_windows_that_do_not_fit_are_skipped_and_counted(made):
    _, found = rolled(made, still)
    # 50 frames hold 40 windows of 11, 10 hold none; of 5 frames: 46 and 6
    assert (found["windows"], found["skipped"]) == (40, 12)
    windows, found = rolled(made, still, stride=3)
    assert found["windows"] == len(np.arange(220, 260, 3))
    assert found["windows"] + found["skipped"] == len(windows)
    _, none = rolled(made, still, horizon=40)
    assert (none["windows"], none["skipped"], none["stable"]) == (0, 52, None)
    assert none["note"] == "no stretch of the split has 83 frames in a row"
    with pytest.raises(S2KDError, match="horizon must be at least 2"):
        rolled(made, still, horizon=1)


def test_the_references_are_persistence_and_climatology(made):
    windows, by_persistence = rolled(made, persistence_step(LEAD), batch_size=7)
    assert by_persistence["mse"] == pytest.approx(by_persistence["persistence_mse"], rel=1e-5)
    assert by_persistence["ahead_of_persistence"] == 0
    usual = Climatology.fit(made)
    _, by_climatology = rolled(made, climatology_step(usual, windows, horizon=4), batch_size=7)
    assert by_climatology["mse"] == pytest.approx(by_climatology["climatology_mse"], rel=1e-5)
    assert by_climatology["stable"]
    assert by_climatology["largest_ratio"] < 2
    long = long_windows(windows, horizon=4)
    squares = []
    for start in long.starts:
        times = made.times[start + PAST : start + PAST + 8]
        error = usual.at(times) - made.frames[start + PAST : start + PAST + 8]
        squares.append(np.square(error).mean((2, 3)) / np.square(statistics(made).std))
    want = np.mean(squares, axis=(0, 2))
    assert by_climatology["climatology_mse"] == pytest.approx(want, rel=1e-4)
    assert by_climatology["climatology_variance"] == pytest.approx(want.mean(), rel=1e-4)


def test_how_long_it_stays_ahead(made):
    """The truth for five steps, then nonsense."""
    long = long_windows(WindowDataset(made, "test", past=PAST, lead=LEAD), horizon=4)

    def oracle(past, window, block):
        starts = WindowDataset(made, "test", past=PAST, lead=LEAD).starts[window.index.numpy()]
        frames = np.stack([made.frames[s + PAST : s + PAST + 8] for s in starts])
        frames[:, 5:] += 1e3
        return torch.from_numpy(frames)

    _, found = rolled(made, oracle)
    assert found["ahead_of_persistence"] == found["ahead_of_climatology"] == 5
    assert found["mse"][:5] == [0] * 5
    assert found["beyond_limit"] == len(long)
    assert not found["stable"]
    assert found["finite"]
    last = np.mean(found["window_mse"])
    assert last == pytest.approx(np.mean(found["mse"][-LEAD:]), rel=1e-4)


def test_a_blow_up_is_told_apart_from_lost_skill(made):
    def shuffled(past, window, block):
        """Real weather of another day: no skill, but nothing wrong with it."""
        days = np.random.default_rng(int(window.index[0]) + block).integers(0, 190, len(past))
        return torch.from_numpy(np.stack([made.frames[d : d + LEAD] for d in days]))

    _, lost = rolled(made, shuffled)
    assert lost["stable"]
    assert 1.5 < lost["largest_ratio"] < 3

    def doubling(past, window, block):
        return 2.0 * still(past, window, block)

    _, blown = rolled(made, doubling)
    assert (blown["stable"], blown["finite"]) == (False, True)
    assert blown["beyond_limit"] == blown["windows"]

    def overflowing(past, window, block):
        future = still(past, window, block).clone()
        if block == 2:
            future[window.index == 5] = math.inf
        return future

    _, ended = rolled(made, overflowing)
    assert (ended["stable"], ended["finite"]) == (False, False)
    assert ended["mse"][3] is not None
    assert ended["mse"][4:] == [None] * 4
    assert ended["window_mse"].count(None) == 1
    assert ended["beyond_limit"] >= 1
    assert ended["largest_ratio"] is None


def test_spectra_at_the_end_of_each_block(made):
    def smoothing(past, window, block):
        return still(past, window, block).mean((-2, -1), keepdim=True) + 0.5 * still(
            past, window, block
        )

    windows, found = rolled(made, smoothing, batch_size=9)
    long = long_windows(windows, horizon=4)
    truth = long.gather(torch.arange(len(long))).future
    power = spectral.radial_power_spectrum(truth, periodic=(False, False)).mean(0)
    for c, channel in enumerate(made.grid.channels):
        spectra = found["spectra"][channel]
        assert spectra["lead"] == [2, 4, 6, 8]
        for block, lead in enumerate(spectra["lead"]):
            want = power[lead - 1, c].tolist()
            assert spectra["truth"][block][1:] == pytest.approx(want[1:], rel=1e-3)
        # a quarter of the energy is left after every block
        ratios = spectra["high_frequency_ratio"]
        assert ratios == pytest.approx([ratios[0] * 0.25**n for n in range(4)], rel=0.25)


def test_cells_that_do_not_exist_keep_what_stood_for_them():
    mask = np.ones((6, 8), bool)
    mask[1, 2] = False
    made, handed = world(mask=tuple(map(tuple, mask.tolist()))), []

    def nonsense_there(past, window, block):
        handed.append(past)
        future = still(past, window, block).clone()
        future[..., 1, 2] = math.nan
        return future

    _, found = rolled(made, nonsense_there, batch_size=1000)
    assert found["finite"]
    for past in handed[2:]:
        torch.testing.assert_close(past[..., 1, 2], handed[0][:, -1:, :, 1, 2].expand(-1, PAST, -1))


class Drifts(torch.nn.Module):
    """One column to the east a step: what stands in a masked cell comes out beside it."""

    latent_width, latent_grid = 2, (6, 8)

    def encode(self, past):
        return past[:, -1], ()

    def decode(self, latent, carry):
        return torch.stack([latent.roll(k, -1) for k in range(1, LEAD + 1)], 1)


def test_what_is_forecast_is_what_is_scored_where_cells_are_missing():
    mask = np.ones((6, 8), bool)
    mask[1:4, 2] = mask[5, 6] = False
    made = world(mask=tuple(map(tuple, mask.tolist())))
    drifts = Student(Drifts(), Normaliser(torch.zeros(2), torch.ones(2)))
    windows, found = rolled(made, lambda past, window, block: drifts(past).future)
    card = {"grid": made.grid.to_dict(), "past": PAST, "lead": LEAD}
    whole = long_windows(windows, horizon=4)
    window = whole.gather(torch.arange(len(whole)))
    said = Forecaster(drifts, card).predict(window.past.numpy(), steps=4 * LEAD)
    error = (said - window.future.numpy()) / np.array(statistics(made).std)[:, None, None]
    want = np.square(error)[..., mask].mean((0, 2, 3))
    assert found["mse"] == pytest.approx(want.tolist(), rel=1e-4)


# --- the stage -----------------------------------------------------------------------------------


def test_evaluating_with_a_horizon_adds_it_to_every_row(mine):
    run = pipeline.open_run(road.tiny(), mine)
    before = {row["key"]: row for row in json.loads((mine / "scores.json").read_text())}
    told = []
    run.progress = lambda stage: lambda done, total, word="": told.append(stage)
    rows = pipeline.evaluate(run, horizon=2)
    assert not any(stage.startswith("score") for stage in told), "scores stay as they are"
    assert json.loads((mine / "scores.json").read_text()) == rows
    for row in rows:
        if row["role"] == "teacher" and row["narrator"] != "none":
            assert "long_horizon" not in row, "there are no narratives of its own forecasts"
            continue
        found = row["long_horizon"]
        old = {k: v for k, v in row.items() if k != "long_horizon"}
        assert old == before[row["key"]]
        assert (found["horizon"], found["steps"], len(found["mse"])) == (2, 4, 4)
        assert found["windows"] + found["skipped"] == row["scores"]["conventions"]["windows"]
        # its first block is what was scored, on the windows that fit
        assert found["mse"][0] < 2 * row["metrics"]["mse"]
    page = mine / "page" / "report.html"
    write_report(page, rows=rows)
    assert "<th>Ahead of persistence</th>" in page.read_text()
    assert (mine / "page/figures/test-horizon-unet.png").exists()
    told.clear()
    assert pipeline.evaluate(run, horizon=2) == rows
    assert pipeline.evaluate(pipeline.open_run(road.tiny(), mine)) == rows, (
        "kept where not asked for"
    )
    assert told == []


def test_a_horizon_of_one_is_no_roll_out(mine):
    with pytest.raises(S2KDError, match="--horizon 1: wants at least 2 lead times"):
        pipeline.evaluate(pipeline.open_run(road.tiny(), mine), horizon=1)


def test_a_student_rolls_out_as_the_forecaster_does(mine):
    """The same frames as `Forecaster.predict(steps=…)`, scored by hand."""
    run = pipeline.open_run(road.tiny(), mine)
    windows = run.windows("test")
    forecaster = Forecaster.load(mine, student="unet-s2kd-seed42")
    long = long_windows(windows, horizon=3)
    whole = long.gather(torch.arange(len(long)))
    said = forecaster.predict(whole.past.numpy(), steps=3 * windows.lead)
    error = (said - whole.future.numpy()) / np.array(run.train_stats.std)[:, None, None]
    rows = pipeline.evaluate(run, horizon=3)
    (row,) = [r for r in rows if r["method"] == "s2kd"]
    want = np.square(error).mean((0, 2, 3, 4))
    assert row["long_horizon"]["mse"] == pytest.approx(want.tolist(), rel=1e-3)
