"""A trained student in use, without PyTorch where it is exported: past in, future out."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from s2kd.core.files import file_digest
from s2kd.core.onnx import open_session
from s2kd.core.saved import find_student
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.latest import LatestFrames
from s2kd.data.readers.files import IN_MEMORY
from s2kd.deploy.inputs import input_frames
from s2kd.deploy.metadata import CONFIG, EXPORT, exported_metadata, is_exported, student_metadata

if TYPE_CHECKING:
    import xarray as xr

Past = Float[np.ndarray, "batch past channel height width"]
Future = Float[np.ndarray, "batch lead channel height width"]
Step = Callable[[Past], Future]


class Forecaster:
    """A student and its metadata.

    `past` and `lead` are the numbers of frames it takes and gives, `grid` says of what. `step`
    makes the next `lead` frames, physical units in and out.
    """

    def __init__(self, metadata: Mapping[str, Any], step: Step) -> None:
        self.metadata, self._step = metadata, step
        self.grid = GridSpec.from_dict(metadata["grid"])
        self.past: int = metadata["past"]
        self.lead: int = metadata["lead"]

    def __repr__(self) -> str:
        name = self.metadata.get("student", "")
        return f"Forecaster({name!r}, {self.past} past → {self.lead} lead frames of {self.grid})"

    @classmethod
    def load(cls, folder: Path | str, *, student: str = "", format: str = "") -> "Forecaster":
        """From an exported folder, from a student's, or from a run's.

        A student that is exported runs by ONNX Runtime, one that is not by PyTorch.

        Args:
            folder: what `s2kd export` wrote, a student's folder, or a run's.
            student: a student of the run, with or without its seed; of several, or of all where it
                is empty, the one with the lowest validation error.
            format: `float32` or `int8` of an exported student, or `pytorch`; empty: the faster one
                on the machine that exported it.

        Raises:
            S2KDError: no such student or format, or a file that was altered.
        """
        folder = Path(folder)
        if not (folder / CONFIG).exists():
            folder = find_student(folder, student)
            if format != "pytorch" and is_exported(folder) and find_spec("onnxruntime"):
                folder = folder / EXPORT
        if (folder / CONFIG).exists():
            metadata = exported_metadata(folder)
            return cls(metadata, _exported_step(folder, metadata, format or metadata["default"]))
        if format not in ("", "pytorch"):
            raise S2KDError(f"{folder}: is not exported as {format!r}; run `s2kd export {folder}`")
        return cls(student_metadata(folder), pytorch_step(folder))

    def predict(self, past: Past, *, steps: int | float | None = None) -> Future:
        """`steps` future frames (None: `lead`) in physical units.

        Beyond `lead` the forecast's own frames are fed back in; in cells that do not exist, the
        last true value is.
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
        steps = self._checked(steps)
        exists, blocks = self.grid.exists, list[np.ndarray]()
        recent = np.ascontiguousarray(past, dtype=np.float32)
        for _ in range(0, steps, self.lead):
            blocks.append(self._step(recent))
            fed_back = np.where(exists, blocks[-1], recent[:, -1:])
            recent = np.concatenate([recent, fed_back], 1)[:, -self.past :]
        return np.concatenate(blocks, 1)[:, :steps]

    def _checked(self, steps: int | float | None) -> int:
        """A number of frames; S2KDError for anything else."""
        if steps is None:
            return self.lead
        if not isinstance(steps, int | np.integer) or steps < 1:
            raise S2KDError(f"steps={steps!r}: must be a whole number of frames, at least 1")
        return int(steps)

    def forecast(
        self,
        latest: "Path | str | xr.Dataset | xr.DataArray",
        *,
        steps: int | float | None = None,
        fill: bool = False,
        beyond_training: bool = False,
        say: Callable[[str], object] = lambda text: None,
    ) -> "xr.Dataset":
        """A forecast from the last frames of a file, or of a dataset in memory, as a CF dataset.

        Args:
            latest: CF data, or a file of the kind that the student was trained on. Channels, grid
                and time step must be those of training; units are converted.
            steps: frames to forecast; None: as trained. More roll out.
            fill: carry the last value of a cell forward where the input lacks some. A student of
                data that were filled always does.
            beyond_training: accept values far outside those of training.
            say: called with one sentence per assumption: values that were filled, or are far
                outside those of training, and units that the input does not give.

        Returns:
            Variables (time, lead_time, rows, columns), one per channel, in the units of training;
            rows and columns as the input has them.

        Raises:
            S2KDError: names what differs from training, or which values are missing.
        """
        steps = self._checked(steps)
        latest = Path(latest) if isinstance(latest, str) else latest
        past = input_frames(latest, self.metadata, fill=fill, beyond_training=beyond_training)
        for notice in past.notices:
            say(notice)
        if past.carried or past.borrowed:
            say(
                f"filled {past.carried} missing values with the last of their cell, and "
                f"{past.borrowed} before the first of their cell with the nearest cell's"
            )
        origin = latest.name if isinstance(latest, Path) else IN_MEMORY
        return self.to_dataset(self.predict(past.frames[None], steps=steps), past, origin=origin)

    def to_dataset(self, future: Future, past: LatestFrames, *, origin: str) -> "xr.Dataset":
        """What was predicted from `past` (of a batch of one), as `forecast` returns it."""
        from s2kd.data.write import to_xarray

        name = self.metadata["student"]
        return to_xarray(
            future,
            grid=self.grid,
            initial_times=past.times[-1:],
            axes=past.axes,
            places=past.places,
            attributes=self.metadata.get("attributes", {}),
            title=f"Forecast by {name}",
            source=self.metadata.get("source", ""),
            history=past.history,
            done=f"s2kd {self.metadata['versions']['s2kd']} forecast by {name} from {origin}",
            facts=_facts(self.metadata, past),
        )


