"""Training loop of teachers and students: epochs, validation, early stopping, exact resume."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from s2kd.core.files import check_seal, write_sealed, write_text
from s2kd.core.recipe import Training
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
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
"""Called with the steps done, the total number of steps, and a short status."""


OnEpoch = Callable[[Mapping[str, Any]], int]
"""Called with the record of an epoch; returns the number of epochs to train in all."""


class EpochsInTime:
    """Shortens a training, as an `OnEpoch`, to the epochs that end before `deadline`.

    The deadline is one of `time.monotonic`. Every epoch is expected to take as long as the last
    one, so that a machine that becomes slow ends in time all the same.
    """

    def __init__(self, epochs: int, deadline: float) -> None:
        self.epochs, self.deadline, self._last = epochs, deadline, (-1, time.monotonic())

    def __call__(self, record: Mapping[str, Any]) -> int:
        now, done = time.monotonic(), record["epoch"] + 1
        before, last = self._last
        self._last = done, now
        if now >= self.deadline:
            return done
        if before != done - 1:  # of another training, or of one that continues
            return self.epochs
        return min(self.epochs, done + int((self.deadline - now) / (now - last)))


@torch.no_grad()
def validation_error(
    model: nn.Module,
    windows: WindowDataset,
    states: States | None,
    fabric: "Fabric",
    *,
    batch_size: int = 32,
) -> float:
    """L_pred (eq. 1) over all windows of a split, in the normaliser's unit.

    It stops training and selects the best weights; distillation terms never do. Several processes
    share the windows.
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
    """Progress of a training, saved in its checkpoint."""

    epoch: int = 0
    step: int = 0  # batches of this epoch already done
    best: float = math.inf
    best_epoch: int = -1
    best_weights: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: Counter[str] = field(default_factory=Counter)  # of the terms, over windows
    useful: Counter[str] = field(default_factory=Counter)  # steps with a finite term other than 0


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
    on_epoch: OnEpoch | None = None,
) -> list[dict[str, Any]]:
    """Minimise an objective; its model ends with the weights of the lowest validation error.

    Writes `log.jsonl`, one record per epoch (epoch, train, terms, val, lr), and, every
    `save_seconds` while it runs, `checkpoint.pt`. Called again after an interruption, it continues
    there and ends with the same numbers: the order of windows depends on seed and epoch alone, and
    the random state is part of the checkpoint.

    There are `count` training windows; `validate` gives the error of the model as it is. In the
    first `hint_epochs` a `Distilling` objective counts its terms on latents alone. `progress` is
    called after every step, `on_epoch` after every epoch: fewer epochs in all shorten a cosine
    schedule too, and an exception leaves a checkpoint to continue from. Returns the records.
    """
    _check_hints(objective, training, hint_epochs)
    # before the optimizer, whose state in a checkpoint goes to the device of the parameters
    objective.to(fabric.device)
    batches = max(1, -(-count // training.batch_size))
    trainer = _Trainer(objective, training, batches, fabric)
    state, path = trainer.state, folder / "checkpoint.pt"
    trainer.restore(path)
    trainer.set_up()
    log = _Log(folder, state.history, fabric, tensorboard)
    saved = time.monotonic()
    epochs = training.epochs
    while state.epoch < epochs and not trainer.is_stale:
        objective.train()
        hinting = state.epoch < hint_epochs
        objective.epoch = state.epoch
        if isinstance(objective, Distilling):
            objective.hinting = hinting
            objective.renew()
        order = _order(count, seed, state.epoch).split(training.batch_size)
        for index in order[state.step :]:
            trainer.learn(index)
            if progress is not None:
                done = state.epoch * batches + state.step
                progress(done, epochs * batches, trainer.status)
            if time.monotonic() - saved > save_seconds:
                trainer.save(path)
                saved = time.monotonic()
        trainer.end_epoch(validate(), hinting)
        log.add(state.history[-1])
        if on_epoch is not None:
            try:
                epochs = on_epoch(state.history[-1])
            except BaseException:
                trainer.save(path)
                raise
            trainer.shorten(epochs * batches)
        if time.monotonic() - saved > save_seconds / 4:
            trainer.save(path)
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


class _Trainer:
    """Objective, optimizer, schedule and state of one training."""

    def __init__(
        self,
        objective: Forecasting | Distilling,
        training: Training,
        batches: int,
        fabric: "Fabric",
    ) -> None:
        self.objective, self.training, self.fabric = objective, training, fabric
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            objective.parameters(), lr=training.lr, weight_decay=training.weight_decay
        )
        self.schedule = _schedule(self.optimizer, training, batches)
        self.state = _State()

    def set_up(self) -> None:
        """Hand objective and optimizer to Fabric, once a checkpoint is restored."""
        self.wrapped, self.optimizer = self.fabric.setup(self.objective, self.optimizer)

    def learn(self, index: Tensor) -> None:
        """One step; every process takes its share of the batch."""
        fabric, sums, useful = self.fabric, self.state.sums, self.state.useful
        share = index[fabric.global_rank :: fabric.world_size]
        if len(index) < fabric.world_size:
            share = index
        loss, terms = self.wrapped(share)
        self.optimizer.zero_grad()
        fabric.backward(loss)
        if self.training.clip:
            fabric.clip_gradients(
                self.wrapped,
                self.optimizer,
                max_norm=self.training.clip,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        for name, value in {"total": loss.detach(), **terms}.items():
            sums[name] += float(value) * len(index)
            useful[name] += 0 < abs(float(value)) < math.inf
        sums["windows"] += len(index)
        if self.training.schedule == "cosine":
            self.schedule.step()
        self.state.step += 1

    def shorten(self, steps: int) -> None:
        """Let a cosine schedule reach its end after this number of steps in all."""
        if isinstance(self.schedule, torch.optim.lr_scheduler.CosineAnnealingLR):
            self.schedule.T_max = max(1, steps)

    def end_epoch(self, error: float, hinting: bool) -> None:
        """Keep the best weights, move the learning rate, add the record."""
        state = self.state
        windows = state.sums.pop("windows")
        means = {name: value / windows for name, value in state.sums.items()}
        _check_terms(means, state.useful)
        record = {
            "epoch": state.epoch,
            "train": means.pop("total"),
            "terms": means,
            "val": error,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        if hinting:
            record["hint"] = True
        elif error < state.best:
            state.best, state.best_epoch = error, state.epoch
            weights = self.objective.model.state_dict()
            state.best_weights = {k: value.detach().clone() for k, value in weights.items()}
        if not hinting and self.training.schedule == "plateau":
            self.schedule.step(error)
        state.history.append(record)
        state.epoch, state.step = state.epoch + 1, 0
        state.sums, state.useful = Counter(), Counter()

    @property
    def is_stale(self) -> bool:
        """Whether `stop_patience` epochs brought nothing, or the first one no number at all."""
        state = self.state
        if state.best_epoch < 0:  # weights that are not numbers once will never be again
            return any(not record.get("hint") for record in state.history)
        return state.epoch - 1 - state.best_epoch >= self.training.stop_patience

    @property
    def status(self) -> str:
        """Epoch and last validation error."""
        history = self.state.history
        validation = f", validation {history[-1]['val']:.4f}" if history else ""
        return f"epoch {self.state.epoch + 1}{validation}"

    def save(self, path: Path) -> None:
        """Write the checkpoint, by the first process."""
        if not self.fabric.is_global_zero:
            return
        content = {
            "state": vars(self.state),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            # the scale of losses in float16
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        write_sealed(path, lambda beside: torch.save(content, beside))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, if there is one."""
        if not path.exists():
            return
        check_seal(path, "delete it to train from the start")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self.objective.load_state_dict(content["objective"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.schedule.load_state_dict(content["schedule"])
            if content.get("precision"):  # checkpoints of earlier versions have none
                self.fabric.strategy.precision.load_state_dict(content["precision"])
            vars(self.state).update(content["state"])
            torch.set_rng_state(content["random"])
        except Exception as error:
            raise S2KDError(
                f"{path}: truncated or not a checkpoint of this training "
                f"({type(error).__name__}); delete it to train from the start"
            ) from None
        if content["random_cuda"] and torch.cuda.device_count() == len(content["random_cuda"]):
            torch.cuda.set_rng_state_all(content["random_cuda"])


def _check_terms(means: Mapping[str, float], useful: Mapping[str, int]) -> None:
    """Refuse a distillation term that taught nothing in an epoch; L_pred has its own check."""
    for name in means:
        if name in ("total", "forecast") or useful[name] or not useful["forecast"]:
            continue
        raise S2KDError(
            f"the loss {name!r} was {means[name]:g} in every step of an epoch, so it teaches "
            "nothing; check the teacher's outputs, or leave this loss out of the method"
        )


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
            scalars = {name: record[name] for name in ("train", "val", "lr")}
            for name, value in {**scalars, **record["terms"]}.items():
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
