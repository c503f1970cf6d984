"""Training objectives of teachers and students (eqs. 1, 2, 12-14), on windows by number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from s2kd.core.tensors import Batch, Forecast, Tokens
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.layers import crop_features, extent_of, match_grids, padded_size
from s2kd.models.normaliser import Normaliser
from s2kd.training.extra import ExtraWindows
from s2kd.training.losses import LossFn

Scalar = Float[Tensor, ""]
Index = Int[Tensor, " batch"]
LossAndTerms = tuple[Scalar, dict[str, Tensor]]


@runtime_checkable
class States(Protocol):
    """Token states by window number."""

    def tokens(self, index: Tensor, device: torch.device | str) -> Tokens: ...


@dataclass(frozen=True)
class Target:
    """Outputs of a frozen teacher for a batch: Z_fused, and the forecast in the normaliser's unit.

    `feature_pyramid` are its features from shallow to deep, where it answers live.
    """

    latent: Float[Tensor, "batch d h w"] | None
    forecast: Float[Tensor, "batch lead channel height width"] | None
    feature_pyramid: tuple[Tensor, ...] = ()


@runtime_checkable
class Targets(Protocol):
    """A teacher's latents and forecasts by window number, stored or computed as asked for.

    Where the latents cover another area than the grid padded to `nn.MULTIPLE`, it also has
    `extent`: (rows, columns) of the grid, counted from the top left.
    """

    def gather(self, index: Tensor, device: torch.device | str) -> Target: ...


def prediction_loss(
    forecast: Float[Tensor, "batch lead channel height width"],
    truth: Float[Tensor, "batch lead channel height width"],
    normaliser: Normaliser,
    exists: Float[Tensor, "height width"] | None,
) -> Scalar:
    """L_pred (eq. 1): mean squared error in the normaliser's unit, over the cells that exist."""
    squares = normaliser.error(forecast, truth).square()
    if exists is None:
        return squares.mean()
    # chosen, not multiplied: what stands for a missing cell may overflow when squared
    squares = torch.where(exists > 0, squares, 0.0)
    return squares.sum() / (exists.sum() * math.prod(squares.shape[:-2]))


def distillation_loss(terms: Sequence[tuple[float, Scalar]]) -> Scalar:
    """L_distill (eq. 12): the weighted sum of its terms, L_semantic + β L_spectral for S²-KD."""
    return sum((weight * value for weight, value in terms[1:]), terms[0][0] * terms[0][1])


def student_loss(prediction: Scalar, distillation: Scalar, *, weight: float) -> Scalar:
    """L_Student (eq. 14; eq. 2 in general form): L_pred + λ L_distill."""
    return prediction + weight * distillation


def exists_or_none(windows: WindowDataset) -> Tensor | None:
    """The grid's mask as 0 and 1 on the windows' device, None where every cell exists."""
    if windows.dataset.grid.mask is None:
        return None
    return torch.from_numpy(windows.dataset.grid.exists).float().to(windows.device)


class Forecasting(nn.Module):
    """Stage 1, and the plain baseline: the forecast error alone (eqs. 1 and 13).

    With `extra` windows that have a truth, over them too (mixup).
    """

    def __init__(
        self,
        model: Student | Teacher,
        windows: WindowDataset,
        states: States | None,
        *,
        extra: ExtraWindows | None = None,
    ) -> None:
        super().__init__()
        self.model, self.epoch = model, 0
        self._windows, self._states, self._extra = windows, states, extra
        self._exists = exists_or_none(windows)

    def forward(self, index: Index) -> LossAndTerms:
        """The loss of the training windows with these numbers, and its terms."""
        window = self._windows.gather(index)
        if self._extra is not None:
            window = joined(window, self._extra.gather(self._extra.of(index, self.epoch)))
        forecast = predict(self.model, window.past, window.index, self._states)
        error = prediction_loss(forecast, window.future, self.model.normaliser, self._exists)
        return error, {"forecast": error.detach()}


@dataclass(frozen=True)
class Weighted:
    """One loss of L_distill: its name, weight, function and which view it compares.

    Where it compares feature pyramids, `loss` is the class, yet to be made for their widths.
    """

    name: str
    weight: float
    loss: LossFn
    compares: str


