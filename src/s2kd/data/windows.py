"""Windows of past and future frames, cut from one split and gathered in batches."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from s2kd.core.tensors import Batch
from s2kd.core.types import Past, S2KDError, Statistics
from s2kd.data import steps as clock
from s2kd.data.dataset import Dataset, StoredFrames


class WindowDataset:
    """The examples of one split.

    Window i holds frames `starts[i]` up to `starts[i] + past + lead`, all inside one stretch, so
    that it never crosses a gap, a run or a split. Frames in memory are gathered with one index;
    frames on disk are read window by window.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        past: int,
        lead: int,
        stride: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if split not in dataset.splits:
            raise S2KDError(
                f"{dataset.name}: no split called {split!r} (there are {', '.join(dataset.splits)})"
            )
        if dataset.window not in (None, (past, lead)):
            raise S2KDError(
                f"{dataset.name}: comes in windows of {dataset.window[0]} past and "
                f"{dataset.window[1]} future frames that differ in kind, so past={past} and "
                f"lead={lead} cannot be cut from them"
            )
        self.dataset, self.split, self.past, self.lead = dataset, split, past, lead
        length = past + lead
        starts = [np.arange(s.first, s.stop - length + 1, stride) for s in dataset.splits[split]]
        self.starts = np.concatenate([np.zeros(0, dtype=np.int64), *starts]).astype(np.int64)
        if not len(self.starts):
            longest = max((s.stop - s.first for s in dataset.splits[split]), default=0)
            raise S2KDError(
                f"{dataset.name}: the {split} split is too short for one window of {past} past and "
                f"{lead} future frames (it needs {length} in a row, the longest stretch has "
                f"{longest}); make past or lead smaller, or give more data"
            )
        self.device = torch.device(device)
        self._frames: Tensor | None = None
        if isinstance(dataset.frames, np.ndarray):
            self._frames = torch.from_numpy(dataset.frames).to(self.device)
        self._reach = torch.arange(length, device=self.device)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def groups(self) -> np.ndarray:
        """(window,) the name of the run or environment that each window lies in."""
        names = np.empty(len(self.starts), dtype=object)
        for stretch in self.dataset.splits[self.split]:
            names[(self.starts >= stretch.first) & (self.starts < stretch.stop)] = stretch.name
        return names

    @property
    def windows_per_time(self) -> int:
        """Windows of one moment: as many as simultaneous stretches, else 1."""
        return len(self.dataset.splits[self.split]) if self.dataset.simultaneous else 1

    def gather(self, index: Tensor) -> Batch:
        """The windows with these numbers, as one batch on `device`."""
        starts = torch.from_numpy(self.starts)[index.cpu()]
        if self._frames is not None:
            clip = self._frames[starts.to(self.device)[:, None] + self._reach]
        else:
            length = self.past + self.lead
            frames = self.dataset.frames
            if isinstance(frames, StoredFrames):  # announced, so that a disk can serve them at once
                for start in starts.tolist():
                    frames.expect(start, start + length)
            clips = [frames[start : start + length] for start in starts.tolist()]
            clip = torch.from_numpy(np.stack(clips)).to(self.device)
        return Batch(
            past=clip[:, : self.past], future=clip[:, self.past :], index=index.to(self.device)
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """All windows in order."""
        for index in torch.arange(len(self)).split(size):
            yield self.gather(index)

    def past_of(self, number: int, train_stats: Statistics) -> Past:
        """The part of one window that a narrator may see."""
        dataset, start = self.dataset, int(self.starts[number])
        last = start + self.past - 1
        return Past(
            frames=np.array(dataset.frames[start : last + 1]),
            grid=dataset.grid,
            domain=dataset.domain,
            statistics=train_stats,
            context=dataset.context[last] if dataset.context is not None else (),
            **self.calendar(last),
        )

    def calendar(self, frame: int) -> dict[str, str | None]:
        """Season and part of day of a frame, or None where they do not apply."""
        dataset = self.dataset
        time, latitude = dataset.times[frame : frame + 1], dataset.grid.latitude
        # a season is a fact of one hemisphere: a grid that spans both has none
        has_season = latitude is not None and (min(latitude) >= 0 or max(latitude) <= 0)
        return {
            "season": clock.season(time, southern=max(latitude) <= 0) if has_season else None,
            "part_of_day": clock.part_of_day(time) if dataset.local_time else None,
        }
