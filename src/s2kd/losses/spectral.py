"""Spectral alignment (eq. 11)."""

import torch
import torch.nn.functional as F

from s2kd.losses import Latent, Scalar, losses
from s2kd.spectral import amplitude
from s2kd.types import S2KDError


@losses.register("spectral", compares="latent")
def spectral(student: Latent, teacher: Latent, *, axes: str = "grid") -> Scalar:
    """Eq. 11, ‖|F(P(Z))| − |F(Z_fused)|‖₁, as a mean over batch and all modes.

    The orthonormal FFT runs over the latent's grid, feature by feature (`axes="grid"`), so that
    a mode is a wavelength in space. The literal readings of the paper's Z ∈ R^{L×D} are
    `tokens_1d` (over the L tokens) and `tokens_channels` (over tokens and features, whose order
    is arbitrary). Being of amplitudes only, the loss does not see a circular shift.
    """
    match axes:
        case "grid":
            return F.l1_loss(amplitude(student), amplitude(teacher))
        case "tokens_1d":
            one, other = student.flatten(2)[:, :, None], teacher.flatten(2)[:, :, None]
            return F.l1_loss(amplitude(one), amplitude(other))
        case "tokens_channels":
            one, other = (z.flatten(2).transpose(1, 2) for z in (student, teacher))
            return F.l1_loss(amplitude(one), amplitude(other))
    raise S2KDError(
        f"loss 'spectral': axes must be 'grid', 'tokens_1d' or 'tokens_channels', got {axes!r}"
    )


def share_above(
    latent: Latent, *, cutoff: float = 0.5
) -> torch.Tensor:
    """Share of the spectral energy at wavenumbers above `cutoff` of the Nyquist one, mean removed.

    A scalar in 0..1; what the teacher's two branches are logged by.
    """
    height, width = latent.shape[-2:]
    rows = torch.fft.fftfreq(height, device=latent.device).abs() * 2
    columns = torch.fft.fftfreq(width, device=latent.device).abs() * 2
    high = torch.maximum(rows[:, None], columns[None]) > cutoff
    energy = amplitude(latent - latent.mean((-2, -1), keepdim=True)).square()
    return energy[..., high].sum() / energy.sum().clamp_min(1e-30)
