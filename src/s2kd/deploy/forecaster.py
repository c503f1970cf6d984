"""A trained student, ready for use: past frames in, future frames out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from s2kd.core.saved import find_student
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.checkpoint import load_student
from s2kd.models.forecasters import Student, feed_back


class Forecaster:
    """A student in evaluation mode with its metadata.

    `past` and `lead` are the numbers of frames it takes and gives, `grid` says of what.
    """

    def __init__(self, student: Student, metadata: dict[str, Any]) -> None:
        self.student, self.metadata = student.eval(), metadata
        self.grid = GridSpec.from_dict(metadata["grid"])
        self.past: int = metadata["past"]
        self.lead: int = metadata["lead"]

    @classmethod
    def load(cls, folder: Path | str, *, student: str = "") -> "Forecaster":
        """From a student's folder, or from a run's: there the student of that name.

        Without a name a run gives the one with the lowest validation error.
        """
        return cls(*load_student(find_student(Path(folder), student)))

    @torch.inference_mode()
    def predict(
        self, past: Float[np.ndarray, "batch past channel height width"], *, steps: int = 0
    ) -> Float[np.ndarray, "batch lead channel height width"]:
        """`steps` future frames (default: `lead`) in physical units.

        Beyond `lead` the forecast's own frames are fed back in, as in scoring (`feed_back`).
        """
        want = (self.past, len(self.grid.channels), self.grid.height, self.grid.width)
        if past.shape[1:] != want:
            raise S2KDError(
                f"forecast: past has shape {past.shape}, this student takes (batch, "
                f"{', '.join(map(str, want))}): past frames, channels, height, width"
            )
        if not np.isfinite(past).all():
            raise S2KDError(
                f"forecast: {int((~np.isfinite(past)).sum())} of the input values are not finite"
            )
        steps = steps or self.lead
        if steps < 1:
            raise S2KDError(f"forecast: steps must be at least 1, got {steps}")
        frames = torch.from_numpy(np.ascontiguousarray(past, dtype=np.float32))

        def step(last: torch.Tensor, block: int, made: int) -> torch.Tensor:
            return self.student(last).future

        return feed_back(step, frames, steps=steps, grid=self.grid).numpy()
