"""EarthFarseer (Wu et al. 2024, arXiv 2312.08403), written anew from its description."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import AtLeastZero, Blocks, Even, EvenOrZero, Size
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.backbones import Carry, backbones
from s2kd.models.backbones._fourier import FourierBlocks
from s2kd.models.backbones._frames import (
    FrameDecoder,
    FrameEncoder,
    from_cut,
    halves_before,
    retime,
    until_cut,
)
from s2kd.models.backbones._inception import InceptionCore
from s2kd.models.backbones.simvp import SimVP
from s2kd.models.layers import Conv, crop_grid, pad_grid, padded_size
from s2kd.models.registry import Cut


@backbones.register("earthfarseer")
class EarthFarseer(nn.Module):
    """Local and global features of each frame, then Inception and Fourier blocks over time.

    Each frame passes the spatial part: a global branch (patches of `patch` cells as `embed`
    features, learned positions, `fourier` Fourier blocks) and a local one (convolutions) that
    exchange what they found `rounds` times. `layers` convolutions bring it to `spatial` features
    at low resolution; the temporal part sees all frames as channels and has `blocks` Inception
    layers down to `temporal` features, `temporal_fourier` Fourier blocks and as many layers up.
    A whole SimVP of `shortcut` features a frame (0: none) is added to the output.

    `fuse_at` is where a teacher reads: before, in the middle of or after the temporal part.
    `skip=False` drops the encoder's skip; with `shortcut=0` too, all passes through the latent,
    except in the middle, which the temporal part's own skips pass by. For `lead` ≠ `past` the
    frames are mixed linearly in the decoder.

    Unlike the authors' code: grids need not be square; the complex product is one; the MLP has
    both its layers; the local branch is convolutional; patches are smaller and the head follows
    them; each round applies the global branch once; the spatial part starts from the frame
    itself (a residual), and no second encoder lies idle.
    """

    turns = False
    """Learned positions and Fourier blocks tell places apart: a turned globe is another input."""

    def __init__(
        self,
        grid: GridSpec,
        *,
        past: int,
        lead: int,
        spatial: Even = 128,
        temporal: Even = 256,
        layers: Literal[2, 4, 6] = 4,
        blocks: Blocks = 8,
        patch: Literal[1, 2, 4, 8] = 4,
        embed: Size = 768,
        fourier: Size = 12,
        temporal_fourier: Size = 12,
        groups: Size = 2,
        expansion: Size = 4,
        rounds: AtLeastZero = 3,
        local: Size = 32,
        shortcut: EvenOrZero = 16,
        fuse_at: Cut = "post",
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.cut = halves_before(fuse_at)
        if embed % groups or temporal % groups:
            raise S2KDError(
                f"backbone 'earthfarseer': groups must divide embed ({embed}) and temporal "
                f"({temporal}), got {groups}"
            )
        channels, wraps = len(grid.channels), grid.wraps
        self.past, self.lead, self.wraps, self.skip = past, lead, wraps, skip
        self.height, self.width = grid.height, grid.width
        high, wide = padded_size(grid.height), padded_size(grid.width)
        globally = GlobalBranch(
            channels, (high // patch, wide // patch), patch=patch, width=embed, depth=fourier,
            groups=groups, expansion=expansion,
        )  # fmt: skip
        self.spatial = SpatialPart(channels, globally, local=local, rounds=rounds, wraps=wraps)
        self.encoder = FrameEncoder(channels, spatial, layers, wraps=wraps)
        self.temporal = TemporalPart(
            past * spatial, temporal, blocks, depth=temporal_fourier, groups=groups,
            expansion=expansion, wraps=wraps,
        )  # fmt: skip
        self.latent_width = self.temporal.widths[self.cut]
        self.latent_grid = (high // 2 ** (layers // 2), wide // 2 ** (layers // 2))
        self.retime = retime(past, lead)
        self.decoder = FrameDecoder(channels, spatial, layers, skips=int(skip), wraps=wraps)
        self.shortcut: SimVP | None = None
        if shortcut:
            self.shortcut = SimVP(
                grid, past=past, lead=lead, spatial=shortcut, temporal=temporal, layers=layers,
                blocks=blocks, translator="inception",
            )  # fmt: skip

    @staticmethod
    def preset(name: str, grid: GridSpec) -> dict[str, int]:
        """Settings by size; from 128 × 128 cells on, `paper` reads patches of 8."""
        large = grid.height * grid.width >= 128 * 128
        return {
            "paper": {"spatial": 128, "temporal": 256, "blocks": 8, "patch": 8 if large else 4},
            "small": {
                "spatial": 8, "temporal": 64, "blocks": 3, "patch": 8 if large else 4,
                "embed": 64, "fourier": 3, "temporal_fourier": 2, "expansion": 2, "rounds": 1,
                "local": 8, "shortcut": 4,
            },
            "tiny": {
                "spatial": 2, "temporal": 8, "blocks": 2, "patch": 4, "embed": 16, "fourier": 2,
                "temporal_fourier": 1, "expansion": 2, "rounds": 1, "local": 4, "shortcut": 2,
            },
        }[name]  # fmt: skip

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """Frames to the latent; the carry is the skip, the shortcut's forecast, inner skips."""
        x = self.spatial(pad_grid(past.flatten(0, 1), wraps=self.wraps))
        x, levels = self.encoder(x)
        stacked = x.unflatten(0, (-1, self.past)).flatten(1, 2)
        latent, skips = until_cut(self.temporal, stacked, self.cut)
        carry = levels[:1] if self.skip else ()
        if self.shortcut is not None:
            carry = (*carry, self.shortcut.decode(*self.shortcut.encode(past)))
        return latent, (*carry, *skips)

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """What is left of the temporal part, every frame by itself, and the shortcut on top."""
        levels, rest = (carry[:1], carry[1:]) if self.skip else ((), carry)
        direct, skips = (rest[:1], rest[1:]) if self.shortcut is not None else ((), rest)
        x = from_cut(self.temporal, latent, skips, self.cut)
        x = self.retime(x.unflatten(1, (self.past, -1)).flatten(0, 1))
        frames = self.decoder(x, [self.retime(level) for level in levels])
        frames = crop_grid(frames, self.height, self.width).unflatten(0, (-1, self.lead))
        return frames + direct[0] if direct else frames


