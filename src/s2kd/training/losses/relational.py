"""Relational knowledge distillation (Park et al. 2019): how the examples of a batch lie."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from s2kd.training.losses import Latent, OtherLatent, Scalar, at_least_float32, losses

Vectors = Float[Tensor, "batch d"]
Pairs = Float[Tensor, "batch batch"]


@losses.register("relational", compares="unprojected")
def relational(
    student: Latent, teacher: OtherLatent, *, distance: float = 1.0, angle: float = 2.0
) -> Scalar:
    """`distance` times RKD-D plus `angle` times RKD-A (Park et al. 2019, eqs. 3-9).

    An example is its latent averaged over the cells. Between distances and between angles the
    two sides need not be equally wide, so no projection stands between. Means run over all
    ordered pairs and triplets. A batch of one or two has no angles and only one distance, which
    is 1 after dividing by the mean, and so costs nothing.
    """
    student_vectors, teacher_vectors = (
        at_least_float32(z).mean((-2, -1)) for z in (student, teacher)
    )
    by_distance = F.smooth_l1_loss(distances(student_vectors), distances(teacher_vectors))
    return distance * by_distance + angle * F.smooth_l1_loss(
        angles(student_vectors), angles(teacher_vectors)
    )


def distances(x: Vectors) -> Pairs:
    """Euclidean distance of every pair, divided by the mean of those that are not zero (eq. 4)."""
    length, is_distinct = _lengths(x[None] - x[:, None])
    return length / (length.sum() / is_distinct.sum().clamp_min(1)).clamp_min(1e-12)


def angles(x: Vectors) -> Float[Tensor, "batch batch batch"]:
    """Cosine of the angle at example i between examples j and k (eq. 7); 0 where two coincide."""
    difference = x[None] - x[:, None]
    length, is_distinct = _lengths(difference)
    unit = difference / length.where(is_distinct, 1.0)[..., None]
    return unit @ unit.transpose(1, 2)


def _lengths(difference: Float[Tensor, "batch batch d"]) -> tuple[Pairs, Tensor]:
    """Lengths, and which are not zero: there alone has the root a slope, elsewhere it is 0."""
    squares = difference.square().sum(-1)
    is_distinct = squares > 0
    return squares.where(is_distinct, 1.0).sqrt().where(is_distinct, 0.0), is_distinct
