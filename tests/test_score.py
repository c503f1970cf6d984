"""Scores of forecasts whose errors are known, and against metrics computed all at once."""

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from s2kd.core import spectral
from s2kd.core.errors import S2KDError
from s2kd.core.hardware import latency
from s2kd.core.types import GridSpec
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation import metrics as m
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.results import describe_model
from s2kd.evaluation.score import HEADLINE, climatology_forecast, persistence, score

TIMES = 160


def world(*, mask=None, latitude=True, height=12, width=16, seed=0):
    """Two runs of smooth, drifting noise in two channels of unlike scales, 6-hourly."""
    generator = np.random.default_rng(seed)
    frames = generator.normal(size=(TIMES, 2, height, width))
    for t in range(1, TIMES):
        frames[t] = 0.9 * np.roll(frames[t - 1], 1, -1) + 0.3 * frames[t]
    frames = (
        frames * np.array([5.0, 400.0])[:, None, None] + np.array([280.0, 54_000.0])[:, None, None]
    )
    grid = GridSpec(
        channels=("t850", "z500"),
        units=("K", "m2 s-2"),
        height=height,
        width=width,
        step_seconds=21_600.0,
        latitude=tuple(np.linspace(75, 15, height)) if latitude else None,
        longitude=tuple(np.linspace(200, 330, width)) if latitude else None,
        mask=mask,
    )
    return Dataset(
        name="made",
        domain="weather",
        grid=grid,
        frames=frames.astype(np.float32),
        times=np.datetime64("2013-01-01", "ns") + np.arange(TIMES) * np.timedelta64(6, "h"),
        splits={
            "train": (Stretch(first=0, stop=90),),
            "val": (Stretch(first=90, stop=100),),
            "test": (
                Stretch(first=100, stop=125, name="calm"),
                Stretch(first=130, stop=160, name="storm"),
            ),
        },
    )


