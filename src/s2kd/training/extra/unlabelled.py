"""Past frames whose future nobody has: before gaps, at ends of records, in files of their own."""

import numpy as np
from torch import Tensor

from s2kd.core.files import digest
from s2kd.core.reading import AtLeastZero
from s2kd.core.tensors import Batch
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.training.extra import (
    InTurn,
    Material,
    assembled,
    extra_windows,
    inputs_alone,
    located,
)


@extra_windows.register("unlabelled")
class Unlabelled(InTurn):
    """Windows of past frames alone, which the teacher answers.

    They are those at the end of every stretch of the training split, before a gap or the end of
    the record, where no whole future follows, and all of the recipe's `unlabelled` files. Frames
    between the splits are left alone. `copies` is how many go with a training window, over the
    training; 0 for as many as take all in turn.
    """

    reads = ("unlabelled",)

    def __init__(self, material: Material, *, copies: AtLeastZero = 0) -> None:
        if material.teacher is None or material.states is not None:
            raise S2KDError(
                "unlabelled: windows without future need a teacher that can be asked and reads no "
                "narratives; set the method's teacher to no_text or given"
            )
        ends = ends_of(material.windows)
        self.sources = [*([ends] if ends is not None else []), *material.unlabelled]
        if not self.sources:
            raise S2KDError(
                "unlabelled: every window of the training split has its future; name files of "
                "further frames by the recipe's unlabelled"
            )
        sizes = [len(source) for source in self.sources]
        super().__init__(material.windows, sizes, copies=copies, seed=material.seed)
        prints = [[s.dataset.fingerprint, digest(s.starts.tolist())] for s in self.sources]
        self.name, self.key = "unlabelled", ["unlabelled", prints]

    def gather(self, index: Tensor) -> Batch:
        """Those with these numbers: first the ends of stretches, then the files."""
        rows = [
            (positions, self.sources[source].gather(numbers).past)
            for source, positions, numbers in located(index, self.sizes)
        ]
        return inputs_alone(assembled(rows, len(index)))


def ends_of(windows: WindowDataset) -> WindowDataset | None:
    """The windows of a split whose past lies in it and whose future goes beyond; None: none."""
    stretches = windows.dataset.splits[windows.split]
    starts = [
        np.arange(max(s.first, s.stop - windows.past - windows.lead + 1), s.stop - windows.past + 1)
        for s in stretches
    ]
    numbers = np.concatenate([np.zeros(0, np.int64), *starts]).astype(np.int64)
    if not len(numbers) or windows.dataset.window is not None:
        return None
    ends = WindowDataset(
        windows.dataset, windows.split, past=windows.past, lead=0, device=windows.device
    )
    ends.starts = numbers
    return ends
