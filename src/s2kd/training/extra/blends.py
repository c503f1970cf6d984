"""Windows made of two: what a teacher can label beyond the windows that there are."""

import torch
from torch import Tensor

from s2kd.core.reading import Size
from s2kd.core.tensors import Batch
from s2kd.training.extra import ExtraWindows, Material, extra_windows


@extra_windows.register("blends")
class Blends(ExtraWindows):
    """Every window blended with others of its split (mixup, Zhang et al. 2018, eq. 1).

    Blend k of window i is share · window i + (1 − share) · window j, frame by frame, with a
    partner j and a share from [½, 1) drawn by `seed`; a blend's number is k · len(windows) + i.
    Its words are those of window i, the larger part. `future` is the truth blended the same way.

    A teacher that labels blends is a function to be matched on more inputs than there is truth for
    (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent").
    """

    has_truth = True

    def __init__(self, material: Material, *, copies: Size = 8) -> None:
        super().__init__(material.windows)
        self.copies, self.seed = copies, material.seed
        size = copies * len(self.windows)
        draw = torch.Generator().manual_seed(self.seed)
        self.partner = torch.randint(len(self.windows), (size,), generator=draw)
        self.share = 0.5 + 0.5 * torch.rand(size, generator=draw)
        self.name, self.key = f"blends{copies}", [copies, self.seed]

    def __len__(self) -> int:
        return len(self.share)

    def of(self, index: Tensor, epoch: int) -> Tensor:
        """The blends of these windows whose turn it is in this epoch."""
        return (epoch % self.copies) * len(self.windows) + index

    def gather(self, index: Tensor) -> Batch:
        """The blends with these numbers, as one batch; `index` is that of their larger parts."""
        index = index.cpu()
        first = self.windows.gather(index % len(self.windows))
        second = self.windows.gather(self.partner[index])
        share = self.share[index].to(first.past.device)[:, None, None, None, None]
        return Batch(
            past=share * first.past + (1 - share) * second.past,
            future=share * first.future + (1 - share) * second.future,
            index=first.index,
        )
