"""What backbones that encode frame by frame share: encoder, decoder, core and its cuts."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor, cat, nn

from s2kd.models.layers import Conv, wrap_columns
from s2kd.models.registry import Cut


@runtime_checkable
class Core(Protocol):
    """What works on all frames at once, stacked as channels, in two halves.

    `widths` are its features before, between and after the halves; the first half also gives
    what the second needs besides the features (skips inside the core).
    """

    widths: tuple[int, int, int]

    def first(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]: ...

    def second(self, x: Tensor, kept: Sequence[Tensor]) -> Tensor: ...


def halves_before(cut: Cut) -> int:
    """How many halves of the core lie before the cut."""
    return get_args(Cut).index(cut)


def until_cut(core: Core, x: Tensor, cut: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The latent, and what `from_cut` needs besides it."""
    skips: tuple[Tensor, ...] = ()
    if cut > 0:
        x, skips = core.first(x)
    return (core.second(x, skips), ()) if cut == 2 else (x, skips)


def from_cut(core: Core, latent: Tensor, skips: Sequence[Tensor], cut: int) -> Tensor:
    """What of the core is left after the cut."""
    if cut == 0:
        latent, skips = core.first(latent)
    return latent if cut == 2 else core.second(latent, skips)


def core_widths(stacked: int, temporal: int, blocks: int) -> list[tuple[int, int]]:
    """Features (in, out) of each block: the first leaves the stacked frames, the last returns."""
    ends = [stacked, *[temporal] * (blocks - 1), stacked]
    return list(pairwise(ends))


class BlockCore(nn.ModuleList):
    """A `Core` of equal blocks one after another, without skips."""

    def __init__(self, blocks: Iterable[nn.Module], stacked: int, temporal: int) -> None:
        super().__init__(blocks)
        self.widths = (stacked, temporal, stacked)

    def first(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The first half of the blocks; they keep nothing."""
        for block in list(self)[: len(self) // 2]:
            x = block(x)
        return x, ()

    def second(self, x: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """The other half."""
        for block in list(self)[len(self) // 2 :]:
            x = block(x)
        return x


class Retime(nn.Linear):
    """`past` frames to `lead` by one linear mixing over time for all features and cells."""

    def __init__(self, past: int, lead: int) -> None:
        super().__init__(past, lead, bias=False)

    def forward(self, x: Float[Tensor, "frames d h w"]) -> Float[Tensor, "others d h w"]:
        by_time = x.unflatten(0, (-1, self.in_features)).movedim(1, -1)
        return super().forward(by_time).movedim(-1, 1).flatten(0, 1)


def retime(past: int, lead: int) -> nn.Module:
    """As many frames as are to be forecast; nothing where there are as many already."""
    return Retime(past, lead) if lead != past else nn.Identity()


class Enlarge(nn.ConvTranspose2d):
    """3×3 transposed convolution with stride 2: twice the grid's size.

    The last column of the result lies between the last of the input and the next one east: that
    is the first where the grid wraps, and zero elsewhere.
    """

    def __init__(self, in_width: int, out_width: int, *, wraps: bool) -> None:
        super().__init__(in_width, out_width, 3, stride=2, padding=1, output_padding=1)
        self.wraps = wraps

    def forward(self, x: Float[Tensor, "batch d h w"]) -> Float[Tensor, "batch e 2*h 2*w"]:
        if not self.wraps:
            return super().forward(x)
        return super().forward(wrap_columns(x, 0, 1))[..., : 2 * x.shape[-1]]


def _normed(layer: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.GroupNorm(2, width), nn.LeakyReLU(0.2))


class FrameEncoder(nn.ModuleList):
    """3×3 convolutions of one width, group norm of 2, LeakyReLU; every second halves the grid."""

    def __init__(self, channels: int, width: int, layers: int, *, wraps: bool) -> None:
        super().__init__(
            _normed(
                Conv(channels if i == 0 else width, width, 3, stride=1 + i % 2, wraps=wraps), width
            )
            for i in range(layers)
        )

    def forward(self, x: Float[Tensor, "frames c high wide"]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The features on the coarsest grid, and each finer level's last ones, finest first."""
        levels = []
        for number, layer in enumerate(self):
            x = layer(x)
            if number % 2 == 0:
                levels.append(x)
        return x, tuple(levels)


class FrameDecoder(nn.Module):
    """The encoder's mirror; the `skips` finest levels get the encoder's features beside theirs."""

    def __init__(self, channels: int, width: int, layers: int, *, skips: int, wraps: bool) -> None:
        super().__init__()
        self.skips, levels = skips, layers // 2
        self.enlarge = nn.ModuleList(
            _normed(Enlarge(width, width, wraps=wraps), width) for _ in range(levels)
        )
        self.smooth = nn.ModuleList(
            _normed(Conv(width * (2 if level < skips else 1), width, 3, wraps=wraps), width)
            for level in reversed(range(levels))
        )
        self.readout = nn.Conv2d(width, channels, 1)

    def forward(
        self, x: Float[Tensor, "frames d h w"], levels: Sequence[Tensor]
    ) -> Float[Tensor, "frames c high wide"]:
        """`levels` are as many encoder features as `skips` says, finest first."""
        level = len(self.enlarge)
        for enlarge, smooth in zip(self.enlarge, self.smooth, strict=True):
            level -= 1
            x = enlarge(x)
            x = smooth(cat([x, levels[level]], dim=1) if level < self.skips else x)
        return self.readout(x)
