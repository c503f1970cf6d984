"""SimVP (Gao et al. 2022) with its Inception translator or the gated one (Tan et al. 2022)."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import Blocks, Even, Rate, Size
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.backbones import Carry, backbones
from s2kd.models.backbones._frames import (
    BlockCore,
    core_widths,
    from_cut,
    halves_before,
    retime,
    until_cut,
)
from s2kd.models.backbones._inception import InceptionCore
from s2kd.models.layers import Conv, DropPath, crop_grid, pad_grid, padded_size
from s2kd.models.registry import Cut


@backbones.register("simvp")
class SimVP(nn.Module):
    """Frames are encoded one by one, mixed over time at low resolution, decoded one by one.

    `spatial` (hid_S) features a frame, `layers` (N_S) convolutions of which every second halves
    the grid, `temporal` (hid_T) features and `blocks` (N_T) in the translator, which sees all
    frames as channels. `fuse_at` is where a teacher reads: before the translator, in its middle
    or after it. `skip=False` drops the encoder's skip so that all passes through the latent.
    For `lead` ≠ `past` the frames are mixed linearly in the decoder. The layers and their sizes
    follow OpenSTL's description; with 10 frames of 1 channel, 64, 512, 4 and 8 it has the
    published 46.77 million parameters for one skip and `past` = `lead`.

    `translator` is `gsta`, gated large kernels with an `expansion`-fold MLP and `drop_path`, or
    `inception` (version 1), a U of `blocks` Inception layers down and as many up, which has
    neither. The U's own skips pass by a latent in its middle.
    """

    def __init__(
        self,
        grid: GridSpec,
        *,
        past: int,
        lead: int,
        spatial: Even = 64,
        temporal: Size = 512,
        layers: Literal[2, 4, 6] = 4,
        blocks: Blocks = 8,
        translator: Literal["gsta", "inception"] = "gsta",
        expansion: Size = 8,
        drop_path: Rate = 0.1,
        fuse_at: Cut = "post",
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.cut = halves_before(fuse_at)
        self._check_translator(translator, temporal, fuse_at, skip)
        channels, wraps = len(grid.channels), grid.wraps
        self.past, self.lead, self.wraps, self.skip = past, lead, wraps, skip
        self.height, self.width = grid.height, grid.width
        halvings = [i % 2 == 1 for i in range(layers)]
        self.encoder = nn.ModuleList(
            _Down(channels if i == 0 else spatial, spatial, halve, wraps)
            for i, halve in enumerate(halvings)
        )
        stacked = past * spatial
        self.translator: BlockCore | InceptionCore
        if translator == "inception":
            self.translator = InceptionCore(stacked, temporal, blocks, wraps=wraps)
        else:
            rates = np.linspace(min(0.01, drop_path), drop_path, blocks).tolist()
            gated = (
                _GatedBlock(i, o, expansion, rate, wraps)
                for (i, o), rate in zip(core_widths(stacked, temporal, blocks), rates, strict=True)
            )
            self.translator = BlockCore(gated, stacked, temporal)
        self.latent_width = self.translator.widths[self.cut]
        shrink = 2 ** (layers // 2)
        self.latent_grid = (padded_size(grid.height) // shrink, padded_size(grid.width) // shrink)
        self.retime = retime(past, lead)
        self.decoder = nn.ModuleList(_Up(spatial, enlarge, wraps) for enlarge in reversed(halvings))
        self.readout = nn.Conv2d(spatial, channels, 1)

    @staticmethod
    def preset(name: str, grid: GridSpec) -> dict[str, int | float]:
        """Settings by size; `paper` is the deep variant that teaches on fires."""
        return {
            "paper": {"spatial": 64, "temporal": 512, "layers": 4, "blocks": 14},
            "small": {"spatial": 16, "temporal": 64, "blocks": 3, "expansion": 2, "drop_path": 0.0},
            "tiny": {"spatial": 4, "temporal": 16, "blocks": 3, "expansion": 2, "drop_path": 0.0},
        }[name]

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """Frames to the latent; the carry is the first layer's output, at full resolution."""
        x = pad_grid(past.flatten(0, 1), wraps=self.wraps)
        x = first = self.encoder[0](x)
        for layer in self.encoder[1:]:
            x = layer(x)
        x = x.unflatten(0, (-1, self.past)).flatten(1, 2)
        x, skips = until_cut(self.translator, x, self.cut)
        return x, (first, *skips) if self.skip else skips

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """What is left of the translator, then every frame by itself."""
        skips = carry[1:] if self.skip else carry
        x = from_cut(self.translator, latent, skips, self.cut)
        x = self.retime(x.unflatten(1, (self.past, -1)).flatten(0, 1))
        for layer in self.decoder[:-1]:
            x = layer(x)
        if self.skip:
            x = x + self.retime(carry[0])
        frames = crop_grid(self.readout(self.decoder[-1](x)), self.height, self.width)
        return frames.unflatten(0, (-1, self.lead))

    @staticmethod
    def _check_translator(translator: str, temporal: int, fuse_at: str, skip: bool) -> None:
        if translator == "inception" and temporal % 2:
            raise S2KDError(
                "backbone 'simvp': temporal must be even with translator 'inception', "
                f"got {temporal}"
            )
        if translator == "inception" and fuse_at == "mid" and not skip:
            raise S2KDError(
                "backbone 'simvp': skip=False cannot be had with translator 'inception' and "
                "fuse_at 'mid', where the translator's own skips pass by the latent; "
                "fuse 'pre' or 'post'"
            )


