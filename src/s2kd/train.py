"""One loop for both stages; what is minimised is an objective passed in."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from s2kd.blends import Blends
from s2kd.files import write_text, write_whole
from s2kd.losses import LossFn
from s2kd.models import Student, Teacher
from s2kd.nn import match_grids
from s2kd.normalise import Normaliser
from s2kd.recipe import Training
from s2kd.types import Forecast, S2KDError, Tokens, Window
from s2kd.windows import Windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Scalar = Float[Tensor, ""]
Index = Int[Tensor, " batch"]
LossAndTerms = tuple[Scalar, dict[str, Tensor]]
Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a word on the state."""


@runtime_checkable
class States(Protocol):
    """Token states by window number."""

    def tokens(self, index: Tensor, device: torch.device | str) -> Tokens: ...


@dataclass(frozen=True)
class Target:
    """What a frozen teacher says of a batch: Z_fused, and its forecast in the normaliser's unit.

    `stages` are its features from shallow to deep, where it answers live.
    """

    latent: Float[Tensor, "batch d h w"] | None
    forecast: Float[Tensor, "batch lead channel height width"] | None
    stages: tuple[Tensor, ...] = ()


@runtime_checkable
class Targets(Protocol):
    """A teacher's latents and forecasts by window number, stored or computed as asked for."""

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


def exists_or_none(windows: Windows) -> Tensor | None:
    """The grid's mask as 0 and 1 on the windows' device, None where every cell exists."""
    if windows.dataset.grid.mask is None:
        return None
    return torch.from_numpy(windows.dataset.grid.exists).float().to(windows.device)


class Forecasting(nn.Module):
    """Stage 1, and the plain baseline: the forecast error alone (eqs. 1 and 13).

    With `blends` over them too, the truth blended like the past (mixup).
    """

    def __init__(
        self,
        model: Student | Teacher,
        windows: Windows,
        states: States | None,
        *,
        blends: Blends | None = None,
    ) -> None:
        super().__init__()
        self.model, self.epoch = model, 0
        self._windows, self._states, self._blends = windows, states, blends
        self._exists = exists_or_none(windows)

    def forward(self, index: Index) -> LossAndTerms:
        """The loss of the training windows with these numbers, and its terms."""
        window = self._windows.gather(index)
        if self._blends is not None:
            window = joined(window, self._blends.gather(self._blends.of(index, self.epoch)))
        forecast = foresee(self.model, window.past, window.index, self._states)
        error = prediction_loss(forecast, window.future, self.model.normaliser, self._exists)
        return error, {"forecast": error.detach()}


@dataclass(frozen=True)
class Weighted:
    """One loss of L_distill: its name, weight, function and which view it compares.

    Where it compares stages, `loss` is the class, yet to be made for their widths.
    """

    name: str
    weight: float
    loss: LossFn
    compares: str


