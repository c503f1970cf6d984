"""A recipe at work in a folder, on a machine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from s2kd.core.recipe import Recipe
from s2kd.core.types import S2KDError, Statistics
from s2kd.data import datasets
from s2kd.data.dataset import Dataset
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.cell_events import CellEvent, cell_events
from s2kd.evaluation.climatology import Climatology
from s2kd.models.layers import padded_size
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.text.states import TextStates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Report = Callable[[int, int, str], None]
"""Progress of one stage: done, total, a word."""


def silent(stage: str) -> Report:
    """Progress that nobody watches."""
    return lambda done, total, word: None


PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to compute: Lightning Fabric's own words for it."""

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    strategy: str = "auto"
    tensorboard: bool = False
    target_gigabytes: float = 20.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise S2KDError(
                f"--precision {self.precision}: must be one of {', '.join(PRECISIONS)} (weights "
                "and data stay in single precision)"
            )
        for name, value in (("devices", self.devices), ("nodes", self.nodes)):
            if value < 1 and (name, value) != ("devices", -1):  # -1: all that there are
                raise S2KDError(f"--{name} {value}: must be at least 1")


@dataclass(eq=False, kw_only=True)
class Run:
    """One recipe in one folder; what is costly is made when first asked for.

    With a `horizon` of 2 or more, scores include a roll-out to so many times the lead.
    """

    recipe: Recipe
    out: Path
    machine: Machine = Machine()
    report: Callable[[str], Report] = silent
    say: Callable[[str], None] = lambda text: None
    save_seconds: float = 20.0
    horizon: int = 0
    _states: dict[str, TextStates] = field(default_factory=dict)

    @cached_property
    def fabric(self) -> "Fabric":
        """Lightning Fabric, launched."""
        import warnings

        from lightning_fabric import Fabric

        warnings.filterwarnings("ignore", module="lightning_fabric")
        machine, strategy = self.machine, self.machine.strategy
        many = machine.devices != 1 or machine.nodes > 1
        if many and strategy in ("auto", "ddp") and any(m.hint_epochs for m in self.recipe.methods):
            # while a student is hinted at, what lies behind its latent gets no gradient
            strategy = "ddp_find_unused_parameters_true"
        try:
            fabric = Fabric(
                accelerator=machine.accelerator,
                devices=machine.devices,
                num_nodes=machine.nodes,
                precision=machine.precision,
                strategy=strategy,
            )
            fabric.launch()
        except Exception as error:  # of a dozen kinds, some of packages that are not installed
            reason = " ".join(str(error).split()) or type(error).__name__
            raise S2KDError(
                f"--accelerator {machine.accelerator} --devices {machine.devices} "
                f"--nodes {machine.nodes} --strategy {machine.strategy}: not on this machine, "
                f"says Lightning Fabric ({reason})"
            ) from None
        return fabric

    @cached_property
    def dataset(self) -> Dataset:
        """The frames and splits."""
        self.say(f"Reading {self.recipe.dataset.name}")
        dataset = datasets.build(self.recipe.dataset.name, **self.recipe.dataset.params)
        for notice in dataset.notices:
            self.say(notice)
        size = (dataset.grid.height, dataset.grid.width)
        padded = tuple(padded_size(length) for length in size)
        if size != padded:
            self.say(
                f"The grid of {size[0]}×{size[1]} is padded to {padded[0]}×{padded[1]} inside the "
                "models and cropped again (large grids that are read in patches: a little more)"
            )
        return dataset

    @cached_property
    def known(self) -> Statistics:
        """Statistics of the training split."""
        return statistics(self.dataset, lead=self.recipe.lead)

    @cached_property
    def climatology(self) -> Climatology:
        """What is usual in the training split."""
        return Climatology.fit(self.dataset)

    @cached_property
    def cell_events(self) -> tuple[CellEvent, ...]:
        """Rare events by every cell's own training quantiles."""
        self.say("Measuring every cell's quantiles over the training split")
        recipe = self.recipe
        return cell_events(
            self.dataset, past=recipe.past, lead=recipe.lead, climatology=self.climatology
        )

    @cached_property
    def narrator(self) -> Narrator:
        """What puts windows into words."""
        return narrators.build(self.recipe.narrator.name, **self.recipe.narrator.params)

    def windows(self, split: str, *, device: torch.device | str = "cpu") -> WindowDataset:
        """The examples of one split; test windows have a stride of their own."""
        recipe = self.recipe
        stride = recipe.test_stride if split.startswith("test") else recipe.stride
        return WindowDataset(
            self.dataset, split, past=recipe.past, lead=recipe.lead, stride=stride, device=device
        )

    @property
    def test_splits(self) -> list[str]:
        """`test` and every further `test_…`."""
        return [name for name in self.dataset.splits if name.startswith("test")]

    @property
    def kinds(self) -> list[str]:
        """The teachers that this recipe's methods learn from; `text` is always shown."""
        asked = {method.teacher for method in self.recipe.methods}
        return [kind for kind in ("text", "blind") if kind in asked]

    def states(self, split: str) -> TextStates:
        """Token states of the split's narratives, from the store."""
        if split not in self._states:
            self._states[split] = TextStates.load(self.out / "states" / f"{split}.safetensors")
        return self._states[split]

    def first_only(self, work: Callable[[], object]) -> None:
        """Let the first process do it; the others wait."""
        if self.fabric.is_global_zero:
            work()
        self.fabric.barrier()
