"""Fourier blocks: tokens on a grid mixed by products in the frequency domain."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SpectralProduct(nn.Module):
    """Two complex linear layers on every mode of the grid's FFT (AFNO: Guibas et al. 2022).

    The features are in `groups` (a divisor of `width`) that do not mix, and the weights are the
    same for every mode. ReLU acts on real and imaginary parts between the layers, which a shift
    of the field rotates into each other: unlike a convolution, this tells where things are. A
    linear path beside it carries what the ReLU cuts off. There is no soft threshold.
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        size = width // groups
        self.groups = groups
        self.weight1, self.weight2 = (
            nn.Parameter(0.02 * torch.randn(2, groups, size, size)) for _ in range(2)
        )
        self.bias1, self.bias2 = (
            nn.Parameter(0.02 * torch.randn(2, groups, 1, size)) for _ in range(2)
        )
        self.beside = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch h w d"]) -> Float[Tensor, "batch h w d"]:
        high, wide = x.shape[1:3]
        # FFTs of half precision are rare: transform in single, multiply as autocast likes
        modes = torch.fft.rfft2(_single(x), dim=(1, 2), norm="ortho").flatten(1, 2)
        real, imaginary = (
            part.unflatten(2, (self.groups, -1)).transpose(1, 2)
            for part in (modes.real, modes.imag)
        )
        real, imaginary = _times(real, imaginary, self.weight1, self.bias1)
        real, imaginary = _times(real.relu(), imaginary.relu(), self.weight2, self.bias2)
        real, imaginary = (
            _single(part).transpose(1, 2).flatten(2).unflatten(1, (high, -1))
            for part in (real, imaginary)
        )
        mixed = torch.fft.irfft2(
            torch.complex(real, imaginary), s=(high, wide), dim=(1, 2), norm="ortho"
        )
        return mixed + self.beside(x)


def _single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _times(
    real: Float[Tensor, "batch group mode d"],
    imaginary: Float[Tensor, "batch group mode d"],
    weight: Float[Tensor, "2 group d d"],
    bias: Float[Tensor, "2 group 1 d"],
) -> tuple[Float[Tensor, "batch group mode d"], Float[Tensor, "batch group mode d"]]:
    """(a + ib)(u + iv) + (p + iq) in real arithmetic, which every exporter knows."""
    return (
        real @ weight[0] - imaginary @ weight[1] + bias[0],
        real @ weight[1] + imaginary @ weight[0] + bias[1],
    )


class FourierBlock(nn.Module):
    """x + SpectralProduct(LayerNorm(x)), then x + MLP(LayerNorm(x)), features last."""

    def __init__(self, width: int, groups: int, expansion: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mix = SpectralProduct(width, groups)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )

    def forward(self, x: Float[Tensor, "batch h w d"]) -> Float[Tensor, "batch h w d"]:
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class FourierBlocks(nn.Module):
    """Some blocks and a last LayerNorm, features first as convolutions have them."""

    def __init__(self, width: int, depth: int, groups: int, expansion: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FourierBlock(width, groups, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch d h w"]:
        x = x.movedim(1, -1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).movedim(-1, 1)
