"""The U of Inception layers that mixes stacked frames in SimVP and EarthFarseer."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.models.layers import Conv

KERNELS = (3, 5, 7, 11)
GROUPS = 8


class InceptionLayer(nn.Module):
    """1×1, then grouped 3×3, 5×5, 7×7 and 11×11 side by side, summed (Gao et al. 2022).

    Each of the four has a group norm and a LeakyReLU. There are eight groups, or the largest
    common divisor of eight and the widths where eight does not divide them.
    """

    def __init__(self, in_width: int, hidden: int, out_width: int, *, wraps: bool) -> None:
        super().__init__()
        groups = math.gcd(GROUPS, hidden, out_width)
        self.narrow = nn.Conv2d(in_width, hidden, 1)
        self.views = nn.ModuleList(
            nn.Sequential(
                Conv(hidden, out_width, size, groups=groups, wraps=wraps),
                nn.GroupNorm(groups, out_width),
                nn.LeakyReLU(0.2),
            )
            for size in KERNELS
        )

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch e h w"]:
        x = self.narrow(x)
        total = self.views[0](x)
        for view in list(self.views)[1:]:
            total = total + view(x)
        return total


class InceptionCore(nn.Module):
    """`blocks` layers down to `temporal` features and as many back, with concatenated skips.

    The grid stays the same; "down" and "up" are the two arms of the U. `between` works on its
    lowest point.
    """

    def __init__(
        self,
        stacked: int,
        temporal: int,
        blocks: int,
        *,
        wraps: bool,
        between: nn.Module | None = None,
    ) -> None:
        super().__init__()
        hidden = temporal // 2
        self.widths = (stacked, temporal, stacked)
        self.down = nn.ModuleList(
            InceptionLayer(stacked if i == 0 else temporal, hidden, temporal, wraps=wraps)
            for i in range(blocks)
        )
        self.between = between if between is not None else nn.Identity()
        self.up = nn.ModuleList(
            InceptionLayer(
                temporal if i == 0 else 2 * temporal,
                hidden,
                stacked if i == blocks - 1 else temporal,
                wraps=wraps,
            )
            for i in range(blocks)
        )

    def first(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The arm down and what is between; what every layer but the last gave is kept."""
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        return self.between(x), tuple(skips[:-1])

    def second(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The arm up, each layer but the first beside what was kept last."""
        x = self.up[0](x)
        for layer, skip in zip(list(self.up)[1:], reversed(skips), strict=True):
            x = layer(torch.cat([x, skip], dim=1))
        return x
