"""Extra windows: further inputs that a teacher answers, for students to match. One file each.

A part is a class `Part(material, *, setting=…)`, a kind of `ExtraWindows`, registered by
`@extra_windows.register("name")`. Its windows have numbers of their own; `of` says which of them go
with a batch of training windows, the *own* windows, in an epoch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from s2kd.core.tensors import Batch
from s2kd.core.types import Statistics
from s2kd.data.dataset import Dataset
from s2kd.data.windows import WindowDataset
from s2kd.models.normaliser import Normaliser
from s2kd.training.registries import extra_windows as extra_windows

if TYPE_CHECKING:
    from s2kd.models.forecasters import Student
    from s2kd.training.labels import Labels
    from s2kd.training.objectives import States, Targets
    from s2kd.training.targets import AnyTeacher, StoredTargets


@dataclass(frozen=True, kw_only=True)
class Material:
    """What extra windows are made from.

    Attributes:
        windows: the own windows, those of the training split.
        statistics: of the training split.
        normaliser: the student's.
        seed: of all draws.
        teacher: frozen, on the device of the windows; None where nothing but labels teaches.
        states: token states of the own windows, for a teacher that reads.
        captures: label stores, checked against the grid.
        unlabelled: windows of past frames alone.
    """

    windows: WindowDataset
    statistics: Statistics
    normaliser: Normaliser
    seed: int
    teacher: "AnyTeacher | None" = None
    states: "States | None" = None
    captures: "tuple[Labels, ...]" = ()
    unlabelled: tuple[WindowDataset, ...] = ()


class ExtraWindows(ABC):
    """Further inputs by number, and which of them an epoch takes.

    Attributes:
        has_truth: whether `future` is the truth, so that they serve without a teacher.
        asks: whether a teacher must answer them that can be asked.
        has_answers: whether they bring `targets` of their own.
        stores_inputs: whether inputs are stored beside the targets, being costly to make.
        reads: fields of the recipe that it reads: `captures`, `unlabelled`.
        memory: state that changes in training and belongs into its checkpoint.
        targets: answers to the windows, where it brings them.
        name: its part of the name of the folder of targets, where these are stored.
        key: JSON-able value of all that the inputs depend on, besides own windows and teacher.
    """

    has_truth: ClassVar[bool] = False
    asks: ClassVar[bool] = True
    has_answers: ClassVar[bool] = False
    stores_inputs: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()
    memory: nn.Module | None = None
    targets: "Targets | None" = None
    name: str = ""
    key: Any = None

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows

    @property
    def dataset(self) -> Dataset:
        """The data of the own windows."""
        return self.windows.dataset

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def of(self, index: Int[Tensor, " batch"], epoch: int) -> Int[Tensor, " batch"]:
        """The numbers of those that go with these own windows in this epoch."""

    @abstractmethod
    def gather(self, index: Int[Tensor, " batch"]) -> Batch:
        """Those with these numbers; `index` of the batch is the own window each comes from.

        `future` has no frames unless `has_truth`.
        """

    def renew(self, student: "Student", epoch: int) -> None:
        """Change with the student, before this epoch; most parts do not."""
        return


class StoredInputs(ExtraWindows):
    """The windows of a part, with inputs from the store of their targets."""

    def __init__(self, part: ExtraWindows, store: "StoredTargets") -> None:
        super().__init__(part.windows)
        self.part, self.store = part, store

    def __len__(self) -> int:
        return len(self.part)

    def of(self, index: Tensor, epoch: int) -> Tensor:
        return self.part.of(index, epoch)

    def gather(self, index: Tensor) -> Batch:
        return inputs_alone(self.store.past(index, self.windows.device))


class InTurn(ExtraWindows):
    """Windows of several sources, one after another, which training takes turn by turn.

    `copies` is how many go with an own window, over the training; 0 for as many as take all.
    `numbers` are those that are taken; None for all.
    """

    def __init__(
        self,
        windows: WindowDataset,
        sizes: Sequence[int],
        *,
        copies: int,
        seed: int,
        numbers: Int[Tensor, " taken"] | None = None,
    ) -> None:
        super().__init__(windows)
        self.sizes, count = sizes, len(windows)
        numbers = torch.arange(sum(sizes)) if numbers is None else numbers
        copies = copies or -(-len(numbers) // count)
        order = cycled(len(numbers), copies * count, seed=seed)
        self.pick = numbers[order].unflatten(0, (copies, count))

    def __len__(self) -> int:
        return sum(self.sizes)

    def of(self, index: Tensor, epoch: int) -> Tensor:
        return self.pick[epoch % len(self.pick)][index.cpu()]


def inputs_alone(
    past: Float[Tensor, "batch past channel height width"], index: Tensor | None = None
) -> Batch:
    """A batch without future; `index`, the own windows, is 0 where it has none."""
    if index is None:
        index = torch.zeros(len(past), dtype=torch.long)
    return Batch(past=past, future=past[:, :0], index=index.to(past.device))


def cycled(count: int, size: int, *, seed: int) -> Int[Tensor, " size"]:
    """`size` numbers below `count`, every one equally often: one shuffled order after another."""
    draw = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=draw) for _ in range(-(-size // count))]
    return torch.cat(orders)[:size]


def located(index: Tensor, sizes: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Numbers that run through several sources: (source, positions in `index`, numbers in it)."""
    ends = torch.tensor(sizes).cumsum(0)
    source = torch.bucketize(index.cpu(), ends, right=True)
    for number in source.unique().tolist():
        positions = (source == number).nonzero().flatten()
        yield number, positions, index.cpu()[positions] - (ends[number] - sizes[number])


def assembled(parts: Sequence[tuple[Tensor, Tensor]], size: int) -> Tensor:
    """Rows from (positions, rows) of every source, in the order of the positions."""
    rows = parts[0][1].new_empty(size, *parts[0][1].shape[1:])
    for positions, values in parts:
        rows[positions.to(rows.device)] = values
    return rows
