"""Losses that compare latents or forecasts value by value (eq. 10, standard KD, FitNets)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from s2kd.training.losses import (
    Frames,
    Latent,
    OtherLatent,
    Scalar,
    at_least_float32,
    losses,
)


@losses.register("semantic", compares="latent")
def semantic(student: Latent, teacher: Latent) -> Scalar:
    """Eq. 10, ‖P(Z) − Z_fused‖², as a mean over batch, features and cells.

    The mean keeps the term of order one whatever the size of the latent; with a sum, λ = 1 would
    mean something else for every grid.
    """
    return F.mse_loss(student, teacher)


@losses.register("output", compares="forecast")
def output(student: Frames, teacher: Frames) -> Scalar:
    """Mean squared difference of the two forecasts, in normalised units.

    Hinton, Vinyals and Dean (2015) match softened class probabilities; between two Gaussians of
    one fixed variance their KL divergence is this, and the temperature cancels.
    """
    return F.mse_loss(student, teacher)


@losses.register("fitnet", compares="latent")
def fitnet(student: Latent, teacher: Latent) -> Scalar:
    """Half the mean squared difference of hint and guided feature (Romero et al. 2015, eq. 3).

    What makes it FitNets is whom it learns from, a teacher that never read, and (in the two-stage
    form) when: `hint_epochs` of the method.
    """
    return 0.5 * semantic(student, teacher)


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
