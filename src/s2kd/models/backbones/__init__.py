"""Backbones: what sees. A student is a backbone; a teacher is a backbone that reads.

One file each; decorate the class with `@backbones.register("name")`. Its constructor takes the
`GridSpec` and keyword-only settings, of which `past` and `lead` (numbers of frames) are two.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from s2kd.models.registry import PRESETS as PRESETS
from s2kd.models.registry import backbones as backbones

Carry = tuple[Tensor, ...]
"""What `decode` needs besides the latent (skip connections); empty for most."""


@runtime_checkable
class Backbone(Protocol):
    """Past frames to a latent grid, and back to future frames; both normalised.

    Where the latent covers another area than the grid padded to `nn.MULTIPLE`, the backbone also
    has `extent`: (rows, columns) of the grid that it covers, counted from the top left.
    """

    latent_width: int
    latent_grid: tuple[int, int]

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]: ...

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]: ...
