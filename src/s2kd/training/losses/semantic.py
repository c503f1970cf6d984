"""Semantic alignment (eq. 10)."""

import torch.nn.functional as F

from s2kd.training.losses import Latent, Scalar, losses


@losses.register("semantic", compares="latent")
def semantic(student: Latent, teacher: Latent) -> Scalar:
    """Eq. 10, ‖P(Z) − Z_fused‖², as a mean over batch, features and cells.

    The mean keeps the term of order one whatever the size of the latent; with a sum, λ = 1 would
    mean something else for every grid.
    """
    return F.mse_loss(student, teacher)
