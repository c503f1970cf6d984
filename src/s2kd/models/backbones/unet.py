"""U-Net (Ronneberger et al. 2015), time folded into channels: the light student."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import Size
from s2kd.core.types import GridSpec
from s2kd.models.backbones import Carry, backbones
from s2kd.models.layers import MULTIPLE, Conv, crop_grid, make_norm, pad_grid, padded_size


@backbones.register("unet")
class UNet(nn.Module):
    """Double 3×3 convolutions at four resolutions, norm and ReLU, skips by concatenation.

    `width` is the number of features at full resolution, doubled at each of three poolings (52
    gives the 5.1 million parameters of the paper's student). `norm` is `batch`, as published, or
    `group` (see `nn.make_norm`). `patch` > 1 reads patches of that size and
    writes them back by pixel shuffle, for large grids. The latent is the decoder's feature at one
    `latent_stride`-th of the (patched) grid: at a quarter, the last one before the upsampling
    layers, which is where a teacher cut after its core has its own; at 2 or 1 less, or nothing,
    of the forecast passes it by in the skips.
    """

    def __init__(
        self,
        grid: GridSpec,
        *,
        past: int,
        lead: int,
        width: Size = 52,
        patch: Size = 1,
        norm: str = "batch",
        latent_stride: Literal[1, 2, 4] = 4,
    ) -> None:
        super().__init__()
        channels, wraps = len(grid.channels), grid.wraps
        self.lead, self.height, self.width, self.wraps = lead, grid.height, grid.width, wraps
        self.multiple = MULTIPLE * patch
        self.extent = tuple(padded_size(n, self.multiple) for n in (grid.height, grid.width))
        high, wide = (n // patch for n in self.extent)
        self.latent_stride, self.latent_width = latent_stride, latent_stride * width
        self.latent_grid = (high // latent_stride, wide // latent_stride)
        inputs = past * channels
        self.stem = nn.Identity() if patch == 1 else nn.Conv2d(inputs, width, patch, stride=patch)
        first = inputs if patch == 1 else width
        self.down1 = _double(first, width, wraps, norm)
        self.down2 = _double(width, 2 * width, wraps, norm)
        self.down3 = _double(2 * width, 4 * width, wraps, norm)
        self.bottom = _double(4 * width, 8 * width, wraps, norm)
        self.up3 = _Up(8 * width, 4 * width, wraps, norm)
        self.up2 = _Up(4 * width, 2 * width, wraps, norm)
        self.up1 = _Up(2 * width, width, wraps, norm)
        self.head = nn.Sequential(
            nn.Conv2d(width, lead * channels * patch**2, 1), nn.PixelShuffle(patch)
        )
        self.pool = nn.MaxPool2d(2)

    @staticmethod
    def preset(name: str, grid: GridSpec) -> dict[str, int]:
        """Settings by size; from 128 × 128 cells on the grid is read in patches of 4."""
        width = {"paper": 52, "small": 8, "tiny": 4}[name]
        large = grid.height * grid.width >= 128 * 128
        return {"width": width, "patch": 4 if large else 1}

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """All down to the latent; the carry is the skips finer than it."""
        x = pad_grid(past.flatten(1, 2), wraps=self.wraps, multiple=self.multiple)
        full = self.down1(self.stem(x))
        half = self.down2(self.pool(full))
        quarter = self.down3(self.pool(half))
        x = self.up3(self.bottom(self.pool(quarter)), quarter)
        if self.latent_stride == 4:
            return x, (full, half)
        x = self.up2(x, half)
        return (x, (full,)) if self.latent_stride == 2 else (self.up1(x, full), ())

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The upsamplings that are left and the 1×1 head."""
        x = latent
        if self.latent_stride == 4:
            x = self.up2(x, carry[1])
        if self.latent_stride > 1:
            x = self.up1(x, carry[0])
        frames = self.head(x)
        return crop_grid(frames, self.height, self.width).unflatten(1, (self.lead, -1))


def _double(in_width: int, out_width: int, wraps: bool, norm: str) -> nn.Sequential:
    """Two 3×3 convolutions, each with norm and ReLU."""
    layers: list[nn.Module] = []
    for width in (in_width, out_width):
        layers += [
            Conv(width, out_width, 3, bias=False, wraps=wraps),
            make_norm(norm, out_width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class _Up(nn.Module):
    """Twice the size, the skip beside it, two convolutions."""

    def __init__(self, in_width: int, out_width: int, wraps: bool, norm: str) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(in_width, out_width, 2, stride=2)
        self.merge = _double(2 * out_width, out_width, wraps, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.merge(torch.cat([self.enlarge(x), skip], dim=1))