def everything(windows):
    return windows.gather(torch.arange(len(windows)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_come_to_the_same_as_all_at_once(masked, batch_size):
    mask = np.random.default_rng(0).random((12, 16)) < 0.9
    data = world(mask=tuple(map(tuple, mask.tolist())) if masked else None)
    train_stats, windows = statistics(data), WindowDataset(data, "test", past=4, lead=3)
    exists = torch.from_numpy(mask) if masked else None
    scores = score(persistence(3), windows, statistics=train_stats, batch_size=batch_size)
    everything_at_once = everything(windows)
    forecast, truth = (
        everything_at_once.past[:, -1:].expand(-1, 3, -1, -1, -1),
        everything_at_once.future,
    )
    mean, std, low, high = (
        torch.tensor(v).double()[:, None, None]
        for v in (train_stats.mean, train_stats.std, train_stats.minimum, train_stats.maximum)
    )
    forecast_unit, truth_unit = ((x.double() - mean) / std for x in (forecast, truth))
    cells = mask if masked else np.ones((12, 16), bool)
    error = (forecast_unit - truth_unit).numpy()[..., cells]  # (window, lead, channel, cell)
    expected = {"mse": (error**2).mean(), "mae": abs(error).mean()}
    expected["rmse"] = np.sqrt(expected["mse"])
    per_frame = error.shape[2] * error.shape[3]
    expected["mse_sum_per_frame"] = per_frame * expected["mse"]
    expected["mae_sum_per_frame"] = per_frame * expected["mae"]
    for name, want in expected.items():
        assert float(scores[name]) == pytest.approx(want, rel=1e-5), name
    scaled = ((x.double() - low) / (high - low) for x in (forecast, truth))
    similar = m.ssim(*scaled, data_range=1.0, mask=exists)
    assert float(scores["ssim"]) == pytest.approx(similar.mean().item(), abs=1e-5)
    rows = np.broadcast_to(np.cos(np.deg2rad(data.grid.latitude))[:, None], cells.shape)[cells]
    weighted = np.sqrt(np.average(error**2, axis=-1, weights=rows).mean())
    assert float(scores["latitude_weighted_rmse"]) == pytest.approx(weighted, rel=1e-5)
    for c, channel in enumerate(data.grid.channels):
        for lead in range(3):
            want = abs(error[:, lead, c]).mean() * train_stats.std[c]
            at = {"channel": channel, "lead": lead + 1}
            assert float(scores["mae_by_lead"].sel(at)) == pytest.approx(want, rel=1e-5)
            want = similar[:, lead, c].mean().item()
            assert float(scores["ssim_by_lead"].sel(at)) == pytest.approx(want, abs=1e-5)
    np.testing.assert_allclose(scores["window_mse"], (error**2).mean((1, 2, 3)), rtol=1e-5)


def test_a_perfect_forecast():
    data = world()
    windows = WindowDataset(data, "test", past=4, lead=3)
    climatology = Climatology.fit(data)
    scores = score(
        lambda past, window: window.future.clone(),
        windows,
        statistics=statistics(data),
        climatology=climatology,
    )
    want = {"mse": 0, "mae": 0, "rmse": 0, "ssim": 1, "log_spectral_distance": 0}
    want |= {"high_frequency_ratio": 1, "relative_quantile_error": 0}
    for name, value in want.items():
        assert float(scores[name]) == pytest.approx(value, abs=1e-6), name
    np.testing.assert_allclose(scores["acc_by_lead"], 1, atol=1e-6)


def test_anomaly_correlation_uses_the_valid_time():
    """The same sums by hand, with the climatology at the times of the future frames."""
    data = world()
    windows, climatology = WindowDataset(data, "test", past=3, lead=3), Climatology.fit(data)
    scores = score(persistence(3), windows, statistics=statistics(data), climatology=climatology)
    sums = np.zeros((3, 3, 2))
    cosine = np.cos(np.deg2rad(data.grid.latitude))[:, None]
    for start in windows.starts:
        for lead in range(3):
            frame = start + 3 + lead
            usual = climatology.at(data.times[frame : frame + 1])[0].astype(float)
            f, t = data.frames[start + 2] - usual, data.frames[frame] - usual
            for i, product in enumerate((f * t, f * f, t * t)):
                sums[i, lead] += (product * cosine).sum((-2, -1))
    want = sums[0] / np.sqrt(sums[1] * sums[2])
    for c, channel in enumerate(data.grid.channels):
        np.testing.assert_allclose(
            scores["acc_by_lead"].sel(channel=channel), want[:, c], atol=1e-4
        )


def test_climatology_as_a_forecast():
    data = world()
    windows, climatology = WindowDataset(data, "test", past=3, lead=3), Climatology.fit(data)
    predict = climatology_forecast(climatology, windows)
    got = predict(everything(windows).past, everything(windows))
    frame = int(windows.starts[-1]) + 3 + 2
    np.testing.assert_allclose(got[-1, 2], climatology.at(data.times[frame : frame + 1])[0])
    scores = score(
        predict, windows, statistics=statistics(data), climatology=climatology, batch_size=5
    )
    assert scores["acc_by_lead"].isnull().all()
    # drifting noise: what is usual says nothing, and costs about its variance
    assert 0.5 < float(scores["mse"]) < 2


def test_groups_are_scored_apart():
    data = world()
    windows = WindowDataset(data, "test", past=4, lead=3)

    def predict(past, window):
        late = torch.from_numpy(windows.groups[window.index.numpy()] == "storm")
        bias = torch.tensor(statistics(data).std)[:, None, None]
        return window.future + late[:, None, None, None, None] * bias

    scores = score(predict, windows, statistics=statistics(data))
    assert float(scores["mse_by_run"].sel(run="calm")) == pytest.approx(0, abs=1e-9)
    assert float(scores["mse_by_run"].sel(run="storm")) == pytest.approx(1, rel=1e-3)
    assert scores["windows_by_run"].values.tolist() == [19, 24]
    assert float(scores["mse"]) == pytest.approx(24 / 43, rel=1e-3)


def test_spectra_show_smoothing_at_every_lead():
    data = world(height=16, width=24)
    windows = WindowDataset(data, "test", past=4, lead=6)

    def smooth(past, window):
        future = window.future.clone()
        pooled = torch.nn.functional.avg_pool2d(future[:, -1], 3, 1, 1, count_include_pad=False)
        future[:, -1] = pooled
        return future

    scores = score(smooth, windows, statistics=statistics(data))
    assert scores["wavenumber"].values.tolist() == list(range(9))
    assert scores["spectrum_forecast"].dims == ("lead", "channel", "wavenumber")
    ratio = scores["high_frequency_ratio_by_lead"].values
    distance = scores["log_spectral_distance_by_lead"].values
    np.testing.assert_allclose(ratio[:5], 1)
    assert (ratio[5] < 0.3).all()
    np.testing.assert_allclose(distance[:5], 0, atol=1e-12)
    assert (distance[5] > 0.2).all()
    assert float(scores["high_frequency_ratio"]) == pytest.approx(ratio.mean())


@pytest.mark.parametrize("wraps", [False, True])
def test_spectra_are_tapered_along_axes_that_do_not_wrap(wraps):
    data = world()
    data = dataclasses.replace(data, grid=dataclasses.replace(data.grid, wraps=wraps))
    windows = WindowDataset(data, "test", past=4, lead=3)
    scores = score(persistence(3), windows, statistics=statistics(data))
    truth = everything(windows).future
    power = spectral.radial_power_spectrum(truth, periodic=(False, wraps)).mean(0)
    for c, channel in enumerate(data.grid.channels):
        np.testing.assert_allclose(
            scores["spectrum_truth"].sel(channel=channel)[2],
            power[2, c].tolist(),
            rtol=1e-4,
            atol=1e-6,
        )


@pytest.mark.parametrize(("height", "width", "size"), [(8, 30, 7), (2, 30, None), (1, 5, None)])
def test_grids_too_small_for_a_window(height, width, size):
    data = world(height=height, width=width, latitude=False)
    windows = WindowDataset(data, "test", past=4, lead=2)
    scores = score(persistence(2), windows, statistics=statistics(data))
    if size is None:
        assert np.isnan(scores["ssim"])
        assert scores.attrs["ssim"] == ""
    else:
        assert 0 < float(scores["ssim"]) < 1
        assert f"{size}×{size}" in scores.attrs["ssim"]


def test_progress_and_overlap():
    data = world()
    windows, calls = WindowDataset(data, "test", past=4, lead=2, stride=2), []
    scores = score(
        persistence(2),
        windows,
        statistics=statistics(data),
        batch_size=8,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (len(windows), len(windows))
    assert len(calls) == math.ceil(len(windows) / 8)
    assert scores.attrs["overlap"] == 3


def test_bad_forecasts_are_refused():
    data = world()
    windows, train_stats = WindowDataset(data, "test", past=4, lead=2), statistics(data)

    def diverged(past, window):
        future = window.future.clone()
        future[window.index == 11] = math.nan
        return future

    with pytest.raises(S2KDError, match="test window 11 is not finite"):
        score(diverged, windows, statistics=train_stats)
    with pytest.raises(S2KDError, match="the forecast has shape"):
        score(persistence(3), windows, statistics=train_stats)


def test_latency_is_of_one_window_and_leaves_the_module_as_it_was():
    calls = []

    class Net(torch.nn.Module):
        def forward(self, past):
            calls.append((tuple(past.shape), self.training, torch.is_grad_enabled()))
            return past

    net = Net()
    result = latency(net, torch.zeros(4, 2, 1, 3, 3), warmup=3, repeats=5)
    assert calls == [((1, 2, 1, 3, 3), False, False)] * 8
    assert net.training
    assert 0 < result["p05_ms"] <= result["median_ms"] <= result["p95_ms"]
    assert (result["device"], result["dtype"], result["batch"]) == ("cpu", "float32", 1)
    with pytest.raises(S2KDError, match="repeats=0"):
        latency(net, torch.zeros(1, 2, 1, 3, 3), repeats=0)


@pytest.mark.skipif("S2KD_REAL_DATA" not in os.environ, reason="S2KD_REAL_DATA is not set")
def test_persistence_of_real_air_temperature():
    """Floors known beforehand: 2.49 K at 6 hours, 3.27 K at 24, 4.64 K at 72."""
    import h5py

    with h5py.File(Path(os.environ["S2KD_REAL_DATA"]) / "ncep_air_sig995_6h_2013_2014.nc") as file:
        air = np.asarray(file["air"], dtype=np.float32)[:, None]
        latitude, longitude = (tuple(map(float, file[name])) for name in ("lat", "lon"))
    grid = GridSpec(
        channels=("air",),
        units=("K",),
        height=25,
        width=53,
        step_seconds=21_600.0,
        latitude=latitude,
        longitude=longitude,
    )
    data = Dataset(
        name="air",
        domain="weather",
        grid=grid,
        frames=air,
        times=np.datetime64("2013-01-01", "ns") + np.arange(len(air)) * np.timedelta64(6, "h"),
        splits={
            "train": (Stretch(first=0, stop=20),),
            "val": (),
            "test": (Stretch(first=20, stop=len(air)),),
        },
    )
    windows = WindowDataset(data, "test", past=1, lead=12, stride=3)
    scores = score(persistence(12), windows, statistics=statistics(data))
    result = scores["rmse_by_lead"].sel(channel="air", lead=[1, 4, 12]).values
    assert result == pytest.approx([2.49, 3.27, 4.64], rel=0.02)


@pytest.mark.parametrize("factor", [1e-30, 1e32])
def test_scores_do_not_feel_the_unit(factor):
    """Squares of the values lie outside of single precision: in the scores, and in their file."""
    data, scores = world(), []
    for scaled in (data, dataclasses.replace(data, frames=data.frames * np.float32(factor))):
        windows, stats = WindowDataset(scaled, "test", past=4, lead=3), statistics(scaled)
        normal = Climatology.fit(scaled)
        scored = score(persistence(3), windows, statistics=stats, climatology=normal)
        scores.append(describe_model(scored, backbone="persistence"))
    plain, scaled = scores
    for name in (*HEADLINE, "acc_by_lead"):
        np.testing.assert_allclose(scaled[name], plain[name], rtol=1e-4, err_msg=name)
    for name, power in (("rmse_by_lead", 1), ("window_squared_error", 2), ("spectrum_truth", 2)):
        # wave 0 is the rounding of the mean that was taken away
        small, large = (s[name].isel(wavenumber=slice(1, 9), missing_dims="ignore") for s in scores)
        want = small.astype(float) * factor**power
        np.testing.assert_allclose(large, want, rtol=1e-4, err_msg=name)