class Distilling(nn.Module):
    """Stage 2: a student learns the forecast and what a frozen teacher holds (eq. 14).

    The projection P and the weights of losses on feature pyramids live here, not in the
    student, so a saved student carries nothing that it will not use. While `hinting`, only the
    terms on latents count (FitNets' first stage). With `extra` windows and their targets, L_distill
    is over them too, each term over those that the teacher's side of it is known of; L_pred is over
    the own windows alone. These may do without `targets`.
    """

    def __init__(
        self,
        model: Student,
        windows: WindowDataset,
        targets: Targets | None,
        terms: Sequence[Weighted],
        *,
        teacher_width: int,
        weight: float,
        extra: tuple[ExtraWindows, Targets] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.terms, self.weight = model, tuple(terms), weight
        self.project: nn.Module | None = None
        if any(term.compares == "latent" for term in terms):
            self.project = nn.Conv2d(model.backbone.latent_width, teacher_width, 1)
        self.hinting, self.epoch = False, 0
        self._windows, self._targets, self._extra = windows, targets, extra
        if extra is not None and extra[0].memory is not None:
            self.memory = extra[0].memory  # a part of the checkpoint
        self._exists = exists_or_none(windows)
        if self._exists is not None:
            cells = self._exists.flatten().nonzero().flatten()
            self.register_buffer("_existing_cells", cells, persistent=False)
        grid = windows.dataset.grid
        self._extent = extent_of(model.backbone, grid.height, grid.width)
        usual = padded_size(grid.height), padded_size(grid.width)
        answers = targets if extra is None else extra[1]
        self._teacher_extent = getattr(answers, "extent", None) or usual
        self.trainable_losses = nn.ModuleDict()
        for term in terms:
            if term.compares == "feature_pyramid":
                wraps = windows.dataset.grid.wraps
                self.trainable_losses[term.name] = term.loss(*self._stage_widths(term.name), wraps)

    def forward(self, index: Index) -> LossAndTerms:
        """The loss of the training windows with these numbers, and its terms."""
        error, terms = self.parts(index)
        values = {"forecast": error.detach()}
        values.update((name, value.detach()) for name, _, value in terms)
        distillation = distillation_loss([(weight, value) for _, weight, value in terms])
        if self.hinting:
            return distillation, values
        return student_loss(error, distillation, weight=self.weight), values

    def parts(self, index: Index) -> tuple[Scalar, list[tuple[str, float, Scalar]]]:
        """L_pred, and (name, weight within L_distill, value) of every term that counts now."""
        window = self._windows.gather(index)
        past, size = window.past, len(index)
        target = further = NO_TARGET
        if self._targets is not None:
            target = self._targets.gather(index, past.device)
        if self._extra is not None:
            extra, targets = self._extra
            number = extra.of(index, self.epoch)
            past = torch.cat([past, extra.gather(number).past])
            further = targets.gather(number, past.device)
        output = self.model(past)
        error = prediction_loss(
            output.future[:size], window.future, self.model.normaliser, self._exists
        )
        terms = []
        for term in self.terms:
            if self.hinting and term.compares == "forecast":
                continue
            loss, weight = term.loss, term.weight
            if term.compares == "feature_pyramid":
                loss = self.trainable_losses[term.name]
                weight = weight * loss.ramp(self.epoch)
            view = term.compares if term.compares in PLAIN_VIEWS else "latent"
            teacher, rows = _joined_view(view, target, further, size, len(past))
            value = loss(*self._views(term.compares, output, teacher, past, rows))
            terms.append((term.name, weight, value))
        return error, terms

    def renew(self) -> None:
        """Let the extra windows change with the student, before an epoch."""
        if self._extra is not None:
            self._extra[0].renew(self.model, self.epoch)

    def _views(
        self, compares: str, output: Forecast, teacher: Any, past: Tensor, rows: slice
    ) -> tuple[Tensor, Tensor] | tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(student's, teacher's) side of a term; P(Z) of eqs. 10 and 11 is made here."""
        if compares == "forecast":
            forecast = self.model.normaliser.decoded(output.future[rows], past[rows])
            return self._existing(forecast), self._existing(teacher)
        common = tuple(map(min, self._extent, self._teacher_extent))
        if compares == "feature_pyramid":
            return (
                tuple(crop_features(x[rows], self._extent, common) for x in output.feature_pyramid),
                tuple(crop_features(x, self._teacher_extent, common) for x in teacher),
            )
        latent, teacher_latent = match_grids(
            crop_features(output.latent[rows], self._extent, common),
            crop_features(teacher, self._teacher_extent, common),
        )
        return (latent if compares == "unprojected" else self.project(latent)), teacher_latent

    def _existing(self, frames: Tensor) -> Tensor:
        """Of a grid with a mask the cells that exist, as one row; else the frames as they are."""
        if self._exists is None:
            return frames
        return frames.flatten(-2).index_select(-1, self._existing_cells).unsqueeze(-2)

    @torch.no_grad()
    def _stage_widths(self, name: str) -> tuple[list[int], list[int]]:
        """Widths of the feature pyramids of student and teacher, found on one window."""
        index = torch.tensor([0])
        device = next(self.model.parameters()).device
        was_training = self.model.training
        output = self.model.eval()(self._windows.gather(index).past.to(device))
        self.model.train(was_training)
        target = (self._targets or self._extra[1]).gather(index, self._windows.device)
        if not target.feature_pyramid:
            raise S2KDError(
                f"loss {name!r} compares feature pyramids, which stored targets do not hold; "
                "let the teacher answer live (LiveTargets)"
            )
        student, teacher = output.feature_pyramid, target.feature_pyramid
        return [x.shape[1] for x in student], [x.shape[1] for x in teacher]


NO_TARGET = Target(latent=None, forecast=None)
PLAIN_VIEWS = ("forecast", "feature_pyramid")


def _joined_view(view: str, own: Target, extra: Target, size: int, total: int) -> tuple[Any, slice]:
    """The teacher's side of a view, of the first `size` rows, of the rest or of all; its rows."""
    first, second = getattr(own, view), getattr(extra, view)
    present = [value is not None and len(value) > 0 for value in (first, second)]
    if all(present):
        return concatenated(first, second), slice(0, total)
    if not any(present):
        raise S2KDError(f"a loss compares {view}s, but no targets hold them")
    return (first, slice(0, size)) if present[0] else (second, slice(size, total))


def concatenated(first: Any, second: Any) -> Any:
    """Tensors of two batches, or tuples of them, as those of one."""
    if isinstance(first, tuple):
        return tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
    return torch.cat([first, second])


def joined(first: Batch, second: Batch) -> Batch:
    """Two batches as one."""
    values = {
        field.name: torch.cat([getattr(first, field.name), getattr(second, field.name)])
        for field in fields(first)
    }
    return Batch(**values)


def predict(
    model: nn.Module, past: Tensor, index: Tensor, states: States | None
) -> Float[Tensor, "batch lead channel height width"]:
    """The forecast of a model that reads or of one that does not."""
    if isinstance(model, Teacher):
        tokens = states.tokens(index, past.device) if model.reads else None
        return model(past, tokens).future
    return model(past).future
