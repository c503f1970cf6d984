"""Spectra of known waves, Parseval, and scores of spectra by hand."""

import math

import numpy as np
import pytest
import torch

from s2kd.core import spectral
from s2kd.core.types import S2KDError

BOTH = (True, True)


def wave(height, width, *, rows=0, columns=0):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cos(2 * math.pi * (rows * y / height + columns * x / width))


def test_amplitude_keeps_energy():
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        spectral.amplitude(x).square().sum((-2, -1)), x.square().sum((-2, -1))
    )


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns", "ring"),
    [
        (32, 32, 0, 5, 5),
        (32, 32, 3, 4, 5),
        (16, 64, 0, 8, 2),
        (16, 64, 3, 0, 3),
        (20, 160, 5, 0, 5),
    ],
)
def test_a_wave_lands_in_its_ring(height, width, rows, columns, ring):
    """On 16×64, eight waves along 64 columns are as short as two along 16 rows."""
    field = wave(height, width, rows=rows, columns=columns)
    power = spectral.radial_power_spectrum(field, periodic=BOTH)
    counts = spectral.annuli(height, width)[1]
    want = torch.zeros(min(height, width) // 2 + 1)
    want[ring] = field.square().sum() / counts[ring]
    torch.testing.assert_close(power, want, atol=1e-4, rtol=1e-4)


def test_rings_against_a_loop_over_modes():
    height, width = 6, 10
    field = torch.randn(height, width, generator=torch.Generator().manual_seed(0))
    modes = np.abs(np.fft.fft2((field - field.mean()).double().numpy(), norm="ortho")) ** 2
    rings = {}
    for i in range(height):
        for j in range(width):
            y, x = min(i, height - i) / height, min(j, width - j) / width
            rings.setdefault(math.floor(math.hypot(y, x) * height + 0.5 + 1e-9), []).append(
                modes[i, j]
            )
    power = spectral.radial_power_spectrum(field, periodic=BOTH)
    want = torch.tensor([np.mean(rings[k]) for k in range(height // 2 + 1)]).float()
    torch.testing.assert_close(power, want)
    assert spectral.annuli(height, width)[1].tolist() == [len(rings[k]) for k in range(4)]


def test_the_taper_keeps_a_ramp_out_of_the_short_waves():
    ramp = torch.arange(64.0).expand(64, 64).contiguous()
    open_edges = spectral.radial_power_spectrum(ramp)
    as_if_periodic = spectral.radial_power_spectrum(ramp, periodic=BOTH)
    assert open_edges[16:].sum() < 1e-3 * as_if_periodic[16:].sum()


def test_the_taper_keeps_the_level_of_white_noise():
    noise = torch.randn(200, 32, 48, generator=torch.Generator().manual_seed(0))
    power = spectral.radial_power_spectrum(noise, periodic=(False, True)).mean(0)
    torch.testing.assert_close(power[2:], torch.ones(15), atol=0.05, rtol=0)


def test_scores_of_spectra_by_hand():
    truth = torch.tensor([0.0, 100.0, 10.0, 1.0, 1.0])
    forecast = torch.tensor([5.0, 100.0, 1.0, 0.1, 1.0])
    got = spectral.log_spectral_distance(forecast, truth)
    assert got.item() == pytest.approx(math.sqrt((0 + 1 + 1 + 0) / 4))
    counts = spectral.annuli(8, 8)[1]
    want = (0.1 * counts[3] + counts[4]) / (counts[3] + counts[4])
    ratio = spectral.high_frequency_ratio(forecast, truth, height=8, width=8)
    assert ratio.item() == pytest.approx(want.item(), rel=1e-6)


def test_smoothing_loses_short_waves():
    noise = torch.randn(20, 32, 32, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    one, other = (spectral.radial_power_spectrum(x).mean(0) for x in (smooth, noise))
    assert spectral.high_frequency_ratio(one, other, height=32, width=32) < 0.2
    assert spectral.log_spectral_distance(one, other) > 0.3
    assert spectral.log_spectral_distance(other, other) == 0


def test_an_empty_field_has_finite_scores():
    nothing = torch.zeros(9)
    assert spectral.log_spectral_distance(nothing, nothing) == 0


def test_a_line_has_no_rings():
    with pytest.raises(S2KDError, match="1×40 grid is too thin"):
        spectral.radial_power_spectrum(torch.zeros(1, 40))
