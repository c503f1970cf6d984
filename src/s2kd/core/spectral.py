"""Fourier views of fields and latents."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from s2kd.core.types import S2KDError


def amplitude(x: Float[Tensor, "*lead h w"]) -> Float[Tensor, "*lead h w"]:
    """Amplitude of each 2-D Fourier mode; orthonormal, so energy is kept (Parseval).

    Computed in float32 at least: half-precision FFTs are refused on CPU and inexact on GPU.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    return torch.fft.fft2(wide, norm="ortho").abs()


def annuli(height: int, width: int) -> tuple[Int[Tensor, "h w"], Int[Tensor, " k"]]:
    """The annulus each Fourier mode lies in, and how many modes each annulus holds.

    Annulus k gathers modes whose wavelength is nearest to (shorter side / k) cells, whatever the
    direction, so that a height other than the width does not bend the rings. k runs from 0 to
    min(height, width) // 2 (the shortest resolved wave, two cells); the corners beyond it get the
    number one past the last and are left out.
    """
    shorter = min(height, width)
    if shorter < 2:
        raise S2KDError(f"a {height}×{width} grid is too thin for a radial spectrum (2×2 at least)")
    cycles = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    # half up, not half to even: rings must not take turns in width
    ring = np.floor(cycles * shorter + 0.5 + 1e-9).astype(np.int64)
    last = shorter // 2
    ring = torch.from_numpy(np.minimum(ring, last + 1))
    return ring, torch.bincount(ring.flatten(), minlength=last + 2)[: last + 1]


def radial_power_spectrum(
    field: Float[Tensor, "*lead height width"], *, periodic: tuple[bool, bool] = (False, False)
) -> Float[Tensor, "*lead k"]:
    """Mean power of the modes of each annulus k = 0 .. min(height, width) // 2; unit squared.

    The frame's mean is removed, so k = 0 holds next to nothing. Along axes (height, width) that
    are not `periodic` a Hann taper keeps the jump between opposite edges from flooding the short
    waves; its loss of variance is made good. FFT with orthonormal scaling: power summed over all
    modes is the sum of squares over cells.
    """
    height, width = field.shape[-2:]
    ring, counts = (t.to(field.device) for t in annuli(height, width))
    field = field - field.mean((-2, -1), keepdim=True)
    for axis, is_periodic in zip((-2, -1), periodic, strict=True):
        if not is_periodic:
            field = field * _taper(field.shape[axis]).to(field).unflatten(
                0, (-1, *[1] * (-axis - 1))
            )
    power = amplitude(field).square().flatten(-2)
    sums = torch.zeros(*power.shape[:-1], len(counts) + 1, dtype=power.dtype, device=power.device)
    return sums.index_add_(-1, ring.flatten(), power)[..., :-1] / counts


def _taper(length: int) -> Float[Tensor, " length"]:
    """A Hann taper of mean square one, centred on cells so that no cell is thrown away."""
    taper = torch.sin(torch.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length) ** 2
    return taper / taper.square().mean().sqrt()


def log_spectral_distance(
    forecast: Float[Tensor, "*lead k"], truth: Float[Tensor, "*lead k"]
) -> Float[Tensor, "*lead"]:
    """Root mean square over k ≥ 1 of log10(forecast power / truth power); 0 is equal, in decades.

    Takes power spectra (average them over frames first: the logarithm of one frame's empty ring
    would rule). Power below 1e-12 of the truth's strongest ring counts as that.
    """
    forecast, truth = forecast[..., 1:], truth[..., 1:]
    floor = (1e-12 * truth.amax(-1, keepdim=True)).clamp_min(torch.finfo(truth.dtype).tiny)
    ratio = torch.maximum(forecast, floor).log10() - torch.maximum(truth, floor).log10()
    return ratio.square().mean(-1).sqrt()


def high_frequency_ratio(
    forecast: Float[Tensor, "*lead k"],
    truth: Float[Tensor, "*lead k"],
    *,
    height: int,
    width: int,
    above: float = 0.5,
) -> Float[Tensor, "*lead"]:
    """Energy of the forecast over that of the truth in waves shorter than 2/`above` cells.

    Takes power spectra of a height × width grid; `above` is a share of the highest wavenumber.
    Below 1 the forecast is too smooth. Energy is power times the number of modes of each annulus.
    """
    counts = annuli(height, width)[1].to(truth)
    short = torch.arange(len(counts), device=truth.device) > above * (len(counts) - 1)
    weight = counts * short
    return (forecast @ weight) / (truth @ weight)
