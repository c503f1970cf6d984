"""ResNet (He et al. 2016) at one resolution, time folded into channels: a student."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import Size
from s2kd.core.types import GridSpec
from s2kd.models.backbones import Carry, backbones
from s2kd.models.layers import Conv, crop_grid, make_norm, pad_grid, padded_size


@backbones.register("resnet")
class ResNet(nn.Module):
    """A 3×3 stem, `blocks` basic blocks of `width` features, a 3×3 head; norm and ReLU.

    `norm` is `batch`, as published, or `group` (see `nn.make_norm`). `patch` > 1 reads patches of
    that size and writes them back by pixel shuffle, for large grids. 176 features and 8 blocks have
    the 4.5 million parameters of the paper's student. The latent is what the last block gives; its
    grid is the (padded) grid itself, or that of patches.
    """

    def __init__(
        self,
        grid: GridSpec,
        *,
        past: int,
        lead: int,
        width: Size = 176,
        blocks: Size = 8,
        patch: Literal[1, 2, 4, 8] = 1,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        channels, wraps = len(grid.channels), grid.wraps
        self.lead, self.height, self.width, self.wraps = lead, grid.height, grid.width, wraps
        self.latent_width = width
        self.latent_grid = (padded_size(grid.height) // patch, padded_size(grid.width) // patch)
        inputs = past * channels
        reads = (
            Conv(inputs, width, 3, bias=False, wraps=wraps)
            if patch == 1
            else nn.Conv2d(inputs, width, patch, stride=patch, bias=False)
        )
        self.stem = nn.Sequential(reads, make_norm(norm, width), nn.ReLU())
        self.blocks = nn.Sequential(*(_Basic(width, wraps, norm) for _ in range(blocks)))
        self.head = nn.Sequential(
            Conv(width, lead * channels * patch**2, 3, wraps=wraps), nn.PixelShuffle(patch)
        )

    @staticmethod
    def preset(name: str, grid: GridSpec) -> dict[str, int]:
        """Settings by size; from 128 × 128 cells on the grid is read in patches of 4."""
        large = grid.height * grid.width >= 128 * 128
        sizes = {
            "paper": {"width": 176, "blocks": 7 if large else 8},
            "small": {"width": 24, "blocks": 3},
            "tiny": {"width": 8, "blocks": 2},
        }[name]
        return {**sizes, "patch": 4 if large else 1}

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """All but the head; nothing is carried."""
        return self.blocks(self.stem(pad_grid(past.flatten(1, 2), wraps=self.wraps))), ()

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The head."""
        frames = crop_grid(self.head(latent), self.height, self.width)
        return frames.unflatten(1, (self.lead, -1))


class _Basic(nn.Module):
    """ReLU(x + two 3×3 convolutions of x), each with norm, the first with ReLU."""

    def __init__(self, width: int, wraps: bool, norm: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Conv(width, width, 3, bias=False, wraps=wraps),
            make_norm(norm, width),
            nn.ReLU(),
            Conv(width, width, 3, bias=False, wraps=wraps),
            make_norm(norm, width),
        )

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch d h w"]:
        return (x + self.branch(x)).relu()
