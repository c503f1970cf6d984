"""Metrics against scikit-image, float64 loops and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from s2kd.core.types import S2KDError
from s2kd.evaluation import metrics as m


def pair(*shape, seed=0, noise=0.1):
    generator = np.random.default_rng(seed)
    truth = gaussian_filter(generator.random(shape), (0,) * (len(shape) - 2) + (1.0, 1.0))
    forecast = truth + noise * generator.standard_normal(shape)
    return torch.from_numpy(forecast).float(), torch.from_numpy(truth).float()


def test_masked_cells_neither_count_nor_spoil():
    truth = torch.zeros(3, 1, 2, 2)
    forecast = torch.ones(3, 1, 2, 2)
    forecast[:, 0, 1, 1] = math.nan
    mask = torch.tensor([[True, True], [True, False]])
    forecast[0, 0, 0, 0] = 4.0
    squares = (forecast - truth).square()
    assert m.cell_mean(squares, mask=mask).mean().item() == pytest.approx((16 + 8) / 9)


def test_weights_scale_away():
    forecast, truth = pair(4, 2, 6, 5)
    weights = torch.linspace(0.1, 2.0, 6)
    squares = (forecast - truth).double().square()
    want = (squares * weights.double()[:, None]).sum() / (weights.double().sum() * 4 * 2 * 5)
    for scale in (1.0, 7.0):
        got = m.cell_mean((forecast - truth).square(), weights=scale * weights).mean()
        assert got.item() == pytest.approx(want.item(), rel=1e-5)


def test_latitude_weights_have_mean_one_and_follow_the_cosine():
    weights = m.latitude_weights((90.0, 60.0, 0.0, -60.0))
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[1] / weights[2]).item() == pytest.approx(0.5)
    assert weights[0].item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("shape", [(16, 16), (32, 64), (25, 53), (11, 11), (20, 160)])
def test_ssim_equals_scikit_image(shape):
    forecast, truth = pair(3, 2, *shape)
    result = m.ssim(forecast, truth, data_range=1.3, chunk=4).numpy()
    extra = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for frame in np.ndindex(3, 2):
        expected = structural_similarity(
            forecast[frame].double().numpy(), truth[frame].double().numpy(), data_range=1.3, **extra
        )
        assert result[frame] == pytest.approx(expected, abs=1e-5)


def test_ssim_keeps_its_digits_far_from_zero():
    forecast, truth = pair(4, 1, 24, 24)
    forecast, truth = 10 * forecast + 54_000, 10 * truth + 54_000
    result = m.ssim(forecast, truth, data_range=12.0)
    for i in range(4):
        expected = structural_similarity(
            forecast[i, 0].double().numpy(),
            truth[i, 0].double().numpy(),
            data_range=12.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert result[i, 0].item() == pytest.approx(expected, abs=1e-5)


def test_ssim_scales_each_channel_by_its_own_range():
    forecast, truth = pair(2, 2, 16, 16)
    fields = m.ssim(forecast, truth, data_range=torch.tensor([1.0, 30.0]))
    first = m.ssim(forecast[:, :1], truth[:, :1], data_range=1.0)
    second = m.ssim(forecast[:, 1:], truth[:, 1:], data_range=30.0)
    torch.testing.assert_close(fields, torch.cat([first, second], 1))
    assert not torch.allclose(first, second, atol=1e-2)


def test_masked_ssim_against_a_slow_loop():
    forecast, truth = pair(2, 1, 14, 17)
    mask = torch.from_numpy(np.random.default_rng(1).random((14, 17)) < 0.6)
    wild = torch.where(mask, forecast, torch.tensor(1e6))
    got = m.ssim(wild, truth, data_range=1.0, size=7, mask=mask).numpy()
    reach = np.arange(7) - 3
    taps = np.exp(-(reach**2) / (2 * 1.5**2))
    taps = np.outer(taps, taps)
    exists = mask.numpy()
    for frame in range(2):
        a, b = forecast[frame, 0].double().numpy(), truth[frame, 0].double().numpy()
        result = []
        for y in range(3, 11):
            for x in range(3, 14):
                box = np.s_[y - 3 : y + 4, x - 3 : x + 4]
                if not exists[y, x]:
                    continue
                w = taps * exists[box]
                w = w / w.sum()
                ma, mb = (w * a[box]).sum(), (w * b[box]).sum()
                cov = lambda p, q, mp, mq, w=w, box=box: (w * (p[box] - mp) * (q[box] - mq)).sum()  # noqa: E731
                va, vb, c = cov(a, a, ma, ma), cov(b, b, mb, mb), cov(a, b, ma, mb)
                result.append(
                    (2 * ma * mb + 1e-4)
                    * (2 * c + 9e-4)
                    / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
                )
        assert got[frame, 0] == pytest.approx(np.mean(result), abs=1e-5)


def test_a_mask_of_everything_changes_nothing():
    forecast, truth = pair(2, 2, 16, 18)
    mask = torch.ones(16, 18, dtype=torch.bool)
    torch.testing.assert_close(
        m.ssim(forecast, truth, data_range=1.0, mask=mask),
        m.ssim(forecast, truth, data_range=1.0),
    )


def test_equal_frames_are_similar_even_if_flat():
    flat = torch.full((1, 1, 12, 12), 3.0)
    torch.testing.assert_close(m.ssim(flat, flat, data_range=1.0), torch.ones(1, 1))


def test_small_windows_for_small_grids():
    assert [m.ssim_window(h, w) for h, w in ((32, 64), (8, 40), (10, 9), (2, 9))] == [11, 7, 9, 1]


def test_what_ssim_refuses():
    forecast, truth = pair(1, 1, 8, 20)
    with pytest.raises(S2KDError, match=r"11×11 does not suit a 8×20 grid.*at most 7"):
        m.ssim(forecast, truth, data_range=1.0)
    with pytest.raises(S2KDError, match="positive"):
        m.ssim(forecast, truth, data_range=0.0, size=7)
    nowhere = torch.zeros(8, 20, dtype=torch.bool)
    nowhere[0] = True
    with pytest.raises(S2KDError, match="centred on a cell"):
        m.ssim(forecast, truth, data_range=1.0, size=5, mask=nowhere)


@pytest.mark.parametrize("masked", [False, True])
def test_relative_quantile_error_against_numpy(masked):
    generator = np.random.default_rng(0)
    truth, forecast = generator.gamma(2.0, 3.0, (2, 2, 3, 12, 15)).astype(np.float32)
    mask = generator.random((12, 15)) < 0.8 if masked else np.ones((12, 15), dtype=bool)
    got = m.relative_quantile_error(
        torch.from_numpy(forecast),
        torch.from_numpy(truth),
        floor=torch.full((3,), 1e-6),
        mask=torch.from_numpy(mask) if masked else None,
    )
    q = 1 - np.logspace(np.log10(max(1e-4, 1 / mask.sum())), -1, 50)
    first, second = (np.quantile(x[..., mask], q, axis=-1) for x in (forecast, truth))
    want = ((first - second) / np.abs(second)).mean(0)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


def test_relative_quantile_error_has_the_sign_of_the_bias_and_a_floor():
    truth = torch.rand(1, 1, 10, 10, generator=torch.Generator().manual_seed(0)) + 1
    low = m.relative_quantile_error(0.8 * truth, truth, floor=torch.tensor([0.1]))
    assert low.item() == pytest.approx(-0.2, abs=1e-6)
    below = m.relative_quantile_error(-0.8 * truth, -truth, floor=torch.tensor([0.1]))
    assert below.item() == pytest.approx(0.2, abs=1e-6)
    nothing = torch.zeros(1, 1, 10, 10)
    first = m.relative_quantile_error(nothing + 1, nothing, floor=torch.tensor([2.0]))
    assert first.item() == pytest.approx(0.5)
