"""MLP-Mixer (Tolstikhin et al. 2021) on patches of stacked frames: a student."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import Size
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.backbones import Carry, backbones
from s2kd.models.layers import MULTIPLE, crop_grid, pad_grid, padded_size

PATCHES = (1, 2, 4, 8, 16, 32)
TOKENS = 256
"""Presets read patches just large enough that there are no more of them than this."""


@backbones.register("mixer")
class Mixer(nn.Module):
    """Patches as tokens; MLPs mix over tokens and over features in turn; a linear head a patch.

    `patch` cells a side, `width` features, `depth` pairs of MLPs of `token_width` and
    `channel_width` hidden features, LayerNorm before each and at the end, GELU. The latent is
    what the last LayerNorm gives, on the grid of patches. The grid is padded to a multiple of
    the patch, and of 8.
    """

    turns = False
    """The MLP over tokens has a weight for every pair of places: no turn leaves it the same."""

    def __init__(
        self,
        grid: GridSpec,
        *,
        past: int,
        lead: int,
        patch: Literal[1, 2, 4, 8, 16, 32] = 4,
        width: Size = 384,
        depth: Size = 6,
        token_width: Size = 384,
        channel_width: Size = 1152,
    ) -> None:
        super().__init__()
        if patch > padded_size(min(grid.height, grid.width)):
            raise S2KDError(
                f"backbone 'mixer': a patch of {patch}×{patch} cells does not fit the grid of "
                f"{grid.height}×{grid.width}; take a smaller one"
            )
        channels = len(grid.channels)
        self.lead, self.height, self.width, self.wraps = lead, grid.height, grid.width, grid.wraps
        self.multiple = max(patch, MULTIPLE)
        self.extent = tuple(padded_size(n, self.multiple) for n in (grid.height, grid.width))
        high, wide = (n // patch for n in self.extent)
        self.latent_width, self.latent_grid = width, (high, wide)
        self.embed = nn.Conv2d(past * channels, width, patch, stride=patch)
        self.blocks = nn.Sequential(
            *(MixerBlock(high * wide, width, token_width, channel_width) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Conv2d(width, lead * channels * patch**2, 1), nn.PixelShuffle(patch)
        )

    @staticmethod
    def preset(name: str, grid: GridSpec) -> dict[str, int]:
        """Settings by size; the patch, and with it the widths, follow the size of the grid."""
        patch, tokens = _patches(grid)
        return {
            "paper": {
                "patch": patch,
                "width": 384,
                "depth": 6,
                "token_width": 192 if patch > 4 else 256 if tokens > 128 else 384,
                "channel_width": 960 if patch > 4 else 1152,
            },
            "small": {
                "patch": patch, "width": 64, "depth": 3, "token_width": 64, "channel_width": 128,
            },
            "tiny": {
                "patch": max(4, patch), "width": 16, "depth": 2, "token_width": 8,
                "channel_width": 16,
            },
        }[name]  # fmt: skip

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """All but the head; nothing is carried."""
        x = pad_grid(past.flatten(1, 2), wraps=self.wraps, multiple=self.multiple)
        tokens = self.norm(self.blocks(self.embed(x).flatten(2).transpose(1, 2)))
        return tokens.transpose(1, 2).unflatten(2, self.latent_grid), ()

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The head."""
        frames = crop_grid(self.head(latent), self.height, self.width)
        return frames.unflatten(1, (self.lead, -1))


def _patches(grid: GridSpec) -> tuple[int, int]:
    """(the smallest patch from 2 on that leaves at most `TOKENS` of them and fits, how many)."""
    for patch in PATCHES[1:]:
        multiple = max(patch, MULTIPLE)
        high, wide = (padded_size(n, multiple) // patch for n in (grid.height, grid.width))
        doubled = 2 * patch > padded_size(min(grid.height, grid.width))
        if high * wide <= TOKENS or doubled:
            break
    return patch, high * wide


class MixerBlock(nn.Module):
    """x + MLP over tokens (each feature alone), then x + MLP over features (each token alone)."""

    def __init__(self, tokens: int, width: int, token_width: int, channel_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.over_tokens = _mlp(tokens, token_width)
        self.norm2 = nn.LayerNorm(width)
        self.over_features = _mlp(width, channel_width)

    def forward(self, x: Float[Tensor, "batch token d"]) -> Float[Tensor, "batch token d"]:
        x = x + self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_features(self.norm2(x))


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
