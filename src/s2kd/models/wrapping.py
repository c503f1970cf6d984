"""Wrapping of any PyTorch module as a forecaster, its latent taken from a named submodule."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.backbones import Carry
from s2kd.models.forecasters import Student
from s2kd.models.normaliser import Normaliser

LAYOUTS = ("BDhw", "BhwD", "BLD")
FRAMES = ("axis", "channels")
UNITS = ("normalised", "physical")


def wrap(
    module: nn.Module,
    *,
    latent: str,
    grid: GridSpec,
    past: int,
    lead: int,
    normaliser: Normaliser,
    layout: str = "BDhw",
    latent_grid: tuple[int, int] | None = None,
    skip_tokens: int = 0,
    frames: str = "axis",
    units: str = "normalised",
    feature_pyramid: Sequence[str] = (),
) -> Student:
    """The module as a forecaster whose latent is the output of its submodule `latent`.

    The result is a `Student`: a teacher by `LiveTargets` or `store_targets`, which freeze it, and
    a student by `Distilling`. `normaliser` is that of the experiment, the same for both sides.

    Parameters
    ----------
    module, grid, past, lead
        The network, and the grid and numbers of frames that it was made for.
    normaliser
        That of the experiment.
    latent
        Name of the submodule; its grid is taken to cover the frames without padding.
    layout
        Axes of the latent: `BDhw`, `BhwD`, or tokens `BLD`.
    latent_grid, skip_tokens
        Of tokens: (rows, columns) of their grid, and leading tokens that are no cells.
    frames
        `axis`: (batch, past, channel, height, width) in and the same with `lead` out; `channels`:
        time and channel as one axis.
    units
        Whether the module takes and gives `normalised` or `physical` fields.
    feature_pyramid
        Names of further submodules, shallow to deep, for losses that compare feature pyramids.

    Raises S2KDError where a submodule is missing or a shape differs.
    """
    _check_choices(layout=(layout, LAYOUTS), frames=(frames, FRAMES), units=(units, UNITS))
    if layout == "BLD" and latent_grid is None:
        raise S2KDError("wrap: layout 'BLD' wants latent_grid=(rows, columns) of the tokens")
    backbone = WrappedBackbone(
        module,
        names=(*feature_pyramid, latent),
        grid=grid,
        past=past,
        lead=lead,
        normaliser=normaliser,
        layout=layout,
        tokens_on=latent_grid,
        skip_tokens=skip_tokens,
        frames=frames,
        physical=units == "physical",
    )
    return Student(backbone, normaliser)


class WrappedBackbone(nn.Module):
    """A module cut where its latent is: `encode` runs all of it, `decode` hands over the forecast.

    Made by `wrap`, which says what the settings mean.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        names: Sequence[str],
        grid: GridSpec,
        past: int,
        lead: int,
        normaliser: Normaliser,
        layout: str,
        tokens_on: tuple[int, int] | None,
        skip_tokens: int,
        frames: str,
        physical: bool,
    ) -> None:
        super().__init__()
        self.module = module
        self._names, self._shape = tuple(names), (len(grid.channels), grid.height, grid.width)
        self.extent = (grid.height, grid.width)
        self._past, self._lead, self._layout = past, lead, layout
        self._tokens_on, self._skip, self._frames = tokens_on, skip_tokens, frames
        # in a tuple: its buffers belong to the student, and must not be saved twice
        self._scale = (normaliser,) if physical else ()
        self._outputs: dict[str, list[Tensor]] = {}
        for name in self._names:
            _find(module, name).register_forward_hook(self._listener(name))
        latent = self._probe()
        self.latent_width = latent.shape[1]
        self.latent_grid = (latent.shape[2], latent.shape[3])

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """(latent, (feature pyramid …, forecast)), all of one pass through the module."""
        self._outputs = {name: [] for name in self._names}
        future = self._forecast(past)
        *pyramid, latent = (self._features(name, len(past)) for name in self._names)
        self._outputs = {}
        return latent, (*pyramid, future)

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The forecast that came with this latent."""
        return carry[-1]

    def _forecast(self, past: Tensor) -> Tensor:
        """The module's answer, in the unit that a backbone puts out."""
        inputs = past
        if self._scale:
            scale = self._scale[0]
            inputs = past * scale.scale[:, None, None] + scale.offset[:, None, None]
        output = self.module(inputs.flatten(1, 2) if self._frames == "channels" else inputs)
        shape = (len(past), self._lead, *self._shape)
        if self._frames == "channels":
            shape = (len(past), self._lead * self._shape[0], *self._shape[1:])
        if not isinstance(output, Tensor) or tuple(output.shape) != shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise S2KDError(f"wrap: the module gives {got}; wanted is a tensor of {shape}")
        future = output.reshape(len(past), self._lead, *self._shape)
        return self._scale[0].decoded(future, inputs) if self._scale else future

    def _features(self, name: str, batch: int) -> Float[Tensor, "batch d h w"]:
        outputs = self._outputs[name]
        if len(outputs) != 1:
            raise S2KDError(
                f"wrap: {name!r} ran {len(outputs)} times in one forecast; name a submodule that "
                "runs once"
            )
        return self._as_grid(name, outputs[0], batch)

    def _as_grid(self, name: str, output: Tensor, batch: int) -> Tensor:
        """Any layout as (batch, d, h, w); frames encoded one by one lie side by side in d."""
        axes = len(self._layout)
        if output.ndim != axes or len(output) % batch:
            raise S2KDError(
                f"wrap: {name!r} gives {tuple(output.shape)} for {batch} windows, which is not "
                f"layout {self._layout!r}"
            )
        match self._layout:
            case "BhwD":
                output = output.movedim(-1, 1)
            case "BLD":
                high, wide = self._tokens_on
                cells = output.shape[1] - self._skip
                if cells != high * wide:
                    raise S2KDError(
                        f"wrap: {name!r} gives {output.shape[1]} tokens, of which {self._skip} are "
                        f"skipped; latent_grid {high}×{wide} has {high * wide} cells (set "
                        "skip_tokens where some are no cells)"
                    )
                output = output[:, self._skip :].transpose(1, 2).unflatten(2, (high, wide))
        return output.unflatten(0, (batch, -1)).flatten(1, 2)

    def _listener(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def listen(module: nn.Module, inputs: object, output: object) -> None:
            if name not in self._outputs:
                return  # called outside a forecast
            first = output[0] if isinstance(output, tuple | list) else output
            if not isinstance(first, Tensor):
                raise S2KDError(f"wrap: {name!r} gives {type(first).__name__}, not a tensor")
            self._outputs[name].append(first)

        return listen

    @torch.no_grad()
    def _probe(self) -> Float[Tensor, "batch d h w"]:
        """The latent of two windows of zeros; finds out shapes and refuses wrong ones."""
        any_weight = next(self.module.parameters(), torch.zeros(()))
        was_training = self.module.training
        self.module.eval()
        try:
            zeros = torch.zeros(2, self._past, *self._shape, device=any_weight.device)
            if self._scale:
                self._scale[0].to(any_weight.device)
            return self.encode(zeros)[0]
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise S2KDError(
                f"wrap: the module does not take frames of {tuple(zeros.shape)} with "
                f"frames={self._frames!r} ({type(error).__name__}: {reason})"
            ) from None
        finally:
            self.module.train(was_training)


def _find(module: nn.Module, name: str) -> nn.Module:
    submodules = {key: value for key, value in module.named_modules() if key}
    if name not in submodules:
        raise S2KDError(
            f"wrap: the module has no submodule {name!r}{nearest(name, submodules)} "
            f"({len(submodules)} in all, see module.named_modules())"
        )
    return submodules[name]


def _check_choices(**settings: tuple[str, Sequence[str]]) -> None:
    for name, (value, choices) in settings.items():
        if value not in choices:
            raise S2KDError(f"wrap: {name} must be one of {', '.join(choices)}, got {value!r}")
