"""FitNets' hints."""

from s2kd.training.losses import Latent, Scalar, losses
from s2kd.training.losses.semantic import semantic


@losses.register("fitnet", compares="latent")
def fitnet(student: Latent, teacher: Latent) -> Scalar:
    """Half the mean squared difference of hint and guided feature (Romero et al. 2015, eq. 3).

    What makes it FitNets is whom it learns from, a teacher that never read, and (in the two-stage
    form) when: `hint_epochs` of the method.
    """
    return 0.5 * semantic(student, teacher)
