"""Knowledge review (Chen et al. 2021): the teacher's features, each from all deeper ones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.reading import AtLeastZero, Size
from s2kd.core.types import S2KDError
from s2kd.models.layers import Conv, match_grids
from s2kd.training.losses import Latent, Scalar, at_least_float32, losses

LEVELS = (4, 2, 1)


@losses.register("review", compares="feature_pyramid")
class Review(nn.Module):
    """Student features fused from deep to shallow (ABF) and compared at several sizes (HCL).

    `student` and `teacher` are the widths of their stages, shallow to deep; as many stages take
    part as both have, counted from the deepest. `wraps` says that columns go round the globe.
    The fused features have `middle` of them, or as many as the student's deepest stage if that
    has fewer. The weight rises over the first `warmup` epochs (0: full at once). Trained with
    the student, and no part of it.
    """

    def __init__(
        self,
        student: Sequence[int],
        teacher: Sequence[int],
        wraps: bool,
        *,
        warmup: AtLeastZero = 20,
        middle: Size = 512,
    ) -> None:
        super().__init__()
        self.count, self.warmup = min(len(student), len(teacher)), warmup
        if self.count == 0:
            raise S2KDError("loss 'review': student and teacher must have at least one stage each")
        middle = min(middle, student[-1])
        pairs = zip(student[-self.count :], teacher[-self.count :], strict=True)
        self.fusions = nn.ModuleList(
            Fusion(student_width, middle, teacher_width, wraps, deepest=number == self.count - 1)
            for number, (student_width, teacher_width) in enumerate(pairs)
        )

    def ramp(self, epoch: int) -> float:
        """Factor of the weight in this epoch (from 0): 1/warmup, 2/warmup, ... 1."""
        return min(1.0, (epoch + 1) / self.warmup) if self.warmup else 1.0

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Scalar:
        """Sum over stages of `hierarchical`, each on the coarser grid of the two."""
        deeper, terms = None, []
        pairs = zip(student[-self.count :], teacher[-self.count :], strict=True)
        for fusion, (feature, teacher_feature) in zip(
            reversed(self.fusions), reversed(list(pairs)), strict=True
        ):
            fused, deeper = fusion(feature, deeper)
            terms.append(hierarchical(*match_grids(fused, teacher_feature)))
        return torch.stack(terms).sum()


class Fusion(nn.Module):
    """Attention-based fusion (ABF, their fig. 3a) of one stage with what the deeper ones gave."""

    def __init__(
        self, in_width: int, middle: int, out_width: int, wraps: bool, *, deepest: bool
    ) -> None:
        super().__init__()
        self.narrow = nn.Sequential(
            nn.Conv2d(in_width, middle, 1, bias=False), nn.BatchNorm2d(middle)
        )
        self.attend = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())
        self.widen = nn.Sequential(
            Conv(middle, out_width, 3, bias=False, wraps=wraps), nn.BatchNorm2d(out_width)
        )
        for layer in (self.narrow[0], self.widen[0]):
            nn.init.kaiming_uniform_(layer.weight, a=1)

    def forward(
        self, feature: Latent, deeper: Float[Tensor, "batch m h1 w1"] | None
    ) -> tuple[Float[Tensor, "batch e h w"], Float[Tensor, "batch m h w"]]:
        """(feature as wide as the teacher's, fused feature for the next shallower stage)."""
        fused = self.narrow(feature)
        if self.attend is not None:
            deeper = F.interpolate(deeper, size=fused.shape[-2:], mode="nearest")
            share = self.attend(torch.cat([fused, deeper], dim=1))
            fused = fused * share[:, :1] + deeper * share[:, 1:]
        return self.widen(fused), fused


def hierarchical(student: Latent, teacher: Latent) -> Scalar:
    """Hierarchical context loss (HCL, their fig. 3b).

    Mean squared difference at full size and of averages over 4×4, 2×2 and 1×1 parts, weighted 1,
    1/2, 1/4, 1/8 over their sum. Parts that would not be coarser than the features, in either
    direction, are left out, and the next weight follows on.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for level in LEVELS:
        if level >= min(student.shape[-2:]):
            continue
        weight /= 2
        weights += weight
        coarse = (F.adaptive_avg_pool2d(z, level) for z in (student, teacher))
        total = total + weight * F.mse_loss(*coarse)
    return total / weights
