"""Layers that several backbones share: padding that knows the globe, convolutions on top of it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.types import S2KDError

MULTIPLE = 8
"""Backbones pad their grid to this multiple, so that their latents line up.

One that must pad further (it reads large patches) says how far in `extent`, see `extent_of`.
"""


def wrap_columns(
    x: Float[Tensor, "batch d h w"], left: int, right: int
) -> Float[Tensor, "batch d h wide"]:
    """Repeat the eastern edge in the west and the western edge in the east."""
    parts = [x[..., x.shape[-1] - left :]] if left else []
    return torch.cat([*parts, x, x[..., :right]], dim=-1)


def padded_size(length: int, multiple: int = MULTIPLE) -> int:
    """`length` rounded up to the multiple."""
    return -(-length // multiple) * multiple


def pad_grid(
    x: Float[Tensor, "batch d h w"], *, wraps: bool, multiple: int = MULTIPLE
) -> Float[Tensor, "batch d high wide"]:
    """Grow the grid at the bottom and the right to a multiple.

    New rows repeat the last row. New columns go on round the globe where the grid wraps and
    repeat the last column elsewhere. `crop_grid` takes them off again.
    """
    down = padded_size(x.shape[-2], multiple) - x.shape[-2]
    right = padded_size(x.shape[-1], multiple) - x.shape[-1]
    if not down and not right:
        return x
    while wraps and right:  # a grid narrower than its padding goes round more than once
        step = min(right, x.shape[-1])
        x, right = wrap_columns(x, 0, step), right - step
    return F.pad(x, (0, right, 0, down), mode="replicate")


def crop_grid(
    x: Float[Tensor, "batch d high wide"], height: int, width: int
) -> Float[Tensor, "batch d h w"]:
    """The top left part that `pad_grid` started from."""
    return x[..., :height, :width]


def extent_of(backbone: nn.Module, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the padded grid that a backbone's latent covers.

    What the backbone says in `extent`, else the grid of `height` × `width` padded to `MULTIPLE`.
    """
    return getattr(backbone, "extent", (padded_size(height), padded_size(width)))


def crop_features(
    x: Float[Tensor, "batch d h w"], covered: tuple[int, int], wanted: tuple[int, int]
) -> Float[Tensor, "batch d h2 w2"]:
    """Of features that cover one area, those of the `wanted` part at its top left.

    Both areas in (rows, columns) of the grid. Where the part's edge cuts through a feature, fewer
    and slightly larger ones share the part evenly, each the mean of those under it by area.
    """
    for axis in (0, 1):
        if wanted[axis] < covered[axis]:
            mean = _means(x.shape[axis - 2], wanted[axis] / covered[axis]).to(x)
            x = (x.movedim(axis - 2, -1) @ mean).movedim(-1, axis - 2)
    return x


def _means(count: int, share: float) -> Float[Tensor, "cell part"]:
    """Weights by which `count` cells in a row become those of the first `share` of the row."""
    reach = count * share
    edges = torch.linspace(0, reach, max(1, int(reach + 1e-6)) + 1, dtype=torch.float64)
    cell = torch.arange(count)[:, None]
    overlap = (edges[1:].clamp(max=count).minimum(cell + 1) - edges[:-1].maximum(cell)).clamp(min=0)
    return overlap / overlap.sum(0)


class Conv(nn.Conv2d):
    """A convolution that keeps the grid's size (divided by its stride).

    Outside the grid are zeros in the north and south; east and west too, unless the grid wraps:
    then the columns go on round the globe.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        wraps: bool,
    ) -> None:
        reach = dilation * (size - 1) // 2
        super().__init__(
            in_width,
            out_width,
            size,
            stride=stride,
            padding=(reach, 0 if wraps else reach),
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.reach = reach if wraps else 0

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch out hs ws"]:
        """Wrap, then convolve. A reach beyond the whole width goes round as often as needed."""
        remaining = self.reach
        while remaining > 0:
            step = min(remaining, x.shape[-1])
            x = wrap_columns(x, step, step)
            remaining -= step
        return super().forward(x)


class DropPath(nn.Module):
    """Leave out a residual branch for some examples (Huang et al. 2016, stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Zero for the left-out examples, scaled up for the others so that the mean stays."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        drawn = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype)
        return x * (drawn < keep) / keep


GROUPS = 4
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(GROUPS, width),
}


def make_norm(name: str, width: int) -> nn.Module:
    """Batch norm, as most backbones were published with, or group norm (four groups; Wu & He 2018).

    Group norm keeps no running means, which mislead where one series drifts in level, and are noisy
    where batches are small. But it norms every field by itself, and so forgets how strong it is:
    for fires stronger than those of training it erred about twice as much as batch norm
    (docs/log.md). Raises `S2KDError` for another name, or a width that groups do not divide.
    """
    if name not in NORMS or (name == "group" and width % GROUPS):
        raise S2KDError(
            f"norm must be {' or '.join(NORMS)}, for group with a width that is a multiple of "
            f"{GROUPS}; got norm={name!r}, width={width}"
        )
    return NORMS[name](width)


def match_grids(
    one: Float[Tensor, "batch d h1 w1"], other: Float[Tensor, "batch e h2 w2"]
) -> tuple[Float[Tensor, "batch d h w"], Float[Tensor, "batch e h w"]]:
    """Both on the coarser of the two grids, by area averaging.

    Enlarging instead would invent frequencies and then penalise them.
    """
    size = (min(one.shape[-2], other.shape[-2]), min(one.shape[-1], other.shape[-1]))
    return _shrink(one, size), _shrink(other, size)


def _shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == size else F.adaptive_avg_pool2d(x, size)


def parameter_count(module: nn.Module) -> int:
    """Learned numbers (buffers are not counted)."""
    return sum(p.numel() for p in module.parameters())
