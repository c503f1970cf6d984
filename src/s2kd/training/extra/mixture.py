"""Several kinds of extra windows at once, drawn by share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from s2kd.core.tensors import Batch
from s2kd.core.types import S2KDError
from s2kd.models.forecasters import Student
from s2kd.training.extra import (
    ExtraWindows,
    Material,
    assembled,
    extra_windows,
    inputs_alone,
    located,
)
from s2kd.training.objectives import Target
from s2kd.training.registries import shares_of

if TYPE_CHECKING:
    from s2kd.training.objectives import Targets


@extra_windows.register("mixture")
class Mixture(ExtraWindows):
    """Windows of several parts: each training window draws one by share, anew in every epoch.

    `parts` are `{"name": …, "params": {…}, "share": …}`; shares count relative to their sum. The
    numbers of the first part come first, then those of the second.
    """

    def __init__(self, material: Material, *, parts: list[dict[str, Any]]) -> None:
        super().__init__(material.windows)
        shares = shares_of({"parts": parts})
        self.seed = material.seed
        self.sources = [extra_windows.build(p.name, material, **p.params) for p in shares]
        self.edges = torch.tensor([part.share for part in shares]).cumsum(0)
        self.edges /= self.edges[-1].clone()
        self.sizes = [len(source) for source in self.sources]
        memories = [source.memory for source in self.sources if source.memory is not None]
        self.memory = nn.ModuleList(memories) if memories else None

    def __len__(self) -> int:
        return sum(self.sizes)

    def of(self, index: Tensor, epoch: int) -> Tensor:
        """A window of the part that each of these windows draws in this epoch."""
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        drawn = torch.rand(len(self.windows), generator=draw)[index.cpu()]
        part = torch.bucketize(drawn, self.edges[:-1], right=True)
        number, first = torch.empty_like(index.cpu()), 0
        for at, source in enumerate(self.sources):
            rows = part == at
            number[rows] = first + source.of(index.cpu()[rows], epoch)
            first += self.sizes[at]
        return number

    def gather(self, index: Tensor) -> Batch:
        """The windows with these numbers, whatever part each is of."""
        batches = [
            (positions, self.sources[part].gather(numbers))
            for part, positions, numbers in located(index, self.sizes)
        ]
        return inputs_alone(
            assembled([(at, batch.past) for at, batch in batches], len(index)),
            assembled([(at, batch.index) for at, batch in batches], len(index)),
        )

    def renew(self, student: Student, epoch: int) -> None:
        for source in self.sources:
            source.renew(student, epoch)


class MixtureTargets:
    """The targets of every part of a mixture, by the mixture's numbers."""

    def __init__(self, sizes: Sequence[int], targets: "Sequence[Targets]") -> None:
        self.sizes, self.targets = sizes, targets
        extents = {getattr(source, "extent", None) for source in targets}
        if len(extents) > 1:
            raise S2KDError(
                "mixture: the latents of its parts cover different areas of the grid; take parts "
                "that one teacher answers"
            )
        (self.extent,) = extents

    def gather(self, index: Tensor, device: torch.device | str) -> Target:
        """The targets of the windows with these numbers."""
        parts = [
            (positions, self.targets[part].gather(numbers, device))
            for part, positions, numbers in located(index, self.sizes)
        ]
        return Target(
            latent=_view([(at, target.latent) for at, target in parts], len(index)),
            forecast=_view([(at, target.forecast) for at, target in parts], len(index)),
        )


def _view(parts: list[tuple[Tensor, Tensor | None]], size: int) -> Tensor | None:
    if any(values is None for _, values in parts):
        return None
    return assembled(parts, size)
