"""Roll-outs of the teacher: its own forecasts as further inputs."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.core.reading import Size
from s2kd.core.tensors import Batch
from s2kd.core.types import GridSpec, S2KDError, Statistics
from s2kd.models.forecasters import feed_back
from s2kd.training.extra import ExtraWindows, Material, extra_windows, inputs_alone
from s2kd.training.extra.blends import Blends

Frames = Float[Tensor, "batch _ channel height width"]


@extra_windows.register("rollouts")
class RollOuts(ExtraWindows):
    """States that the teacher's own forecasts lead to, cut at random steps.

    From a training window, or a blend of two, the teacher runs on by itself for `depth` forecasts;
    roll-out k of window i, number i · copies + k, is cut after a number of frames drawn by `seed`.
    Values are bounded by the training range. A teacher that reads keeps the words of window i.
    """

    stores_inputs = True

    def __init__(
        self,
        material: Material,
        *,
        copies: Size = 8,
        depth: Size = 4,
        start: Literal["windows", "blends"] = "windows",
    ) -> None:
        check_runs_on("rollouts", material)
        super().__init__(material.windows)
        self.copies, self.material = copies, material
        self.blends = Blends(material, copies=copies) if start == "blends" else None
        size = copies * len(self.windows)
        draw = torch.Generator().manual_seed(material.seed)
        steps = depth * self.windows.lead
        self.cut = torch.randint(1, steps + 1, (size,), generator=draw)
        self.name = f"rollouts{copies}x{depth}" + ("-blends" if self.blends else "")
        self.key = ["rollouts", copies, depth, start, material.seed]

    def __len__(self) -> int:
        return len(self.cut)

    def of(self, index: Tensor, epoch: int) -> Tensor:
        """The roll-outs of these windows whose turn it is in this epoch."""
        return index * self.copies + epoch % self.copies

    @torch.no_grad()
    def gather(self, index: Tensor) -> Batch:
        """The roll-outs with these numbers, as one batch of inputs."""
        from s2kd.training.targets import forecast_of

        index = index.cpu()
        window, copy = index // self.copies, index % self.copies
        first = window if self.blends is None else copy * len(self.windows) + window
        first, row = first.unique(return_inverse=True)  # copies of a window share its roll-out
        start = (self.windows if self.blends is None else self.blends).gather(first)
        teacher, states = self.material.teacher, self.material.states

        def forecast(past: Frames) -> Frames:
            return forecast_of(teacher, inputs_alone(past, start.index), states).future

        frames = roll_out(
            forecast,
            start.past,
            steps=int(self.cut[index].max()),
            grid=self.dataset.grid,
            statistics=self.material.statistics,
        )
        return inputs_alone(cut_out(frames, row, self.cut[index], self.windows.past), window)


def check_runs_on(name: str, material: Material) -> None:
    """Refuse a teacher that cannot be asked, and data whose past differs in kind from its future.

    Raises S2KDError that names the extra windows.
    """
    if material.teacher is None:
        raise S2KDError(f"{name}: stored forecasts answer no new states; name another teacher")
    dataset = material.windows.dataset
    if dataset.window is not None:
        raise S2KDError(
            f"{name}: {dataset.name} comes in windows whose past and future frames differ in kind, "
            "so that a forecast is no further input; choose blends"
        )


def roll_out(
    forecast: Callable[[Frames], Frames],
    past: Frames,
    *,
    steps: int,
    grid: GridSpec,
    statistics: Statistics,
) -> Frames:
    """`past` and the `steps` frames after it, each forecast bounded by the training range."""
    low, high = (
        torch.tensor(bound, dtype=torch.float32, device=past.device)[:, None, None]
        for bound in (statistics.minimum, statistics.maximum)
    )
    if not steps:
        return past

    def bounded(last: Frames, block: int, done: int) -> Frames:
        return forecast(last).clamp(low, high)

    return torch.cat([past, feed_back(bounded, past, steps=steps, grid=grid)], 1)


def cut_out(
    frames: Frames, row: Tensor, first: Tensor, length: int
) -> Float[Tensor, "row length channel height width"]:
    """`length` frames of these rows, each from its own `first` frame on."""
    at = first[:, None] + torch.arange(length)
    return frames[row[:, None].to(frames.device), at.to(frames.device)]
