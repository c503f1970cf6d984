"""One loop for both stages; what is minimised is an objective passed in."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from s2kd.core.files import write_text, write_whole
from s2kd.core.recipe import Training
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.models.forecasters import Student, Teacher
from s2kd.training.objectives import (
    Distilling,
    Forecasting,
    States,
    exists_or_none,
    predict,
    prediction_loss,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a word on the state."""


@torch.no_grad()
def validation_error(
    model: Student | Teacher,
    windows: WindowDataset,
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
            forecast = predict(model, window.past, index, states)
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
    """Whether the last `stop_patience` epochs brought nothing, or the first no number at all."""
    if state.best_epoch < 0:  # weights that are not numbers once will never be again
        return any(not record.get("hint") for record in state.history)
    return state.epoch - 1 - state.best_epoch >= training.stop_patience


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
        "precision": fabric.strategy.precision.state_dict(),  # the scale of losses in float16
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
        if whole.get("precision"):  # checkpoints of earlier versions have none
            fabric.strategy.precision.load_state_dict(whole["precision"])
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