class GlobalBranch(nn.Module):
    """Patches to tokens with learned positions, Fourier blocks, and back to cells.

    The head doubles the grid by transposed 2×2 convolutions as often as the patch asks for, with
    Tanh between; their kernels do not overlap, so nothing crosses an edge.
    """

    def __init__(
        self,
        channels: int,
        tokens: tuple[int, int],
        *,
        patch: int,
        width: int,
        depth: int,
        groups: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.place = nn.Parameter(0.02 * torch.randn(width, *tokens))
        self.blocks = FourierBlocks(width, depth, groups, expansion)
        doublings = patch.bit_length() - 1
        widths = [width, *[min(64, width)] * (doublings - 1), channels]
        layers: list[nn.Module] = [] if doublings else [nn.Conv2d(width, channels, 1)]
        for number in range(doublings):
            layers += [nn.Tanh()] if number else []
            layers += [nn.ConvTranspose2d(widths[number], widths[number + 1], 2, stride=2)]
        self.head = nn.Sequential(*layers)

    def forward(
        self, x: Float[Tensor, "frames c high wide"]
    ) -> Float[Tensor, "frames c high wide"]:
        return self.head(self.blocks(self.embed(x) + self.place))


class SpatialPart(nn.Module):
    """Global and local branch of a frame, of shared weights in every round of exchange."""

    def __init__(
        self, channels: int, globally: GlobalBranch, *, local: int, rounds: int, wraps: bool
    ) -> None:
        super().__init__()
        self.rounds = rounds
        self.globally = globally
        self.locally = nn.Sequential(
            Conv(channels, local, 3, wraps=wraps), nn.GELU(), Conv(local, channels, 3, wraps=wraps)
        )
        if rounds:
            self.to_global = Conv(channels, channels, 3, wraps=wraps)
            self.to_local = Conv(channels, channels, 3, wraps=wraps)
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(
        self, x: Float[Tensor, "frames c high wide"]
    ) -> Float[Tensor, "frames c high wide"]:
        far, near = self.globally(x), self.locally(x)
        for _ in range(self.rounds):
            far = self.globally(far + self.to_global(near))
            near = self.locally(near + self.to_local(far))
        return x + self.join(torch.cat([far, near], dim=1))


class TemporalPart(InceptionCore):
    """The Inception U with Fourier blocks at its lowest point, added to what came in."""

    def __init__(
        self,
        stacked: int,
        temporal: int,
        blocks: int,
        *,
        depth: int,
        groups: int,
        expansion: int,
        wraps: bool,
    ) -> None:
        between = FourierBlocks(temporal, depth, groups, expansion)
        super().__init__(stacked, temporal, blocks, wraps=wraps, between=between)

    def first(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the U does; what came in is kept too, last."""
        lowest, skips = super().first(x)
        return lowest, (*skips, x)

    def second(self, x: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """The arm up, plus what came in."""
        return kept[-1] + super().second(x, kept[:-1])
