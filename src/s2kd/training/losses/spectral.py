"""Losses on Fourier modes: spectral alignment (eq. 11) and SDKD (Li et al. 2025)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from s2kd.core.reading import NotNegative
from s2kd.training.losses import Latent, Scalar, at_least_float32, losses


@losses.register("spectral", compares="latent")
def spectral(
    student: Latent,
    teacher: Latent,
    *,
    axes: Literal["grid", "tokens_1d", "tokens_channels"] = "grid",
) -> Scalar:
    """Eq. 11, ‖|F(P(Z))| − |F(Z_fused)|‖₁, as a mean over batch and all modes.

    The orthonormal FFT runs over the latent's grid, feature by feature (`axes="grid"`), so that
    a mode is a wavelength in space. The literal readings of the paper's Z ∈ R^{L×D} are
    `tokens_1d` (over the L tokens) and `tokens_channels` (over tokens and features, whose order
    is arbitrary). Being of amplitudes only, the loss does not see a circular shift.
    """
    match axes:
        case "tokens_1d":
            student, teacher = (z.flatten(2)[:, :, None] for z in (student, teacher))
        case "tokens_channels":
            student, teacher = (z.flatten(2).transpose(1, 2) for z in (student, teacher))
    return amplitude_distance(student, teacher)


def amplitude_distance(
    first: Float[Tensor, "*lead h w"], second: Float[Tensor, "*lead h w"]
) -> Scalar:
    """Mean of |amplitude − amplitude| over `lead` and all h·w modes of the orthonormal 2-D FFT.

    A real field's modes come in conjugate pairs of equal amplitude, so half of them are computed
    and every pair counts twice; without the weights the unpaired columns would count double.
    """
    width = first.shape[-1]
    weights = torch.full(
        (width // 2 + 1,), 2.0, dtype=at_least_float32(first).dtype, device=first.device
    )
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0  # the shortest wave is its own mirror image
    difference = (_half_amplitude(first) - _half_amplitude(second)).abs()
    return (difference.flatten(0, -2).sum(0) * weights).sum() / first.numel()


def _half_amplitude(x: Float[Tensor, "*lead h w"]) -> Float[Tensor, "*lead h half"]:
    return torch.fft.rfft2(at_least_float32(x), norm="ortho").abs()


@losses.register("sdkd", compares="latent")
def sdkd(
    student: Latent, teacher: Latent, *, cutoff: NotNegative = 0.25, alpha: float = 1.0
) -> Scalar:
    """Mean squared difference of the low frequencies, plus `alpha` times that of the rest.

    Low are the modes up to `cutoff` of the Nyquist wavenumber, whatever their direction. With
    `alpha` = 1 this equals the plain mean squared difference (Parseval); what it adds is the
    choice.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    low, low_teacher = low_pass(student, cutoff), low_pass(teacher, cutoff)
    return F.mse_loss(low, low_teacher) + alpha * F.mse_loss(student - low, teacher - low_teacher)


def low_pass(x: Float[Tensor, "*lead h w"], cutoff: float) -> Float[Tensor, "*lead h w"]:
    """The modes at radial wavenumbers up to `cutoff` of Nyquist (half a cycle a cell)."""
    height, width = x.shape[-2:]
    rows = torch.fft.fftfreq(height, device=x.device, dtype=x.dtype) * 2
    columns = torch.fft.rfftfreq(width, device=x.device, dtype=x.dtype) * 2
    is_low = torch.hypot(rows[:, None], columns[None]) <= cutoff * (1 + 1e-6)
    return torch.fft.irfft2(torch.fft.rfft2(x) * is_low, s=(height, width))
