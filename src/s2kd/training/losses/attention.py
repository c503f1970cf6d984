"""Attention transfer (Zagoruyko and Komodakis 2017): where the latent is strong."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from s2kd.training.losses import Latent, OtherLatent, Scalar, at_least_float32, losses


@losses.register("attention", compares="unprojected")
def attention(student: Latent, teacher: OtherLatent) -> Scalar:
    """Mean squared difference of the two attention maps, over batch and cells.

    The maps have no features, so both latents come as they are: with a learned projection
    between, the projection could be strong where the teacher is and the student learn nothing.
    """
    return F.mse_loss(attention_map(student), attention_map(teacher))


def attention_map(latent: Latent) -> Float[Tensor, "batch cell"]:
    """Mean of the squared features, as one vector a window of length 1 (their sec. 3.1, p = 2)."""
    return F.normalize(at_least_float32(latent).square().mean(1).flatten(1), dim=1)
