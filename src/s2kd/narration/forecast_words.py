"""Words for a teacher whose past is its own forecast: told of that forecast, never of the truth."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from s2kd.core.types import Past, Statistics, Tokens
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Narrator, Rearranging
from s2kd.narration.text import TextEncoder
from s2kd.narration.text.states import encode_states

TOLD = "after the first block, the same rules on the teacher's own forecasts"
SILENT = "after the first block, the empty text"


class ForecastWords:
    """Token states by window for the later blocks of a roll-out.

    With a `narrator` and an `encoder` the forecast frames are narrated as if they had been seen,
    with the season and part of day of their own time (the calendar is known in advance) and
    without context (rain and holidays of the future are not); a narrator that rearranges does so
    within the batch. Without them every text is empty and the teacher has only its null token.
    """

    def __init__(
        self,
        windows: WindowDataset,
        known: Statistics,
        *,
        width: int,
        narrator: Narrator | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        self._windows, self._known, self._width = windows, known, width
        self._narrator, self._encoder = narrator, encoder

    @property
    def kind(self) -> str:
        """In words, for results."""
        return TOLD if self._narrator is not None else SILENT

    def tokens(
        self,
        past: Float[Tensor, "batch past channel height width"],
        index: Int[Tensor, " batch"],
        made: int,
    ) -> Tokens:
        """The states for pasts that end `made` steps after those of the windows `index`."""
        if self._narrator is None or self._encoder is None:
            count, device = len(past), past.device
            return Tokens(
                values=torch.zeros(count, 1, self._width, device=device),
                padding=torch.ones(count, 1, dtype=torch.bool, device=device),
            )
        texts = self.texts(past, index, made)
        states = encode_states(texts, self._encoder)
        return states.tokens(torch.arange(len(texts)), past.device)

    def texts(self, past: Tensor, index: Tensor, made: int) -> list[str]:
        """What is said of them."""
        frames = past.float().cpu().numpy()
        pasts = [
            self._past(clip, int(number), made)
            for clip, number in zip(frames, index.tolist(), strict=True)
        ]
        texts = self._narrator.narrate(pasts)
        if isinstance(self._narrator, Rearranging):
            return self._narrator.rearrange(texts)
        return texts

    def _past(self, frames: np.ndarray, number: int, made: int) -> Past:
        windows = self._windows
        last = int(windows.starts[number]) + windows.past - 1 + made
        return Past(
            frames=frames,
            grid=windows.dataset.grid,
            domain=windows.dataset.domain,
            statistics=self._known,
            **windows.calendar(last),
        )
