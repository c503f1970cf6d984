"""Fourier views of fields and latents."""

import torch
from jaxtyping import Float
from torch import Tensor


def amplitude(x: Float[Tensor, "*lead h w"]) -> Float[Tensor, "*lead h w"]:
    """Amplitude of each 2-D Fourier mode; orthonormal, so energy is kept (Parseval).

    Computed in float32 at least: half-precision FFTs are refused on CPU and inexact on GPU.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    return torch.fft.fft2(wide, norm="ortho").abs()
