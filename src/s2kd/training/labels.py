"""Label stores: a teacher's forecasts of many windows and their inputs, as open Zarr.

`forecast` (time, lead, channel, row, column), the frames that the teacher saw as `inputs` (frame,
channel, row, column) with `last_frame` (time), and its `latent` (time, feature, latent_row,
latent_column), all float32 and in physical units; `time` is that of the last past frame.
"""

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.core.units import conversion
from s2kd.data.dataset import Dataset
from s2kd.models.given import check_places
from s2kd.training.label_files import Attributes, LabelFiles
from s2kd.training.label_files import is_labels as is_labels
from s2kd.training.label_writer import write_labels as write_labels

if TYPE_CHECKING:
    import xarray as xr


class Labels(LabelFiles):
    """A finished label store, by window number; `Labels.open` reads one.

    Attributes:
        grid: channels, units and place of the fields as they are returned.
        past, lead: frames of inputs and of forecasts.
        times: (window,) times of the last past frames, datetime64[ns] or cftime objects.
        runs: (window,) the run or environment of each window, "" where there is but one.
        digest: identity of the content, part of the key of what is made from it.
        teacher: its `name` and `digest`.
        latent_extent: (rows, columns) of the grid under the latents.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        attributes = self.attributes
        if not attributes.complete:
            raise S2KDError(f"{path}: is not finished; give the same `s2kd label` command again")
        try:
            coordinates = self.coordinates()
            self.grid = _grid(coordinates, attributes)
            self.times = coordinates["time"].values
            self._last_frame = coordinates["last_frame"].values if self.has("inputs") else None
        except (KeyError, ValueError, OverflowError) as error:
            raise S2KDError(f"{path}: its coordinates cannot be read ({error})") from None
        _check_shapes(self, self.grid, len(self.times), self._last_frame)
        runs = coordinates["run"].values if "run" in coordinates else np.full(len(self), "")
        self.runs = runs.astype(str)
        self.past, self.lead = attributes.past, attributes.lead
        self.digest, self.teacher = attributes.digest, attributes.teacher
        self.latent_extent = attributes.latent_extent
        self._channels = list(range(len(self.grid.channels)))
        self._scale: tuple[np.ndarray, np.ndarray] | None = None
        self._apart: WeakKeyDictionary[Dataset, np.ndarray] = WeakKeyDictionary()

    @classmethod
    def open(cls, path: Path | str) -> "Labels":
        """The store at `path`.

        Raises S2KDError where the store is unfinished, torn, altered, or of another kind.
        """
        return cls(Path(path).expanduser())

    def __len__(self) -> int:
        return len(self.times)

    @property
    def latent_width(self) -> int | None:
        """Number of features of the latents; None where none are stored."""
        return self.arrays["latent"].shape[1] if self.has("latent") else None

    def describe(self) -> dict[str, Any]:
        """Facts of the store, every value of which is read and checked, as plain data."""
        grid = self.grid
        ranges = {view: self._ranges(view) for view in self.arrays if view != "latent"}
        return {
            "path": str(self.path),
            "kind": "label store",
            "teacher": self.teacher,
            "windows": len(self),
            "first_time": str(self.times.min())[:19],
            "last_time": str(self.times.max())[:19],
            "step_seconds": grid.step_seconds,
            "past": self.past,
            "lead": self.lead,
            "rows": grid.height,
            "columns": grid.width,
            "latent_width": self.latent_width,
            "channels": [
                {"name": name, "units": unit, **{v: ranges[v][n] for v in ranges}}
                for n, (name, unit) in enumerate(zip(grid.channels, grid.units, strict=True))
            ],
            "digest": self.digest,
        }

    def _ranges(self, view: str) -> list[tuple[float, float]]:
        """The least and the greatest value per channel, in cells that exist."""
        lows, highs = [], []
        for block in self.blocks(view):
            fields = np.moveaxis(block, -3, 0)[..., self.grid.exists]
            fields = fields.reshape(len(fields), -1)
            lows.append(fields.min(1))
            highs.append(fields.max(1))
        low, high = np.min(lows, axis=0).tolist(), np.max(highs, axis=0).tolist()
        return list(zip(low, high, strict=True))

    def inputs(self, index: np.ndarray) -> Float[np.ndarray, "batch past channel height width"]:
        """Past frames of the windows with these numbers, in the grid's units."""
        if self._last_frame is None:
            raise S2KDError(f"{self.path}: holds no inputs; label again without --without-inputs")
        numbers = self._last_frame[index][:, None] + np.arange(1 - self.past, 1)
        frames = self.frames(numbers.ravel())
        return frames.reshape(*numbers.shape, *frames.shape[1:])

    def frames(self, numbers: np.ndarray) -> Float[np.ndarray, "frame channel height width"]:
        """Frames of the inputs with these numbers, in the grid's units."""
        return self._fitted(self.read("inputs", numbers)[:, None])[:, 0]

    def apart_from_held_out(self, dataset: Dataset) -> Bool[np.ndarray, " window"]:
        """Whether neither inputs nor forecasts touch a frame of the dataset's val or test splits.

        Frames are recognised by content; the answer is kept, since all inputs are read for it.
        """
        if dataset not in self._apart:
            is_held = self._held_out(dataset)
            near = np.cumsum(np.concatenate([[0], is_held]))
            first = self._last_frame - self.past + 1
            stop = np.minimum(self._last_frame + self.lead + 1, len(is_held))
            self._apart[dataset] = near[stop] == near[first]
        return self._apart[dataset]

    def _held_out(self, dataset: Dataset) -> Bool[np.ndarray, " frame"]:
        """Whether a frame of the inputs is one of the dataset's outside of training.

        Clocks are not asked: simulated archives share theirs. Frames are the same that agree to a
        thousandth of the spread of the held-out ones, after conversion of units.
        """
        stretches = [s for name, part in dataset.splits.items() if name != "train" for s in part]
        numbers = np.concatenate([np.arange(s.first, s.stop) for s in stretches])
        exists = dataset.grid.exists
        means = np.array([dataset.frames[n][:, exists].mean(1) for n in numbers.tolist()])
        tolerance = 1e-3 * np.maximum(means.std(0), 1e-6 * np.abs(means).max(0) + 1e-30)
        order = np.argsort(means[:, 0])
        count = self.arrays["inputs"].shape[0]
        same = np.zeros(count, dtype=bool)
        for block in np.array_split(np.arange(count), max(1, count // 256)):
            for number, frame in zip(block.tolist(), self.frames(block), strict=True):
                mean = frame[:, exists].mean(1)
                near = np.searchsorted(means[order, 0], mean[0] + tolerance[0] * np.array([-1, 1]))
                same[number] = any(
                    (np.abs(frame - dataset.frames[n])[:, exists].max(1) <= tolerance).all()
                    for n in numbers[order[slice(*near)]].tolist()
                )
        return same

    def forecasts(self, index: np.ndarray) -> Float[np.ndarray, "batch lead channel height width"]:
        """The teacher's forecasts of these windows, in the grid's units."""
        return self._fitted(self.read("forecast", index)[:, : self.lead])

    def latents(self, index: np.ndarray) -> Float[np.ndarray, "batch d h w"] | None:
        """The teacher's latents of these windows; None where none are stored."""
        return self.read("latent", index) if self.has("latent") else None

    def check_against(self, grid: GridSpec, *, past: int, lead: int, source: str) -> "Labels":
        """These labels with channels, order and units of `grid`, and so many past and lead frames.

        Channels are matched by name, and further ones dropped. Of more past frames the last are
        taken, of more lead frames the first. `source` names the data in errors.

        Raises S2KDError naming the channel, unit, step, place or number of frames that differs.
        """
        label = str(self.path)
        missing = [channel for channel in grid.channels if channel not in self.grid.channels]
        if missing:
            raise S2KDError(
                f"{label}: has no channel {missing[0]!r} of {source}"
                f"{nearest(missing[0], self.grid.channels)} (it has "
                f"{', '.join(self.grid.channels)})"
            )
        order = [self.grid.channels.index(channel) for channel in grid.channels]
        units = [self.grid.units[position] for position in order]
        scales = np.array(
            [
                _scale(label, source, *names)
                for names in zip(grid.channels, units, grid.units, strict=True)
            ]
        )
        check_places(label, self.grid, grid)
        for name, frames, required in (("past", self.past, past), ("lead", self.lead, lead)):
            if frames < required:
                raise S2KDError(f"{label}: has {name}={frames}, {source} needs {name}={required}")
        changes = (scales != (1.0, 0.0)).any()
        labels = copy(self)
        labels.grid, labels.past, labels.lead, labels._channels = grid, past, lead, order
        labels._scale = (scales[:, 0, None, None], scales[:, 1, None, None]) if changes else None
        labels._apart = WeakKeyDictionary()
        return labels

    def _fitted(self, values: np.ndarray) -> np.ndarray:
        values = values[:, :, self._channels]
        if self._scale is not None:
            factor, offset = self._scale
            values = (values * factor + offset).astype(np.float32)
        return values


def _scale(label: str, source: str, channel: str, stored: str, unit: str) -> tuple[float, float]:
    scale = conversion(stored, unit)
    if scale is None:
        raise S2KDError(
            f"{label}: {channel!r} is in {stored!r}, which does not convert to {unit!r} of {source}"
        )
    return scale


def _grid(coordinates: "xr.Dataset", attributes: Attributes) -> GridSpec:
    degrees = {
        name: tuple(map(float, coordinates[name].values))
        for name in ("latitude", "longitude")
        if name in coordinates
    }
    mask = coordinates["mask"].values.astype(bool).tolist() if "mask" in coordinates else None
    return GridSpec(
        channels=tuple(map(str, coordinates["channel"].values)),
        units=tuple(map(str, coordinates["units"].values)),
        height=attributes.rows,
        width=attributes.columns,
        step_seconds=attributes.step_seconds,
        wraps=bool(attributes.wraps),
        mask=None if mask is None else tuple(map(tuple, mask)),
        **degrees,
    )


def _check_shapes(files: LabelFiles, grid: GridSpec, windows: int, last: np.ndarray | None) -> None:
    """Refuse arrays that disagree with coordinates and attributes."""
    attributes, frame = files.attributes, (len(grid.channels), grid.height, grid.width)
    for view, digests in attributes.blocks.items():
        if not files.has(view):
            raise S2KDError(f"{files.path / view}: no such array; the store is torn")
        shape = files.arrays[view].shape
        expected = {
            "inputs": (shape[0], *frame),
            "forecast": (windows, attributes.lead, *frame),
            "latent": (windows, *shape[1:]),
        }
        blocks = -(-shape[0] // attributes.block)
        if shape != expected[view] or len(digests) != blocks:
            raise S2KDError(
                f"{files.path / view}: has shape {shape} and {len(digests)} blocks, which the "
                "coordinates and attributes contradict"
            )
    if last is not None:
        count = files.arrays["inputs"].shape[0]
        if last.shape != (windows,) or last.min() < attributes.past - 1 or last.max() >= count:
            raise S2KDError(f"{files.path / 'last_frame'}: points outside of the {count} inputs")
