"""Triton (Wu et al. 2025, arXiv 2505.19432): attention at low resolution between convolutions."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import Above, Blocks, Even, Rate, Size
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.backbones import Carry, backbones
from s2kd.models.backbones._frames import (
    BlockCore,
    FrameDecoder,
    FrameEncoder,
    core_widths,
    from_cut,
    halves_before,
    retime,
    until_cut,
)
from s2kd.models.layers import Conv, DropPath, crop_grid, pad_grid, padded_size
from s2kd.models.registry import Cut


@backbones.register("triton")
class Triton(nn.Module):
    """Frames are encoded one by one, attend to all cells stacked over time, are decoded.

    `spatial` features a frame, `layers` convolutions of which every second halves the grid,
    `temporal` features and `blocks` UniFormer blocks (Li et al. 2022) in the latent core, whose
    first works on all `past` × `spatial` features. Each branch of a block starts at `layer_scale`
    times itself: the released 1e-6 keeps the core nearly linear for many steps. With 12 frames of
    2 channels the defaults have 143.3 million parameters.

    `variant="released"` has the one skip of the authors' code, at full resolution.
    `variant="vcycle"` is the multigrid cycle of their paper's figures: smooth and restrict level
    by level, core on the coarsest grid, prolong and smooth with a skip at every level; with
    `layers=6` the coarsest grid is an eighth. `skip=False` drops the skips so that all passes
    through the latent. `fuse_at` is where a teacher reads: before, in the middle of or after the
    core. For `lead` ≠ `past` the frames are mixed linearly in the decoder.
    """

    def __init__(
        self,
        grid: GridSpec,
        *,
        past: int,
        lead: int,
        spatial: Even = 256,
        temporal: Size = 512,
        layers: Literal[2, 4, 6] = 4,
        blocks: Blocks = 8,
        heads: Size = 8,
        expansion: Size = 4,
        drop_path: Rate = 0.1,
        layer_scale: Above = 1e-6,
        variant: Literal["released", "vcycle"] = "released",
        fuse_at: Cut = "post",
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.cut = halves_before(fuse_at)
        stacked = past * spatial
        if temporal % heads or stacked % heads:
            raise S2KDError(
                f"backbone 'triton': heads must divide temporal ({temporal}) and past × spatial "
                f"({past} × {spatial} = {stacked}), got {heads}"
            )
        channels, wraps, levels = len(grid.channels), grid.wraps, layers // 2
        self.past, self.lead, self.wraps = past, lead, wraps
        self.height, self.width = grid.height, grid.width
        self.skips = 0 if not skip else levels if variant == "vcycle" else 1
        self.encoder = FrameEncoder(channels, spatial, layers, wraps=wraps)
        rates = np.linspace(min(0.01, drop_path), drop_path, blocks).tolist()
        self.core = BlockCore(
            (
                _Block(i, o, heads, expansion, rate, layer_scale, wraps)
                for (i, o), rate in zip(core_widths(stacked, temporal, blocks), rates, strict=True)
            ),
            stacked,
            temporal,
        )
        self.latent_width = self.core.widths[self.cut]
        high, wide = padded_size(grid.height), padded_size(grid.width)
        self.latent_grid = (high // 2**levels, wide // 2**levels)
        self.retime = retime(past, lead)
        self.decoder = FrameDecoder(channels, spatial, layers, skips=self.skips, wraps=wraps)

    @staticmethod
    def preset(name: str, grid: GridSpec) -> dict[str, int | float]:
        """Settings by size; the small ones start with a core that does something."""
        light = {"expansion": 2, "drop_path": 0.0, "layer_scale": 1e-2}
        return {
            "paper": {"spatial": 256, "temporal": 512, "layers": 4, "blocks": 8, "heads": 8},
            "small": {"spatial": 16, "temporal": 64, "blocks": 3, "heads": 4, **light},
            "tiny": {"spatial": 4, "temporal": 16, "blocks": 3, "heads": 2, **light},
        }[name]

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """Frames to the latent; the carry is the encoder's features of the levels with a skip."""
        x, levels = self.encoder(pad_grid(past.flatten(0, 1), wraps=self.wraps))
        x, _ = until_cut(self.core, x.unflatten(0, (-1, self.past)).flatten(1, 2), self.cut)
        return x, levels[: self.skips]

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """What is left of the core, then every frame by itself."""
        x = from_cut(self.core, latent, (), self.cut)
        x = self.retime(x.unflatten(1, (self.past, -1)).flatten(0, 1))
        frames = self.decoder(x, [self.retime(level) for level in carry])
        return crop_grid(frames, self.height, self.width).unflatten(0, (-1, self.lead))


class _Block(nn.Module):
    """UniFormer's: a depthwise 3×3 that tells the place, attention, MLP; 1×1 to a new width."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        heads: int,
        expansion: int,
        rate: float,
        scale: float,
        wraps: bool,
    ) -> None:
        super().__init__()
        self.place = Conv(in_width, in_width, 3, groups=in_width, wraps=wraps)
        self.norm1 = nn.LayerNorm(in_width)
        self.attend = SelfAttention(in_width, heads)
        self.norm2 = nn.LayerNorm(in_width)
        self.mlp = nn.Sequential(
            nn.Linear(in_width, expansion * in_width),
            nn.GELU(),
            nn.Linear(expansion * in_width, in_width),
        )
        self.scale1 = nn.Parameter(torch.full((in_width,), scale))
        self.scale2 = nn.Parameter(torch.full((in_width,), scale))
        self.drop = DropPath(rate)
        self.change = nn.Conv2d(in_width, out_width, 1) if in_width != out_width else nn.Identity()

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch e h w"]:
        grid = x.shape[-2:]
        cells = (x + self.place(x)).flatten(2).transpose(1, 2)
        cells = cells + self.drop(self.scale1 * self.attend(self.norm1(cells)))
        cells = cells + self.drop(self.scale2 * self.mlp(self.norm2(cells)))
        return self.change(cells.transpose(1, 2).unflatten(2, grid))


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √(d / heads)) V over all cells, heads side by side (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, cells: Float[Tensor, "batch cell d"]) -> Float[Tensor, "batch cell d"]:
        by_head = self.project(cells).unflatten(2, (3, self.heads, -1))
        query, key, value = by_head.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))