class Distilling(nn.Module):
    """Stage 2: a student learns the forecast and what a frozen teacher holds (eq. 14).

    The projection P and the weights of losses on stages live here, not in the student, so a
    saved student carries nothing that it will not use. While `hinting`, only the terms on latents
    count (FitNets' first stage). With `blends` (and what the teacher says of them) L_distill is
    taken over the windows and a blend of each, L_pred over the windows alone.
    """

    def __init__(
        self,
        model: Student,
        windows: Windows,
        targets: Targets,
        terms: Sequence[Weighted],
        *,
        teacher_width: int,
        weight: float,
        blends: tuple[Blends, Targets] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.terms, self.weight = model, tuple(terms), weight
        self.project: nn.Module | None = None
        if any(term.compares == "latent" for term in terms):
            self.project = nn.Conv2d(model.backbone.latent_width, teacher_width, 1)
        self.hinting, self.epoch = False, 0
        self._windows, self._targets, self._blends = windows, targets, blends
        self._exists = exists_or_none(windows)
        self.reviews = nn.ModuleDict()
        for term in terms:
            if term.compares == "stages":
                wraps = windows.dataset.grid.wraps
                self.reviews[term.name] = term.loss(*self._stage_widths(term.name), wraps)

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
        past, target = window.past, self._targets.gather(index, window.past.device)
        if self._blends is not None:
            blends, targets = self._blends
            number = blends.of(index, self.epoch)
            past = torch.cat([past, blends.gather(number).past])
            target = joined(target, targets.gather(number, past.device))
        own = self.model(past)
        forecast = own.future[: len(index)]
        error = prediction_loss(forecast, window.future, self.model.normaliser, self._exists)
        found = []
        for term in self.terms:
            if self.hinting and term.compares == "forecast":
                continue
            loss, weight = term.loss, term.weight
            if term.compares == "stages":
                loss = self.reviews[term.name]
                weight = weight * loss.ramp(self.epoch)
            value = loss(*self._views(term.compares, own, target, past))
            found.append((term.name, weight, value))
        return error, found

    def _views(
        self, compares: str, own: Forecast, target: Target, past: Tensor
    ) -> tuple[Tensor, Tensor] | tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(student's, teacher's) side of a term; P(Z) of eqs. 10 and 11 is made here."""
        if compares == "forecast":
            return self.model.normaliser.decoded(own.future, past), target.forecast
        if compares == "stages":
            return own.stages, target.stages
        latent, wanted = match_grids(own.latent, target.latent)
        return (latent if compares == "unprojected" else self.project(latent)), wanted

    @torch.no_grad()
    def _stage_widths(self, name: str) -> tuple[list[int], list[int]]:
        """Features of every stage of student and teacher, found on one window."""
        index = torch.tensor([0])
        device = next(self.model.parameters()).device
        was_training = self.model.training
        own = self.model.eval()(self._windows.gather(index).past.to(device))
        self.model.train(was_training)
        wanted = self._targets.gather(index, self._windows.device).stages
        if not wanted:
            raise S2KDError(
                f"loss {name!r} compares the teacher's stages, which stored targets do not hold; "
                "let the teacher answer live (LiveTargets)"
            )
        return [stage.shape[1] for stage in own.stages], [stage.shape[1] for stage in wanted]


def joined(one: Window | Target, other: Window | Target) -> Window | Target:
    """Two batches as one; what is None in both stays None."""

    def both(a: Any, b: Any) -> Any:
        if isinstance(a, tuple):
            return tuple(torch.cat(pair) for pair in zip(a, b, strict=True))
        return None if a is None else torch.cat([a, b])

    names = [field.name for field in fields(one)]
    return type(one)(**{name: both(getattr(one, name), getattr(other, name)) for name in names})


def foresee(
    model: Student | Teacher, past: Tensor, index: Tensor, states: States | None
) -> Float[Tensor, "batch lead channel height width"]:
    """The forecast of a model that reads or of one that does not."""
    if isinstance(model, Teacher):
        tokens = states.tokens(index, past.device) if model.reads else None
        return model(past, tokens).future
    return model(past).future


def gradient_conflict(objective: Distilling, index: Index) -> dict[str, Any]:
    """How far the terms of the loss pull the student one way, on one batch; a diagnostic.

    Gradients of L_pred and of each term of L_distill with respect to the student's parameters.
    For each term `norm` (of the bare term), `weighted_norm` (times λ and its own weight, as it
    enters the step), and over the parameters that both reach (what lies behind the latent, a term
    on latents does not move) the `forecast_norm` and the `cosine` with the gradient of L_pred.
    `distillation` says the same of λ L_distill as a whole, `between` gives the cosine of every two
    terms, `forecast_norm` is that of L_pred over all parameters. A cosine below 0 is a conflict
    (Yu et al. 2020); it is None where a gradient is nought. Nothing is learned: buffers and the
    random state are left as they were.
    """
    model = objective.model
    weights = [p for p in model.parameters() if p.requires_grad]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = {p.device for p in weights if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.enable_grad():
        error, terms = objective.parts(index)
        forecast = _gradients(error, weights)
        pulls = {name: _gradients(value, weights) for name, _, value in terms}
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    scales = {name: objective.weight * weight for name, weight, _ in terms}
    together = [
        _sum([scales[name] * g for name, g in zip(pulls, column, strict=True) if g is not None])
        for column in zip(*pulls.values(), strict=True)
    ]
    names = list(pulls)
    return {
        "forecast_norm": _norm(forecast),
        "terms": {
            name: {**_pull(forecast, pulls[name]), "weighted_norm": scale * _norm(pulls[name])}
            for name, scale in scales.items()
        },
        "distillation": _pull(forecast, together),
        "between": {
            f"{one} · {other}": _pull(pulls[one], pulls[other])["cosine"]
            for i, one in enumerate(names)
            for other in names[i + 1 :]
        },
    }


Gradients = list[Tensor | None]
"""One a parameter; None where the value does not depend on it."""


def _gradients(value: Tensor, weights: list[nn.Parameter]) -> Gradients:
    return list(torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True))


def _sum(parts: Sequence[Tensor]) -> Tensor | None:
    return sum(parts[1:], parts[0]) if parts else None


def _dot(one: Gradients, other: Gradients) -> float:
    """In float64, over the parameters that both reach."""
    pairs = zip(one, other, strict=True)
    reached = [(a.double() * b.double()).sum() for a, b in pairs if a is not None and b is not None]
    return float(sum(reached)) if reached else 0.0


def _norm(gradients: Gradients) -> float:
    return math.sqrt(_dot(gradients, gradients))


def _pull(forecast: Gradients, term: Gradients) -> dict[str, float | None]:
    """Norm of a term, and its cosine with the forecast's gradient where both reach."""
    shared = [g if t is not None else None for g, t in zip(forecast, term, strict=True)]
    reached = [t if g is not None else None for g, t in zip(forecast, term, strict=True)]
    ours, theirs = _norm(shared), _norm(reached)
    known = ours > 0 and theirs > 0
    return {
        "norm": _norm(term),
        "forecast_norm": ours,
        "cosine": _dot(shared, reached) / (ours * theirs) if known else None,
    }


@torch.no_grad()
def validation_error(
    model: Student | Teacher,
    windows: Windows,
    states: States | None,
    fabric: "Fabric",
    *,
    batch_size: int = 32,
) -> float:
    """L_pred over all of a split: what stops training and chooses its best weights.

    Never the distillation terms, which must not decide which checkpoint forecasts best. Several
    processes share the windows.
    """
    was_training = model.training
    model.eval()
    exists = exists_or_none(windows)
    total = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    with fabric.autocast():
        for index in torch.arange(len(windows)).split(batch_size)[
            fabric.global_rank :: fabric.world_size
        ]:
            window = windows.gather(index)
            forecast = foresee(model, window.past, index, states)
            error = prediction_loss(forecast, window.future, model.normaliser, exists)
            total += torch.tensor([error.item() * len(index), len(index)], device=fabric.device)
    total = fabric.all_reduce(total, reduce_op="sum")
    model.train(was_training)
    return float(total[0] / total[1])


@dataclass
class _State:
    """All that a training needs to go on exactly where it was."""

    epoch: int = 0
    step: int = 0  # batches of this epoch already done
    best: float = math.inf
    best_epoch: int = -1
    best_weights: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] | None = None
    sums: dict[str, float] | None = None


