"""States of the student's own roll-outs, answered by the teacher."""

from typing import Any

import torch
from torch import Tensor, nn

from s2kd.core.reading import AtLeastZero, Size
from s2kd.core.tensors import Batch
from s2kd.models.forecasters import Student
from s2kd.training.extra import ExtraWindows, Material, extra_windows, inputs_alone
from s2kd.training.extra.rollouts import check_runs_on, cut_out, roll_out
from s2kd.training.objectives import Target
from s2kd.training.targets import answers, freeze, teacher_extent

BLOCK = 32
"""Windows that are rolled out and answered together."""
MOST_SLOTS = 512


class Replay(nn.Module):
    """Inputs and answers as a part of a checkpoint, in main memory, never in a saved model."""

    def __init__(self) -> None:
        super().__init__()
        self.renewal = -1
        self.views: dict[str, Tensor] = {}

    def get_extra_state(self) -> dict[str, Any]:
        """What `set_extra_state` restores."""
        return {"renewal": self.renewal, "views": self.views}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what was saved."""
        self.renewal, self.views = state["renewal"], state["views"]

    def gather(self, index: Tensor, device: torch.device | str) -> Target:
        """The teacher's answers of these slots."""
        latent = self.views["latent"][index].to(device) if "latent" in self.views else None
        return Target(latent=latent, forecast=self.views["forecast"][index].to(device))


class ReplayTargets:
    """The answers in a `Replay`, as targets."""

    def __init__(self, replay: Replay, extent: tuple[int, int]) -> None:
        self.extent, self.gather = extent, replay.gather


@extra_windows.register("on_policy")
class OnPolicy(ExtraWindows):
    """States that the student's own forecasts lead to, in a buffer of `size` slots (DAgger).

    A `size` of 0 is one slot per training window, at most 512.

    Every `every` epochs, half of the slots, the oldest, are filled anew: the student runs on from
    training windows for up to `depth` forecasts, is cut at a random step, and the teacher answers
    (Ross et al. 2011). Values are bounded by the training range. At first the slots hold training
    windows. Draws depend on seed and epoch alone.
    """

    has_answers = True

    def __init__(
        self, material: Material, *, size: AtLeastZero = 0, depth: Size = 4, every: Size = 5
    ) -> None:
        check_runs_on("on_policy", material)
        super().__init__(material.windows)
        self.size = max(2, size or min(MOST_SLOTS, len(self.windows)))
        self.depth, self.every, self.material = depth, every, material
        self.memory = Replay()
        extent = teacher_extent(material.teacher, self.dataset.grid)
        self.targets = ReplayTargets(self.memory, extent)

    def __len__(self) -> int:
        return self.size

    def of(self, index: Tensor, epoch: int) -> Tensor:
        """Slots drawn for these windows in this epoch."""
        draw = self._draw(epoch, 0)
        return torch.randint(self.size, (len(self.windows),), generator=draw)[index.cpu()]

    def gather(self, index: Tensor) -> Batch:
        """The inputs in these slots."""
        views, device = self.memory.views, self.windows.device
        return inputs_alone(views["past"][index].to(device), views["window"][index])

    def renew(self, student: Student, epoch: int) -> None:
        """Fill slots anew where this epoch has not done so yet."""
        renewal = epoch // self.every
        if renewal == self.memory.renewal:
            return
        half, draw = self.size // 2, self._draw(renewal, 1)
        slots = torch.arange(self.size)
        if self.memory.views:
            slots = (slots[:half] + (renewal - 1) * half) % self.size
        window = torch.randint(len(self.windows), (len(slots),), generator=draw)
        cut = torch.randint(1, self.depth * self.windows.lead + 1, (len(slots),), generator=draw)
        cut = cut if renewal else torch.zeros_like(cut)
        was_training = student.training
        student.eval()
        for block in torch.arange(len(slots)).split(BLOCK):
            self._fill(student, slots[block], window[block], cut[block])
        student.train(was_training)
        self.memory.renewal = renewal

    @torch.no_grad()
    def _fill(self, student: Student, slots: Tensor, window: Tensor, cut: Tensor) -> None:
        frames = roll_out(
            lambda past: student(past).future,
            self.windows.gather(window).past,
            steps=int(cut.max()),
            grid=self.dataset.grid,
            statistics=self.material.statistics,
        )
        past = cut_out(frames, torch.arange(len(slots)), cut, self.windows.past)
        teacher = freeze(self.material.teacher)
        target = answers(teacher, inputs_alone(past, window), self.material.states)
        rows = {"past": past, "window": window, "forecast": target.forecast}
        rows |= {} if target.latent is None else {"latent": target.latent}
        for view, values in rows.items():
            values = values.cpu()
            if view not in self.memory.views:
                shape = (self.size, *values.shape[1:])
                self.memory.views[view] = values.new_zeros(shape)
            self.memory.views[view][slots] = values

    def _draw(self, number: int, stream: int) -> torch.Generator:
        seed = (self.material.seed * 1_000_003 + number) * 2 + stream
        return torch.Generator().manual_seed(seed)
