"""Teachers that are not trained here: a callable, an ONNX file, or the folder of a saved model."""

import hashlib
import inspect
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.files import digest
from s2kd.core.registry import import_own
from s2kd.core.saved import find_student, load_metadata
from s2kd.core.tensors import Forecast
from s2kd.core.types import GridSpec, S2KDError
from s2kd.core.units import conversion, same_units
from s2kd.models.checkpoint import Setting, load_student, load_teacher
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.layers import extent_of
from s2kd.models.onnx import OnnxModel

Call = Callable[[Tensor], object]
FORMS = "package.module:callable, a file that ends in .onnx, or the folder of a model or run"
PROBED = 2
"""Windows of training means that a teacher answers once, so that wrong shapes are refused early."""


class GivenTeacher(nn.Module):
    """A text-free teacher whose answers are checked: physical units in and out.

    `call` maps past frames (batch, past, channel, height, width), float32 and physical units, to
    the future (batch, lead, channel, height, width), to (future, latent) with the latent (batch, d,
    rows, columns), or to a `Forecast`. It must fit `setting`, whose normaliser scales the targets.
    `name` is what errors and label stores call it, `digest` the identity of weights and code.
    `order` is the position in the setting's channels of each of the teacher's own, `scale` factor
    and offset from the setting's units to its own; its latent covers `extent` (rows, columns), None
    for the grid itself.

    Raises S2KDError where a probe shows that it does not fit.
    """

    reads = False

    def __init__(
        self,
        call: Call,
        setting: Setting,
        *,
        name: str,
        digest: str,
        order: tuple[int, ...] | None = None,
        scale: tuple[tuple[float, float], ...] = (),
        extent: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.name, self.digest = call, name, digest
        self.normaliser = setting.normaliser
        grid = setting.grid
        self.extent = extent or (grid.height, grid.width)
        self.past, self.lead = setting.past, setting.lead
        self._frame = (len(grid.channels), grid.height, grid.width)
        order = order or tuple(range(len(grid.channels)))
        self._order = torch.tensor(order)
        self._scale = torch.tensor(scale or [(1.0, 0.0)] * len(order)).T[..., None, None]
        self._is_own = order == tuple(sorted(order)) and {*scale} <= {(1.0, 0.0)}
        latent = self._probe(setting)
        self.latent_width = None if latent is None else latent.shape[1]
        self.latent_grid = None if latent is None else (latent.shape[2], latent.shape[3])

    def forward(self, past: Float[Tensor, "batch past channel height width"]) -> Forecast:
        """The teacher's forecast; its latent is None where it gives none."""
        order, (factor, offset) = self._order.to(past.device), self._scale.to(past)
        try:
            output = self.model(past if self._is_own else past[:, :, order] * factor + offset)
        except S2KDError:
            raise
        except Exception as error:  # code that is not ours fails in any way
            lines = str(error).strip().splitlines() or ["no reason stated"]
            reason = " ".join(line.strip() for line in lines[:2])
            raise S2KDError(
                f"{self.name}: fails on past frames (batch, past, channel, height, width) of "
                f"{tuple(past.shape)} ({type(error).__name__}: {reason})"
            ) from None
        future, latent = self._checked(output, len(past))
        if not self._is_own:
            future = ((future - offset) / factor)[:, :, order.argsort()]
        return Forecast(future=future, latent=latent)

    def _checked(self, output: object, batch: int) -> tuple[Tensor, Tensor | None]:
        """(future, latent) as float32, or the S2KDError that says what came instead."""
        match output:
            case Forecast():
                future, latent = output.future, output.latent
            case (future, latent):
                pass
            case _:
                future, latent = output, None
        expected = (batch, self.lead, *self._frame)
        if not isinstance(future, Tensor) or tuple(future.shape) != expected:
            raise S2KDError(
                f"{self.name}: gives {_shape(future)} for {batch} windows of {self.past} past "
                f"frames; (batch, lead, channel, height, width) must be {expected}"
            )
        if latent is not None and not (
            isinstance(latent, Tensor) and latent.ndim == 4 and len(latent) == batch
        ):
            raise S2KDError(
                f"{self.name}: its latent is {_shape(latent)}; it must be (batch, feature, row, "
                f"column) with a batch of {batch}"
            )
        return future.float(), None if latent is None else latent.float()

    @torch.no_grad()
    def _probe(self, setting: Setting) -> Tensor | None:
        """The latent of windows that hold the training mean everywhere."""
        weights = next(self.parameters(), torch.zeros(()))
        mean = torch.tensor(setting.statistics.mean, device=weights.device)[:, None, None]
        past = mean.expand(PROBED, self.past, *self._frame).float().contiguous()
        modes = [(part, part.training) for part in self.modules()]
        try:
            return self.eval()(past).latent
        finally:
            for part, training in modes:
                part.training = training


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def open_teacher(spec: str, *, setting: Setting) -> GivenTeacher:
    """The teacher that `spec` names, checked against `setting`.

    Args:
        spec: `package.module:callable` (imported from the current folder or installed), a `.onnx`
            file, the folder of a student or of a teacher without text, or a run folder, whose best
            student by validation is taken.
        setting: grid, frames and units of the data that it shall label.

    Raises:
        S2KDError: names what cannot be opened, or what differs between teacher and data.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".onnx":
        model = OnnxModel(path)
        fit = _channel_fit(str(path), model.metadata, setting) if model.metadata else {}
        return GivenTeacher(model, setting, name=path.name, digest=model.digest, **fit)
    if path.is_dir():
        return _saved_teacher(path, setting)
    module, _, attribute = spec.partition(":")
    if not attribute or not all(part.isidentifier() for part in spec.replace(":", ".").split(".")):
        raise S2KDError(f"teacher {spec}: no such folder; a teacher is {FORMS}")
    try:
        value = operator.attrgetter(attribute)(import_own(module))
    except AttributeError:
        raise S2KDError(f"teacher {spec}: {module!r} has no {attribute!r}") from None
    if isinstance(value, type) or not callable(value):
        raise S2KDError(
            f"teacher {spec}: is {'a class' if isinstance(value, type) else type(value).__name__}; "
            "name a function, or a module that has been built, with its weights"
        )
    return given_teacher(value, setting=setting, name=spec)


def given_teacher(call: Call, *, setting: Setting, name: str = "") -> GivenTeacher:
    """A callable or torch module in memory as a teacher, as `open_teacher` makes one by name."""
    if isinstance(call, Teacher) and call.reads:
        raise S2KDError(f"{name or 'the teacher'}: reads narratives; label by one without text")
    extent, name = None, name or type(call).__name__
    if isinstance(call, Student | Teacher):
        extent = extent_of(call.backbone, setting.grid.height, setting.grid.width)
    identity = content_digest(call)
    if isinstance(call, Teacher):
        call = _NoText(call)
    return GivenTeacher(call, setting, name=name, digest=identity, extent=extent)


def frames_wanted(spec: str) -> tuple[int, int] | None:
    """(past, lead) that a saved model or an ONNX file is made for; None where it does not say."""
    path = Path(spec).expanduser()
    if path.suffix == ".onnx":
        return OnnxModel(path).frames
    if path.is_dir():
        metadata = load_metadata(find_student(path))
        return metadata["past"], metadata["lead"]
    return None


# --- folders of ours ------------------------------------------------------------------------------


class _NoText(nn.Module):
    """A teacher without text, called with frames alone."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, past: Tensor) -> Forecast:
        return self.teacher(past, None)


def _saved_teacher(path: Path, setting: Setting) -> GivenTeacher:
    folder = find_student(path)
    metadata = load_metadata(folder)
    grid = setting.grid
    fit = _channel_fit(str(folder), metadata, setting)
    if metadata["kind"] == "student":
        model, _ = load_student(folder)
        call: nn.Module = model
    else:
        if metadata["reads"]:
            raise S2KDError(
                f"{folder}: this teacher reads narratives; label by one without text "
                "(teachers/no_text-…)"
            )
        model, _ = load_teacher(folder)
        call = _NoText(model)
    return GivenTeacher(
        call,
        setting,
        name=folder.name,
        digest=digest([metadata["weights"], metadata["part"], metadata["statistics"]]),
        **fit,
        extent=extent_of(model.backbone, grid.height, grid.width),
    )


def _channel_fit(label: str, metadata: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """`order` and `scale` of a teacher's channels, once all else is found to agree."""
    trained, grid = GridSpec.from_dict(metadata["grid"]), setting.grid
    for field in ("past", "lead"):
        frames, required = metadata[field], vars(setting)[field]
        if frames != required:
            raise S2KDError(f"{label}: takes {field}={frames}, but the windows have {required}")
    if sorted(trained.channels) != sorted(grid.channels):
        raise S2KDError(
            f"{label}: is for the channels {', '.join(trained.channels)}; the data have "
            f"{', '.join(grid.channels)}"
        )
    order = tuple(grid.channels.index(channel) for channel in trained.channels)
    scale = []
    for channel, unit, position in zip(trained.channels, trained.units, order, strict=True):
        scale.append(conversion(grid.units[position], unit))
        if scale[-1] is None:
            raise S2KDError(
                f"{label}: {channel!r} is in {unit!r}, but in {grid.units[position]!r} in the data"
            )
    check_places(label, trained, grid)
    return {"order": order, "scale": tuple(scale)}


def check_frames(label: str, own: GridSpec, grid: GridSpec) -> None:
    """Refuse further frames with channels, units, step, places or cells other than the data's."""
    channels = [
        ", ".join(map(" in ".join, zip(g.channels, g.units, strict=True))) for g in (own, grid)
    ]
    if own.channels != grid.channels or not all(map(same_units, own.units, grid.units)):
        raise S2KDError(f"{label}: has the channels {channels[0]}, the data {channels[1]}")
    check_places(label, own, grid)


def check_places(label: str, model_grid: GridSpec, grid: GridSpec) -> None:
    """Refuse another step or size, missing cells, and coordinates more than 0.001 degrees off."""
    for field, value, required in (
        ("step_seconds", model_grid.step_seconds, grid.step_seconds),
        ("rows × columns", (model_grid.height, model_grid.width), (grid.height, grid.width)),
    ):
        if not np.allclose(value, required, rtol=1e-6, atol=0):
            raise S2KDError(f"{label}: has {field} {value}, the data {required}")
    if (grid.exists & ~model_grid.exists).any():
        raise S2KDError(f"{label}: has no values in some cells that exist in the data")
    for axis, degrees, required in (
        ("latitude", model_grid.latitude, grid.latitude),
        ("longitude", model_grid.longitude, grid.longitude),
    ):
        if (degrees is None) != (required is None):
            raise S2KDError(f"{label}: {axis} is known on one side only, of it or of the data")
        if degrees is None or required is None:
            continue
        apart = np.abs((np.array(degrees) - np.array(required) + 180) % 360 - 180)
        if apart.max() > 1e-3:
            raise S2KDError(
                f"{label}: its {axis} is {degrees[0]:g} to {degrees[-1]:g}, that of the data "
                f"{required[0]:g} to {required[-1]:g} (fields are not interpolated)"
            )


# --- identity of code and weights -----------------------------------------------------------------


def content_digest(call: Call) -> str:
    """A digest of a callable: its source, and the weights that it holds or refers to."""
    values = _referenced(call)
    hashed = hashlib.blake2b(digest_size=12)
    for name, value in sorted(values.items()):
        tensors = value.state_dict() if isinstance(value, nn.Module) else {"": value}
        for key, tensor in tensors.items():
            if isinstance(tensor, Tensor):
                flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                hashed.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                hashed.update(flat.numpy().data)
    modules = [value for value in values.values() if isinstance(value, nn.Module)]
    code = {type(part) for module in modules for part in module.modules()}
    code = {kind for kind in code if not kind.__module__.startswith("torch.")}
    if not isinstance(call, nn.Module):
        code.add(inspect.getmodule(call) or type(call))
    for source in sorted(map(_source, code)):
        hashed.update(source.encode())
    return hashed.hexdigest()


def _referenced(call: Call) -> dict[str, object]:
    """A module itself, the object of a method, or the values that a function refers to."""
    if isinstance(call, nn.Module):
        return {"": call}
    if inspect.ismethod(call):
        return {"self": call.__self__, **_referenced(call.__func__)}
    if not inspect.isfunction(call):
        return dict(vars(call))
    variables = inspect.getclosurevars(inspect.unwrap(call))
    return {**variables.globals, **variables.nonlocals}


def _source(code: object) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # typed in by hand, or built in
        return str(code)
