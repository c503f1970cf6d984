"""Scaling of physical fields to order one and back, by training statistics."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.types import S2KDError, Statistics


class Normaliser(nn.Module):
    """Physical units to order one and back, per channel; its numbers travel with the weights.

    `offset` and `scale` are for fields. `unit` is what one unit of a backbone's output means:
    the field itself in normalised units (`predict="frames"`), or the change from the last past
    frame in units of `unit` (`predict="change"`). The training loss is measured in `unit` too.
    """

    def __init__(
        self,
        offset: Float[Tensor, " channel"],
        scale: Float[Tensor, " channel"],
        *,
        change: Float[Tensor, " channel"] | None = None,
    ) -> None:
        super().__init__()
        self.predicts_change = change is not None
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())
        # a copy: files of weights refuse two tensors in one memory
        self.register_buffer("unit", (scale if change is None else change).float().clone())

    @classmethod
    def from_statistics(
        cls, statistics: Statistics, *, kind: str = "zscore", predict: str = "frames"
    ) -> "Normaliser":
        """`zscore`: by mean and standard deviation; `minmax`: to 0..1 by training extremes.

        `predict="change"` uses the training root mean square of the change over the lead times,
        as GraphCast (Lam et al. 2023) does for its steps.
        """
        match kind:
            case "zscore":
                offset, scale = np.array(statistics.mean), np.array(statistics.std)
            case "minmax":
                offset = np.array(statistics.minimum)
                scale = np.array(statistics.maximum) - offset
            case _:
                raise S2KDError(f"normalise={kind!r}: must be 'zscore' or 'minmax'")
        match predict:
            case "frames":
                change = None
            case "change":
                change = torch.tensor(statistics.change)
            case _:
                raise S2KDError(f"predict={predict!r}: must be 'frames' or 'change'")
        return cls(torch.from_numpy(offset), torch.from_numpy(scale), change=change)

    def forward(
        self, field: Float[Tensor, "*lead channel height width"]
    ) -> Float[Tensor, "*lead channel height width"]:
        """Physical to normalised."""
        return (field - self.offset[:, None, None]) / self.scale[:, None, None]

    def future(
        self,
        decoded: Float[Tensor, "batch lead channel height width"],
        past: Float[Tensor, "batch past channel height width"],
    ) -> Float[Tensor, "batch lead channel height width"]:
        """A backbone's output in physical units; `past` is physical already."""
        return self._base(past) + decoded * self.unit[:, None, None]

    def decoded(
        self,
        future: Float[Tensor, "batch lead channel height width"],
        past: Float[Tensor, "batch past channel height width"],
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The inverse of `future`: what a backbone should have put out for this."""
        return (future - self._base(past)) / self.unit[:, None, None]

    def _base(self, past: Tensor) -> Tensor:
        return past[:, -1:] if self.predicts_change else self.offset[:, None, None]

    def error(
        self,
        forecast: Float[Tensor, "*lead channel height width"],
        truth: Float[Tensor, "*lead channel height width"],
    ) -> Float[Tensor, "*lead channel height width"]:
        """The difference in `unit`."""
        return (forecast - truth) / self.unit[:, None, None]
