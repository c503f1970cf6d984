"""Standard knowledge distillation, for regression."""

import torch.nn.functional as F

from s2kd.training.losses import Frames, Scalar, losses


@losses.register("output", compares="forecast")
def output(student: Frames, teacher: Frames) -> Scalar:
    """Mean squared difference of the two forecasts, in normalised units.

    Hinton, Vinyals and Dean (2015) match softened class probabilities; between two Gaussians of
    one fixed variance their KL divergence is this, and the temperature cancels.
    """
    return F.mse_loss(student, teacher)