def fit(
    objective: Forecasting | Distilling,
    *,
    count: int,
    validate: Callable[[], float],
    training: Training,
    seed: int,
    folder: Path,
    fabric: "Fabric",
    hint_epochs: int = 0,
    progress: Progress | None = None,
    save_seconds: float = 20.0,
    tensorboard: bool = False,
) -> list[dict[str, Any]]:
    """Minimise the objective over `count` windows; leaves the best weights in its model.

    Writes `log.jsonl` (one record an epoch, which are also returned) and, while it runs,
    `checkpoint.pt` into `folder`. Called again after it was killed, it goes on from there and
    ends with the same numbers, because the order of windows depends on seed and epoch alone and
    the random state is part of the checkpoint.
    """
    _check_hints(objective, training, hint_epochs)
    # first of all: what a checkpoint holds of the optimizer goes where the parameters are
    objective.to(fabric.device)
    optimizer = torch.optim.Adam(
        objective.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    batches = max(1, -(-count // training.batch_size))
    schedule = _schedule(optimizer, training, batches)
    state = _State(history=[], sums={})
    path = folder / "checkpoint.pt"
    _restore(path, state, objective, optimizer, schedule, fabric)
    wrapped, optimizer = fabric.setup(objective, optimizer)
    log = _Log(folder, state.history, fabric, tensorboard)
    saved = time.monotonic()
    while state.epoch < training.epochs and not _stale(state, training):
        objective.train()
        hinting = state.epoch < hint_epochs
        objective.epoch = state.epoch
        if isinstance(objective, Distilling):
            objective.hinting = hinting
        order = _order(count, seed, state.epoch).split(training.batch_size)
        for index in order[state.step :]:
            _learn(wrapped, optimizer, index, training, fabric, state)
            if training.schedule == "cosine":
                schedule.step()
            state.step += 1
            if progress is not None:
                progress(
                    state.epoch * batches + state.step, training.epochs * batches, _word(state)
                )
            if time.monotonic() - saved > save_seconds:
                _save(path, state, objective, optimizer, schedule, fabric)
                saved = time.monotonic()
        _end_epoch(state, objective, optimizer, schedule, training, validate, hinting)
        log.add(state.history[-1])
        if time.monotonic() - saved > save_seconds / 4:
            _save(path, state, objective, optimizer, schedule, fabric)
            saved = time.monotonic()
    log.close()
    if state.best_weights is None:
        raise S2KDError(
            f"{folder.name}: the validation error was never a number; "
            "lower the learning rate (lr) or set clip"
        )
    objective.model.load_state_dict(state.best_weights)
    return state.history


def _check_hints(objective: Forecasting | Distilling, training: Training, hint_epochs: int) -> None:
    """Hints need something to compare, and epochs after them from which weights are chosen."""
    if hint_epochs == 0:
        return
    terms = objective.terms if isinstance(objective, Distilling) else ()
    if not any(term.compares != "forecast" for term in terms):
        raise S2KDError(f"hint_epochs={hint_epochs}: the method has no loss on latents to train on")
    if hint_epochs >= training.epochs:
        raise S2KDError(
            f"hint_epochs={hint_epochs} leaves none of the {training.epochs} epochs for forecasting"
        )


def _order(count: int, seed: int, epoch: int) -> Tensor:
    """The windows of one epoch, shuffled by seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def _schedule(
    optimizer: torch.optim.Optimizer, training: Training, batches: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """÷10 after five flat epochs (patience 4 of PyTorch reduces at the fifth), cosine, or none."""
    if training.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=training.plateau_patience, threshold=1e-4
        )
    if training.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=training.epochs * batches
        )
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _learn(
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    index: Tensor,
    training: Training,
    fabric: "Fabric",
    state: _State,
) -> None:
    """One step; every process takes its share of the batch."""
    share = index[fabric.global_rank :: fabric.world_size]
    if len(index) < fabric.world_size:
        share = index
    loss, terms = wrapped(share)
    optimizer.zero_grad()
    fabric.backward(loss)
    if training.clip:
        fabric.clip_gradients(wrapped, optimizer, max_norm=training.clip, error_if_nonfinite=False)
    optimizer.step()
    for name, value in {"total": loss.detach(), **terms}.items():
        state.sums[name] = state.sums.get(name, 0.0) + float(value) * len(index)
    state.sums["windows"] = state.sums.get("windows", 0.0) + len(index)


def _end_epoch(
    state: _State,
    objective: Forecasting | Distilling,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    training: Training,
    validate: Callable[[], float],
    hinting: bool,
) -> None:
    """Validate, keep the best weights, move the learning rate, write the record."""
    error = validate()
    windows = state.sums.pop("windows")
    means = {name: value / windows for name, value in state.sums.items()}
    record = {
        "epoch": state.epoch,
        "train": means.pop("total"),
        "terms": means,
        "val": error,
        "lr": optimizer.param_groups[0]["lr"],
    }
    if hinting:
        record["hint"] = True
    elif error < state.best:
        state.best, state.best_epoch = error, state.epoch
        weights = objective.model.state_dict()
        state.best_weights = {name: value.detach().clone() for name, value in weights.items()}
    if not hinting and training.schedule == "plateau":
        schedule.step(error)
    state.history.append(record)
    state.epoch, state.step, state.sums = state.epoch + 1, 0, {}


def _stale(state: _State, training: Training) -> bool:
    """Whether the last `stop_patience` epochs brought nothing."""
    tried = state.best_epoch >= 0
    return tried and state.epoch - 1 - state.best_epoch >= training.stop_patience


def _word(state: _State) -> str:
    if not state.history:
        return f"epoch {state.epoch + 1}"
    return f"epoch {state.epoch + 1}, validation {state.history[-1]['val']:.4f}"


def _save(
    path: Path,
    state: _State,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    fabric: "Fabric",
) -> None:
    """The whole state, beside and renamed, by the first process."""
    if not fabric.is_global_zero:
        return
    whole = {
        "state": vars(state),
        "objective": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    write_whole(path, lambda beside: torch.save(whole, beside))


def _restore(
    path: Path,
    state: _State,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    fabric: "Fabric",
) -> None:
    """Put back what `_save` wrote, if there is anything."""
    if not path.exists():
        return
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
        objective.load_state_dict(whole["objective"])
        optimizer.load_state_dict(whole["optimizer"])
        schedule.load_state_dict(whole["schedule"])
        vars(state).update(whole["state"])
        torch.set_rng_state(whole["random"])
    except Exception as error:
        raise S2KDError(
            f"{path}: truncated or not a checkpoint of this training "
            f"({type(error).__name__}); delete it to train from the start"
        ) from None
    if whole["random_cuda"] and torch.cuda.device_count() == len(whole["random_cuda"]):
        torch.cuda.set_rng_state_all(whole["random_cuda"])


class _Log:
    """`log.jsonl`, and TensorBoard's event file where asked for."""

    def __init__(
        self, folder: Path, history: Sequence[Mapping[str, Any]], fabric: "Fabric", board: bool
    ) -> None:
        self._first = fabric.is_global_zero
        self._path = folder / "log.jsonl"
        self._writer = None
        if not self._first:
            return
        # epochs after the last checkpoint are done again: their old records go
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in history))
        if board:
            self._writer = _tensorboard(folder)

    def add(self, record: Mapping[str, Any]) -> None:
        if not self._first:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer is not None:
            flat = {"train": record["train"], "val": record["val"], "lr": record["lr"]}
            for name, value in {**flat, **record["terms"]}.items():
                self._writer.add_scalar(name, value, record["epoch"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise S2KDError("TensorBoard is not installed: pip install 's2kd[tensorboard]'") from None
    return SummaryWriter(folder / "tensorboard")
