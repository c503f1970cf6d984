"""A recipe in a folder, on a machine; data, statistics and narrator are loaded when needed."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace

import s2kd
from s2kd.core.console import Progress
from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Recipe
from s2kd.core.types import Statistics
from s2kd.data import load, load_frames
from s2kd.data.dataset import Dataset
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.events import CellEvents, cell_events
from s2kd.models.checkpoint import Setting
from s2kd.models.given import GivenTeacher, check_frames, given_teacher, open_teacher
from s2kd.models.layers import padded_size
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.text.states import TextStates
from s2kd.pipeline.options import Machine

if TYPE_CHECKING:
    import xarray as xr
    from lightning_fabric import Fabric

    from s2kd.training.labels import Labels
    from s2kd.training.loop import OnEpoch


def silent(stage: str) -> Progress:
    """Progress that nobody watches."""
    return lambda done, total, word="": None


@dataclass(eq=False, kw_only=True, repr=False)
class Run:
    """One recipe in one folder; what is costly is loaded when first needed.

    `progress(stage)` returns the `Progress` of one stage. With a `horizon` of 2 or more, scores
    include a roll-out to that multiple of the lead. `data` are those of the reader `memory`,
    `given` is a teacher in memory, and `on_epoch` sees the record of every epoch of every training
    (`training.loop.fit`).
    """

    recipe: Recipe
    out: Path
    data: "xr.Dataset | xr.DataArray | None" = None
    given: Callable[[torch.Tensor], object] | None = None
    machine: Machine = Machine()  # noqa: RUF009
    progress: Callable[[str], Progress] = silent
    say: Callable[[str], None] = lambda text: None
    save_seconds: float = 20.0
    horizon: int = 0
    on_epoch: "OnEpoch | None" = None
    _states: dict[str, TextStates] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Run({str(self.out)!r}, {self.recipe})"

    def narrowed(self, **changes: Any) -> "Run":
        """The same run with these fields of its recipe changed; loaded data are shared."""
        run = copy.copy(self)
        run.recipe = replace(self.recipe, **changes)
        return run

    @cached_property
    def fabric(self) -> "Fabric":
        """Lightning Fabric, launched."""
        from lightning_fabric import Fabric

        warnings.filterwarnings("ignore", module="lightning_fabric")
        machine, strategy = self.machine, self.machine.strategy
        several = machine.devices != 1 or machine.nodes > 1
        hints = any(method.hint_epochs for method in self.recipe.methods)
        if several and hints and strategy in ("auto", "ddp"):
            # during hint epochs, the layers behind the latent get no gradient
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
        except Exception as error:  # of a dozen types, some of packages that are not installed
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
        recipe = self.recipe
        dataset = load(recipe.dataset, recipe.split, recipe.keep, data=self.data)
        for notice in dataset.notices:
            self.say(notice)
        height, width = dataset.grid.height, dataset.grid.width
        padded = padded_size(height), padded_size(width)
        if (height, width) != padded:
            self.say(
                f"The grid of {height}×{width} is padded to {padded[0]}×{padded[1]} inside the "
                "models and cropped again (large grids that are read in patches: a little more)"
            )
        return dataset

    @cached_property
    def given_teacher(self) -> GivenTeacher:
        """The teacher passed from Python, or the one that the recipe names as `given`."""
        if self.given is not None:
            return given_teacher(self.given, setting=self.setting)
        return open_teacher(self.recipe.given, setting=self.setting)

    @cached_property
    def captures(self) -> "tuple[Labels, ...]":
        """The recipe's label stores for extra windows, in this grid's channels and units."""
        from s2kd.training.labels import Labels

        recipe, dataset = self.recipe, self.dataset
        captures = tuple(
            Labels.open(stored.path).check_against(
                dataset.grid, past=recipe.past, lead=recipe.lead, source=dataset.name
            )
            for stored in recipe.captures
        )
        for labels in captures:
            apart = labels.apart_from_held_out(dataset) if labels.has("inputs") else []
            if left_out := len(apart) - sum(apart):
                self.say(
                    f"{left_out} of {len(apart)} windows of {labels.path} touch frames of the "
                    "validation or test split, and are left out"
                )
        return captures

    @cached_property
    def unlabelled(self) -> tuple[WindowDataset, ...]:
        """Windows of past frames in the recipe's files of further frames."""
        recipe = self.recipe
        windows = []
        for path in recipe.unlabelled:
            frames = load_frames(recipe.dataset, path, recipe.keep)
            check_frames(path, frames.grid, self.dataset.grid)
            device = self.fabric.device
            windows.append(WindowDataset(frames, "train", past=recipe.past, lead=0, device=device))
        return tuple(windows)

    @cached_property
    def train_stats(self) -> Statistics:
        """Statistics of the training split."""
        return statistics(self.dataset, lead=self.recipe.lead)

    @property
    def setting(self) -> Setting:
        """What every model is built for: grid, frames, statistics, units."""
        recipe = self.recipe
        return Setting(
            grid=self.dataset.grid,
            statistics=self.train_stats,
            past=recipe.past,
            lead=recipe.lead,
            normalise=recipe.normalise,
            predict=recipe.predict,
        )

    @property
    def model_inputs(self) -> dict[str, Any]:
        """What the weights of every model of the run depend on."""
        recipe = self.recipe
        return {
            "data": self.dataset.fingerprint,
            "version": s2kd.__version__,
            "past": recipe.past,
            "lead": recipe.lead,
            "stride": recipe.stride,
            "normalise": recipe.normalise,
            "predict": recipe.predict,
        }

    @cached_property
    def climatology(self) -> Climatology:
        """Climatology of the training split."""
        return Climatology.fit(self.dataset)

    @cached_property
    def cell_events(self) -> CellEvents:
        """Rare events by every cell's own training quantiles."""
        self.say("Measuring every cell's quantiles over the training split")
        return cell_events(self.dataset)

    @cached_property
    def narrator(self) -> Narrator:
        """The recipe's narrator."""
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
    def teacher_kinds(self) -> list[str]:
        """The teachers of this run that the recipe's methods learn from."""
        kinds = {method.teacher for method in self.recipe.methods}
        return [kind for kind in ("text", "no_text") if kind in kinds]

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