class _Down(nn.Sequential):
    """3×3 convolution, group norm, SiLU; with stride 2 it halves the grid."""

    def __init__(self, in_width: int, out_width: int, halve: bool, wraps: bool) -> None:
        super().__init__(
            Conv(in_width, out_width, 3, stride=2 if halve else 1, wraps=wraps),
            nn.GroupNorm(2, out_width),
            nn.SiLU(),
        )


class _Up(nn.Sequential):
    """3×3 convolution, group norm, SiLU; pixel shuffle where it doubles the grid."""

    def __init__(self, width: int, enlarge: bool, wraps: bool) -> None:
        factor = 2 if enlarge else 1
        super().__init__(
            Conv(width, width * factor**2, 3, wraps=wraps),
            nn.PixelShuffle(factor) if enlarge else nn.Identity(),
            nn.GroupNorm(2, width),
            nn.SiLU(),
        )


class _GatedBlock(nn.Module):
    """Gated large-kernel attention, then a convolutional MLP; a 1×1 where the width changes."""

    def __init__(
        self, in_width: int, out_width: int, expansion: int, rate: float, wraps: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_width)
        self.attend = _GatedAttention(in_width, wraps)
        self.norm2 = nn.BatchNorm2d(in_width)
        self.mlp = nn.Sequential(
            nn.Conv2d(in_width, in_width * expansion, 1),
            Conv(
                in_width * expansion,
                in_width * expansion,
                3,
                groups=in_width * expansion,
                wraps=wraps,
            ),
            nn.GELU(),
            nn.Conv2d(in_width * expansion, in_width, 1),
        )
        self.scale1 = nn.Parameter(torch.full((in_width, 1, 1), 1e-2))
        self.scale2 = nn.Parameter(torch.full((in_width, 1, 1), 1e-2))
        self.drop = DropPath(rate)
        self.change = nn.Conv2d(in_width, out_width, 1) if in_width != out_width else nn.Identity()

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch e h w"]:
        x = x + self.drop(self.scale1 * self.attend(self.norm1(x)))
        x = x + self.drop(self.scale2 * self.mlp(self.norm2(x)))
        return self.change(x)


class _GatedAttention(nn.Module):
    """A 21×21 receptive field from a 5×5 and a dilated 7×7 depthwise kernel, gated by itself."""

    def __init__(self, width: int, wraps: bool) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU())
        self.near = Conv(width, width, 5, groups=width, wraps=wraps)
        self.far = Conv(width, width, 7, dilation=3, groups=width, wraps=wraps)
        self.gate = nn.Conv2d(width, 2 * width, 1)
        self.after = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch d h w"]:
        value, gate = self.gate(self.far(self.near(self.before(x)))).chunk(2, dim=1)
        return x + self.after(torch.sigmoid(gate) * value)
