"""Roll-outs by hand: what is fed back, what is skipped, what counts as a blow-up."""

import math

import numpy as np
import pytest
import road
import torch

from s2kd import pipeline
from s2kd.core.errors import S2KDError
from s2kd.core.types import GridSpec
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.deploy.forecaster import Forecaster
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.report import write_report
from s2kd.evaluation.results import select
from s2kd.evaluation.rollout import long_windows, roll_out
from s2kd.evaluation.score import climatology_forecast, persistence
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
def data():
    return world()


def rolled(data, step, *, horizon=4, stride=1, **options):
    windows = WindowDataset(data, "test", past=PAST, lead=LEAD, stride=stride)
    rolled_out = roll_out(
        step,
        windows,
        horizon=horizon,
        statistics=statistics(data),
        climatology=Climatology.fit(data),
        **options,
    )
    return windows, rolled_out


def still(past, batch):
    return past[:, -1:].expand(-1, LEAD, -1, -1, -1)


def test_only_its_own_frames_are_fed_back(data):
    """A forecaster that adds 1 a step; every past it is handed is checked."""
    handed = []

    def count(past, batch):
        handed.append((past.clone(), batch.index.clone(), batch.future))
        return past[:, -1:] + torch.arange(1.0, LEAD + 1)[None, :, None, None, None]

    windows, rolled_out = rolled(data, count, batch_size=1000)
    assert len(handed) == 4
    first, numbers = handed[0][0], handed[0][1]
    starts = windows.starts[numbers.numpy()]
    truth = np.stack([data.frames[s : s + PAST] for s in starts])
    np.testing.assert_array_equal(first.numpy(), truth)
    for block, (past, index, future) in enumerate(handed):
        assert torch.equal(index, numbers)
        assert future.isnan().all(), "the frames to come are out of reach"
        done = block * LEAD
        if block >= 2:  # nothing but forecasts by now
            want = first[:, -1:] + torch.arange(done - PAST + 1.0, done + 1)[:, None, None, None]
            torch.testing.assert_close(past, want)
    # the error of each step by plain loops
    scale = np.array(statistics(data).std)
    for step in range(4 * LEAD):
        errors = [
            ((data.frames[s + PAST - 1] + step + 1 - data.frames[s + PAST + step]) ** 2).mean(
                (1, 2)
            )
            / scale**2
            for s in starts
        ]
        assert rolled_out["rollout_mse"][step] == pytest.approx(np.mean(errors), rel=1e-4)
    assert rolled_out["step"].values.tolist() == list(range(1, 9))


def test_windows_that_do_not_fit_are_skipped_and_counted(data):
    _, rolled_out = rolled(data, still)
    # 50 frames hold 40 windows of 11, 10 hold none; of 5 frames: 46 and 6
    assert (rolled_out.attrs["rollout_windows"], rolled_out.attrs["rollout_skipped"]) == (40, 12)
    windows, rolled_out = rolled(data, still, stride=3)
    assert rolled_out.attrs["rollout_windows"] == len(np.arange(220, 260, 3))
    assert rolled_out.attrs["rollout_windows"] + rolled_out.attrs["rollout_skipped"] == len(windows)
    _, none = rolled(data, still, horizon=40)
    assert (none.attrs["rollout_windows"], none.attrs["rollout_skipped"]) == (0, 52)
    assert not none.data_vars
    with pytest.raises(S2KDError, match="horizon must be at least 2"):
        rolled(data, still, horizon=1)


def test_the_references_are_persistence_and_climatology(data):
    windows, by_persistence = rolled(data, persistence(LEAD), batch_size=7)
    assert by_persistence["rollout_mse"].values == pytest.approx(
        by_persistence["rollout_persistence_mse"].values, rel=1e-5
    )
    assert by_persistence["rollout_ahead_of_persistence"] == 0
    usual = Climatology.fit(data)
    _, by_climatology = rolled(data, climatology_forecast(usual, windows, horizon=4), batch_size=7)
    assert by_climatology["rollout_mse"].values == pytest.approx(
        by_climatology["rollout_climatology_mse"].values, rel=1e-5
    )
    assert by_climatology["rollout_stable"]
    assert by_climatology["rollout_largest_ratio"] < 2
    long = long_windows(windows, horizon=4)
    squares = []
    for start in long.starts:
        times = data.times[start + PAST : start + PAST + 8]
        error = usual.at(times) - data.frames[start + PAST : start + PAST + 8]
        squares.append(np.square(error).mean((2, 3)) / np.square(statistics(data).std))
    want = np.mean(squares, axis=(0, 2))
    assert by_climatology["rollout_climatology_mse"].values == pytest.approx(want, rel=1e-4)
    assert by_climatology["rollout_climatology_variance"] == pytest.approx(want.mean(), rel=1e-4)


def test_how_long_it_stays_ahead(data):
    """The truth for five steps, then nonsense."""
    long = long_windows(WindowDataset(data, "test", past=PAST, lead=LEAD), horizon=4)

    def oracle(past, batch):
        starts = WindowDataset(data, "test", past=PAST, lead=LEAD).starts[batch.index.numpy()]
        frames = np.stack([data.frames[s + PAST : s + PAST + 8] for s in starts])
        frames[:, 5:] += 1e3
        return torch.from_numpy(frames)

    _, rolled_out = rolled(data, oracle)
    assert (
        rolled_out["rollout_ahead_of_persistence"]
        == rolled_out["rollout_ahead_of_climatology"]
        == 5
    )
    assert not rolled_out["rollout_mse"][:5].any()
    assert rolled_out["rollout_beyond_limit"] == len(long)
    assert not rolled_out["rollout_stable"]
    assert rolled_out["rollout_finite"]


