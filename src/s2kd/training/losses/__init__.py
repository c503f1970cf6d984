"""Distillation losses: plain functions of what student and teacher hold. One file each.

Decorate a function `loss(student, teacher, *, setting=…) -> scalar` with
`@losses.register("name", compares="latent")`; `compares` says what it is given of each side:

- `latent`: P(Z) and Z_fused, equally wide and on one grid
- `unprojected`: Z and Z_fused on one grid, each as wide as it is
- `forecast`: the two forecasts in normalised units; where the grid has a mask, only the cells that
  exist, in one row (height 1)
- `feature_pyramid`: the features from shallow to deep. Such a loss has weights of its own,
  so it is a class, `Loss(student_widths, teacher_widths, wraps, *, setting=…)`, whose `forward`
  takes the two lists of features and whose `ramp(epoch)` is a factor of its weight.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.training.registries import losses as losses

Latent = Float[Tensor, "batch d h w"]
OtherLatent = Float[Tensor, "batch e h w"]
Frames = Float[Tensor, "batch lead channel height width"]
Scalar = Float[Tensor, ""]
LossFn = Callable[[Tensor, Tensor], Tensor]


def at_least_float32(x: Tensor) -> Tensor:
    """float32 at least: half precision is too short for sums of squares, and FFTs refuse it."""
    return x if x.dtype == torch.float64 else x.float()
