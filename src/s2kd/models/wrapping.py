"""Any PyTorch module as a forecaster that can teach or learn: its latent is found by name."""

import difflib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    stages: Sequence[str] = (),
) -> Student:
    """The module as a forecaster whose latent is the output of its submodule `latent`.

    The result is a `Student`: a teacher by `LiveTargets` or `store_targets`, which freeze it, and
    a student by `Distilling`. `normaliser` is that of the experiment, the same for both sides.

    - The latent's grid, and that of stages, is taken to cover the frames without any padding.
    - `layout` is that of the latent: `BDhw`, `BhwD`, or tokens `BLD` on a `latent_grid` of (h, w)
      rows and columns, after `skip_tokens` that are no cells (a class token).
    - `frames`: the module takes (batch, past, channel, height, width) and gives the same with
      `lead` (`axis`), or has time and channel as one axis (`channels`).
    - `units`: whether it takes and gives `normalised` fields, or `physical` ones.
    - `stages` names further submodules, shallow to deep, for methods that compare stages; they
      are in the same layout but for tokens.

    Raises `S2KDError` where a submodule is not there, or a shape is not what was said.
    """
    _check_words(layout=(layout, LAYOUTS), frames=(frames, FRAMES), units=(units, UNITS))
    if layout == "BLD" and latent_grid is None:
        raise S2KDError("wrap: layout 'BLD' wants latent_grid=(rows, columns) of the tokens")
    backbone = WrappedBackbone(
        module,
        names=(*stages, latent),
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
        self._heard: dict[str, list[Tensor]] = {}
        for name in self._names:
            _find(module, name).register_forward_hook(self._listener(name))
        latent = self._probe()
        self.latent_width = latent.shape[1]
        self.latent_grid = (latent.shape[2], latent.shape[3])

    def encode(
        self, past: Float[Tensor, "batch past channel height width"]
    ) -> tuple[Float[Tensor, "batch d h w"], Carry]:
        """(latent, (stages …, forecast)), all of one pass through the module."""
        self._heard = {name: [] for name in self._names}
        future = self._forecast(past)
        *stages, latent = (self._features(name, len(past)) for name in self._names)
        self._heard = {}
        return latent, (*stages, future)

    def decode(
        self, latent: Float[Tensor, "batch d h w"], carry: Carry
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The forecast that came with this latent."""
        return carry[-1]

    def _forecast(self, past: Tensor) -> Tensor:
        """The module's answer, in the unit that a backbone puts out."""
        own = past
        if self._scale:
            scale = self._scale[0]
            own = past * scale.scale[:, None, None] + scale.offset[:, None, None]
        said = self.module(own.flatten(1, 2) if self._frames == "channels" else own)
        want = (len(past), self._lead, *self._shape)
        if self._frames == "channels":
            want = (len(past), self._lead * self._shape[0], *self._shape[1:])
        if not isinstance(said, Tensor) or tuple(said.shape) != want:
            got = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
            raise S2KDError(f"wrap: the module gives {got}; wanted is a tensor of {want}")
        future = said.reshape(len(past), self._lead, *self._shape)
        return self._scale[0].decoded(future, own) if self._scale else future

    def _features(self, name: str, batch: int) -> Float[Tensor, "batch d h w"]:
        heard = self._heard[name]
        if len(heard) != 1:
            raise S2KDError(
                f"wrap: {name!r} ran {len(heard)} times in one forecast; name a submodule that "
                "runs once"
            )
        return self._as_grid(name, heard[0], batch)

    def _as_grid(self, name: str, said: Tensor, batch: int) -> Tensor:
        """Any layout as (batch, d, h, w); frames encoded one by one lie side by side in d."""
        axes = len(self._layout)
        if said.ndim != axes or len(said) % batch:
            raise S2KDError(
                f"wrap: {name!r} gives {tuple(said.shape)} for {batch} windows, which is not "
                f"layout {self._layout!r}"
            )
        match self._layout:
            case "BhwD":
                said = said.movedim(-1, 1)
            case "BLD":
                high, wide = self._tokens_on
                cells = said.shape[1] - self._skip
                if cells != high * wide:
                    raise S2KDError(
                        f"wrap: {name!r} gives {said.shape[1]} tokens, of which {self._skip} are "
                        f"skipped; latent_grid {high}×{wide} has {high * wide} cells (set "
                        "skip_tokens where some are no cells)"
                    )
                said = said[:, self._skip :].transpose(1, 2).unflatten(2, (high, wide))
        return said.unflatten(0, (batch, -1)).flatten(1, 2)

    def _listener(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def listen(module: nn.Module, given: object, said: object) -> None:
            if name not in self._heard:
                return  # called by somebody else
            first = said[0] if isinstance(said, tuple | list) else said
            if not isinstance(first, Tensor):
                raise S2KDError(f"wrap: {name!r} gives {type(first).__name__}, not a tensor")
            self._heard[name].append(first)

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
    known = dict(module.named_modules())
    if name and name in known:
        return known[name]
    names = [one for one in known if one]
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.3) or names[:5]
    raise S2KDError(
        f"wrap: the module has no submodule {name!r}; near it are {', '.join(map(repr, near))} "
        f"({len(names)} in all, see module.named_modules())"
    )


def _check_words(**given: tuple[str, Sequence[str]]) -> None:
    for what, (word, known) in given.items():
        if word not in known:
            raise S2KDError(f"wrap: {what} must be one of {', '.join(known)}, got {word!r}")
