"""Tensors that travel between the parts: batches, forecasts, tokens (axes as in `core.types`)."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


class ShownByShape:
    """A dataclass of tensors, whose `repr` is their shapes."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_shape(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


def _shape(value: Tensor | tuple | None) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shape, value))})"
    return "None" if value is None else str(tuple(value.shape))


@dataclass(frozen=True, kw_only=True, repr=False)
class Batch(ShownByShape):
    """A batch of examples in physical units; `index` is each one's number within its split."""

    past: Float[Tensor, "batch past channel height width"]
    future: Float[Tensor, "batch lead channel height width"]
    index: Int[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Forecast(ShownByShape):
    """A prediction in physical units, and the latent and `carry` it was decoded from.

    Only teachers that are not ours may have no latent.
    """

    future: Float[Tensor, "batch lead channel height width"]
    latent: Float[Tensor, "batch d h w"] | None
    carry: tuple[Tensor, ...] = ()

    @property
    def feature_pyramid(self) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """Features from shallow to deep, each with its own width and grid: carry, then latent.

        What was encoded frame by frame, (batch·past, d, h, w), becomes (batch, past·d, h, w);
        what is not a grid of features is left out.
        """
        if self.latent is None:
            return ()
        batch = len(self.latent)
        grids = [x for x in self.carry if x.ndim == 4 and len(x) % batch == 0]
        return (*(x.unflatten(0, (batch, -1)).flatten(1, 2) for x in grids), self.latent)


@dataclass(frozen=True, kw_only=True, repr=False)
class Tokens(ShownByShape):
    """Encoded text, and which of its positions are only there to fill the batch."""

    values: Float[Tensor, "batch token width"]
    padding: Bool[Tensor, "batch token"]
