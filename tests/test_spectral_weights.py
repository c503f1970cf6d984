"""The half spectrum with weights against the whole spectrum, mode by mode."""

import numpy as np
import pytest
import torch
from scipy.fft import fft2

from s2kd.training.losses.spectral import amplitude_distance, spectral

SIZES = [(8, 14), (8, 13), (7, 6), (5, 9), (1, 10), (1, 1), (6, 1), (2, 2), (1, 2)]


def pair(height: int, width: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(height * 100 + width)
    return (torch.randn(3, 4, height, width, generator=generator, dtype=dtype) for _ in "ab")


def whole(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The mean over every mode of the full FFT, which needs no weights."""
    spectra = [torch.fft.fft2(x, norm="ortho").abs() for x in (one, other)]
    return (spectra[0] - spectra[1]).abs().mean()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_value_and_gradient_are_those_of_the_whole_spectrum(height, width):
    one, other = pair(height, width)
    mine, theirs = (one.clone().requires_grad_() for _ in "ab")
    got, want = amplitude_distance(mine, other), whole(theirs, other)
    got.backward()
    want.backward()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(8, 14), (7, 9)])
def test_agrees_with_scipy(height, width):
    one, other = (x.numpy() for x in pair(height, width))
    want = np.abs(np.abs(fft2(one, norm="ortho")) - np.abs(fft2(other, norm="ortho"))).mean()
    got = amplitude_distance(torch.from_numpy(one), torch.from_numpy(other))
    assert got.item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("axes", ["grid", "tokens_1d", "tokens_channels"])
def test_every_reading_of_the_loss_is_a_mean_over_all_its_modes(axes):
    one, other = pair(4, 6)
    views = {
        "grid": lambda z: np.abs(np.fft.fft2(z, norm="ortho")),
        "tokens_1d": lambda z: np.abs(np.fft.fft(z.reshape(3, 4, 24), norm="ortho")),
        "tokens_channels": lambda z: np.abs(np.fft.fft2(z.reshape(3, 4, 24), norm="ortho")),
    }
    want = np.abs(views[axes](one.numpy()) - views[axes](other.numpy())).mean()
    assert spectral(one, other, axes=axes).item() == pytest.approx(want, rel=1e-12)


def test_one_wave_by_hand():
    # cos(2π·3x/8) has two modes of amplitude √(8·8)/2 = 4, the shortest wave one of amplitude 8
    x = torch.arange(8, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 3 * x / 8).expand(1, 1, 8, 8)
    shortest = torch.cos(torch.pi * x).expand(1, 1, 8, 8)
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    assert amplitude_distance(wave, nothing).item() == pytest.approx(2 * 4 / 64, rel=1e-12)
    assert amplitude_distance(shortest, nothing).item() == pytest.approx(8 / 64, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype):
    one, other = pair(8, 14, torch.float32)
    low = one.to(dtype), other.to(dtype)
    got = amplitude_distance(*low)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, amplitude_distance(low[0].float(), low[1].float()))


def test_a_latent_of_zeros_has_a_gradient_of_numbers():
    zeros = torch.zeros(2, 3, 8, 6, requires_grad=True)
    amplitude_distance(zeros, torch.ones(2, 3, 8, 6)).backward()
    assert torch.isfinite(zeros.grad).all()
