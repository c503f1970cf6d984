"""Spectral decoupled knowledge distillation (Li et al. 2025): low and high frequencies apart."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from s2kd.core.types import S2KDError
from s2kd.training.losses import Latent, Scalar, at_least_float32, losses


@losses.register("sdkd", compares="latent")
def sdkd(student: Latent, teacher: Latent, *, cutoff: float = 0.25, alpha: float = 1.0) -> Scalar:
    """Mean squared difference of the low frequencies, plus `alpha` times that of the rest.

    Low are the modes up to `cutoff` of the Nyquist wavenumber, whatever their direction. With
    `alpha` = 1 this equals the plain mean squared difference (Parseval); what it adds is the
    choice.
    """
    if not cutoff >= 0:
        raise S2KDError(f"loss 'sdkd': cutoff must be ≥ 0 (a share of Nyquist), got {cutoff}")
    one, other = at_least_float32(student), at_least_float32(teacher)
    low, low_wanted = low_pass(one, cutoff), low_pass(other, cutoff)
    return F.mse_loss(low, low_wanted) + alpha * F.mse_loss(one - low, other - low_wanted)


def low_pass(x: Float[Tensor, "*lead h w"], cutoff: float) -> Float[Tensor, "*lead h w"]:
    """The modes at radial wavenumbers up to `cutoff` of Nyquist (half a cycle a cell)."""
    height, width = x.shape[-2:]
    rows = torch.fft.fftfreq(height, device=x.device, dtype=x.dtype) * 2
    columns = torch.fft.rfftfreq(width, device=x.device, dtype=x.dtype) * 2
    kept = torch.hypot(rows[:, None], columns[None]) <= cutoff * (1 + 1e-6)
    return torch.fft.irfft2(torch.fft.rfft2(x) * kept, s=(height, width))