def test_a_blow_up_is_told_apart_from_lost_skill(data):
    def shuffled(past, batch):
        """Real weather of another day: no skill, but nothing wrong with it."""
        days = np.random.default_rng(int(batch.index[0]) + int(past.sum()) % 97).integers(
            0, 190, len(past)
        )
        return torch.from_numpy(np.stack([data.frames[d : d + LEAD] for d in days]))

    _, lost = rolled(data, shuffled)
    assert lost["rollout_stable"]
    assert 1.5 < lost["rollout_largest_ratio"] < 3

    def doubling(past, batch):
        return 2.0 * still(past, batch)

    _, blown = rolled(data, doubling)
    assert (blown["rollout_stable"], blown["rollout_finite"]) == (False, True)
    assert blown["rollout_beyond_limit"] == blown.attrs["rollout_windows"]

    blocks = []

    def overflowing(past, batch):
        future = still(past, batch).clone()
        blocks.append(len(past))
        if len(blocks) % 4 == 3:
            future[batch.index == 5] = math.inf
        return future

    _, ended = rolled(data, overflowing)
    assert (ended["rollout_stable"], ended["rollout_finite"]) == (False, False)
    assert np.isfinite(ended["rollout_mse"][:4]).all()
    assert np.isinf(ended["rollout_mse"][4:]).all()
    assert ended["rollout_beyond_limit"] >= 1
    assert np.isinf(ended["rollout_largest_ratio"])


def test_cells_that_do_not_exist_keep_what_stood_for_them():
    mask = np.ones((6, 8), bool)
    mask[1, 2] = False
    data, handed = world(mask=tuple(map(tuple, mask.tolist()))), []

    def nonsense_there(past, batch):
        handed.append(past)
        future = still(past, batch).clone()
        future[..., 1, 2] = math.nan
        return future

    _, rolled_out = rolled(data, nonsense_there, batch_size=1000)
    assert rolled_out["rollout_finite"]
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
    data = world(mask=tuple(map(tuple, mask.tolist())))
    drifts = Student(Drifts(), Normaliser(torch.zeros(2), torch.ones(2)))
    windows, rolled_out = rolled(data, lambda past, batch: drifts(past).future)
    card = {"grid": data.grid.to_dict(), "past": PAST, "lead": LEAD}
    long_batch = long_windows(windows, horizon=4)
    window = long_batch.gather(torch.arange(len(long_batch)))
    forecaster = Forecaster(card, lambda past: drifts(torch.from_numpy(past)).future.numpy())
    predicted = forecaster.predict(window.past.numpy(), steps=4 * LEAD)
    error = (predicted - window.future.numpy()) / np.array(statistics(data).std)[:, None, None]
    want = np.square(error)[..., mask].mean((0, 2, 3))
    assert rolled_out["rollout_mse"].values == pytest.approx(want.tolist(), rel=1e-4)


# --- the stage -----------------------------------------------------------------------------------


def test_evaluating_with_a_horizon_adds_roll_outs(mine):
    run = pipeline.open_run(road.tiny(), mine)
    before, log = pipeline.read_scores(mine)["test"], []
    run.progress = lambda stage: lambda done, total, word="": log.append(stage)
    scores = pipeline.evaluate(run, horizon=2)["test"]
    assert not any(stage.startswith("score") for stage in log), "scores stay as they are"
    assert pipeline.read_scores(mine)["test"].identical(scores)
    assert scores[list(before)].equals(before)
    assert scores.sizes["step"] == 4
    assert (
        scores.attrs["rollout_windows"] + scores.attrs["rollout_skipped"]
        == (scores.attrs["windows"])
    )
    reads = (scores["role"] == "teacher") & (scores["narrator"] != "none")
    assert (scores["rollout_mse"].isnull().all("step") == reads).all()
    # its first block is what was scored, on the windows that fit
    rolled = scores.isel(model=~reads.values)
    assert (rolled["rollout_mse"].isel(step=0) < 2 * rolled["mse"]).all()
    page = mine / "page" / "report.html"
    write_report(page, scores={"test": scores})
    assert "<th>Ahead of persistence</th>" in page.read_text()
    assert (mine / "page/figures/roll-outs.png").exists()
    log.clear()
    assert pipeline.evaluate(run, horizon=2)["test"].identical(scores)
    again = pipeline.evaluate(pipeline.open_run(road.tiny(), mine))["test"]
    assert again.identical(scores), "kept where not asked for"
    assert log == []
    assert pipeline.evaluate(run, horizon=3)["test"].sizes["step"] == 6


def test_a_horizon_of_one_is_no_roll_out(mine):
    with pytest.raises(S2KDError, match="--horizon 1: wants at least 2 lead times"):
        pipeline.evaluate(pipeline.open_run(road.tiny(), mine), horizon=1)


def test_a_student_rolls_out_as_the_forecaster_does(mine):
    """The same frames as `Forecaster.predict(steps=…)`, scored by hand."""
    run = pipeline.open_run(road.tiny(), mine)
    windows = run.windows("test")
    forecaster = Forecaster.load(mine, student="unet-s2kd-seed42")
    long = long_windows(windows, horizon=3)
    long_batch = long.gather(torch.arange(len(long)))
    predicted = forecaster.predict(long_batch.past.numpy(), steps=3 * windows.lead)
    error = (predicted - long_batch.future.numpy()) / np.array(run.train_stats.std)[:, None, None]
    scores = select(pipeline.evaluate(run, horizon=3)["test"], method="s2kd")
    want = np.square(error).mean((0, 2, 3, 4))
    assert scores["rollout_mse"].values[0] == pytest.approx(want, rel=1e-3)
