"""Captures: windows of a teacher's own archive, with its answers and without truth."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from s2kd.core.reading import AtLeastZero
from s2kd.core.tensors import Batch
from s2kd.core.types import S2KDError
from s2kd.training.extra import (
    InTurn,
    Material,
    assembled,
    extra_windows,
    inputs_alone,
    located,
)
from s2kd.training.objectives import Target

if TYPE_CHECKING:
    from s2kd.training.labels import Labels


@extra_windows.register("capture")
class Capture(InTurn):
    """Windows of the recipe's label stores (`captures`), answered when they were written.

    `copies` is how many go with a training window, over the training; 0 for as many as take the
    whole capture in turn. A window's number is its place in the stores, one after another.
    """

    asks = False
    has_answers = True
    stores_inputs = True
    reads = ("captures",)
    needs = "a label store"

    def __init__(self, material: Material, *, copies: AtLeastZero = 0) -> None:
        if not material.captures:
            raise S2KDError("capture: name at least one label store by the recipe's captures")
        self.labels, self.normaliser = material.captures, material.normaliser
        for labels in self.labels:
            if not labels.has("inputs"):
                raise S2KDError(f"{labels.path}: holds no inputs, which a capture must have")
        sizes = [len(labels) for labels in self.labels]
        apart = [labels.apart_from_held_out(material.windows.dataset) for labels in self.labels]
        numbers = torch.from_numpy(np.flatnonzero(np.concatenate(apart)))
        self.left_out = sum(sizes) - len(numbers)
        if not len(numbers):
            raise S2KDError(
                f"{self.labels[0].path}: every window lies in the validation or test split of the "
                "data; a capture must be of other times or places"
            )
        super().__init__(
            material.windows, sizes, copies=copies, seed=material.seed, numbers=numbers
        )
        self.targets = CaptureTargets(self)
        scale, grid = self.normaliser, self.dataset.grid
        units = [scale.offset.tolist(), scale.unit.tolist(), scale.predicts_change]
        stores = [labels.digest for labels in self.labels]
        frames = [grid.to_dict(), self.windows.past, self.windows.lead]
        self.name, self.key = "capture", ["capture", stores, units, *frames]

    def gather(self, index: Tensor) -> Batch:
        """The inputs with these numbers, read from the stores."""
        past = self.read(index, lambda labels, numbers: labels.inputs(numbers))
        return inputs_alone(past.to(self.windows.device))

    def read(self, index: Tensor, values: "Callable[[Labels, np.ndarray], np.ndarray]") -> Tensor:
        """The values of these windows, from whichever store each is in."""
        rows = [
            (positions, torch.from_numpy(values(self.labels[number], numbers.numpy())))
            for number, positions, numbers in located(index, self.sizes)
        ]
        return assembled(rows, len(index))


class CaptureTargets:
    """A capture's forecasts, in the normaliser's unit, and latents, read from the label stores."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        facts = {(labels.latent_width, labels.latent_extent) for labels in capture.labels}
        widths = {labels.latent_width for labels in capture.labels}
        if len(facts) > 1 and None not in widths:
            raise S2KDError(
                "captures: the latents of the label stores differ in width or area; name stores of "
                "one teacher"
            )
        self.latent_width = None if None in widths else widths.pop()
        self.extent = capture.labels[0].latent_extent
        self._exists = torch.from_numpy(capture.dataset.grid.exists)

    def gather(self, index: Tensor, device: torch.device | str) -> Target:
        """The answers to the windows with these numbers."""
        capture, latent = self.capture, None
        past = capture.read(index, lambda labels, numbers: labels.inputs(numbers))
        future = capture.read(index, lambda labels, numbers: labels.forecasts(numbers))
        future = torch.where(self._exists, future, past[:, -1:])
        forecast = capture.normaliser.cpu().decoded(future, past)
        if self.latent_width is not None:
            latent = capture.read(index, lambda labels, numbers: labels.latents(numbers)).to(device)
        return Target(latent=latent, forecast=forecast.to(device))