def _exported_step(folder: Path, metadata: Mapping[str, Any], format: str) -> Step:
    if format not in metadata["formats"]:
        raise S2KDError(
            f"{folder}: is not exported as {format!r} (there are {', '.join(metadata['formats'])})"
        )
    path = folder / metadata["formats"][format]["file"]
    if not path.is_file() or file_digest(path) != metadata["files"][path.name]:
        raise S2KDError(f"{path}: missing or altered after the export; export the student again")
    return onnx_step(path)


def onnx_step(path: Path, *, threads: int = 0) -> Step:
    """An ONNX student as a function; 0 threads: as many as ONNX Runtime chooses."""
    session = open_session(path, threads=threads)
    return lambda past: session.run(["future"], {"past": past})[0]


def pytorch_step(folder: Path) -> Step:
    """The student in a student's own folder as a function."""
    try:
        import torch
    except ImportError:
        raise S2KDError(
            f"{folder}: is not exported, and PyTorch is not installed: pip install torch, or run "
            "`s2kd export` where it is"
        ) from None
    from s2kd.models.checkpoint import load_student

    student, _ = load_student(folder)

    @torch.inference_mode()
    def step(past: np.ndarray) -> np.ndarray:
        return student(torch.from_numpy(past)).future.numpy()

    return step


def _facts(metadata: Mapping[str, Any], past: LatestFrames) -> dict[str, str | int | float]:
    """What made the forecast, as global attributes."""
    facts = {
        "s2kd_recipe": str(metadata.get("name", "")),
        "s2kd_method": str(metadata.get("method", "")),
        "s2kd_seed": int(metadata.get("seed", 0)),
        "s2kd_training_data": str(metadata.get("fingerprint", "")),
        "s2kd_past_frames": int(metadata["past"]),
    }
    if past.notices:
        facts["comment"] = "; ".join(past.notices)
    if past.carried or past.borrowed:
        facts["s2kd_values_carried_forward"] = past.carried
        facts["s2kd_values_from_nearest_cell"] = past.borrowed
    return facts
