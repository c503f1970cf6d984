"""Fidelity of a student: mean squared distance between its forecasts and its teacher's."""

from dataclasses import dataclass

import torch
from torch import Tensor

from s2kd.data.windows import WindowDataset
from s2kd.models.forecasters import Student, Teacher
from s2kd.training.objectives import States, exists_or_none, predict, prediction_loss


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Mean squared errors in the unit of the training loss: of each model, and between the two.

    Where `student_teacher_mse` is large on the training windows, the student cannot follow its
    teacher; where it is large on others alone, it has not seen enough of it.
    """

    student_mse: float
    teacher_mse: float
    student_teacher_mse: float


@torch.no_grad()
def agreement(
    student: Student,
    teacher: Student | Teacher,
    windows: WindowDataset,
    states: States | None = None,
    *,
    index: Tensor | None = None,
    batch_size: int = 32,
) -> Agreement:
    """The fidelity of a student (Stanton et al. 2021), for forecasts.

    Over all windows of a split, or those of `index` (at least one). `states` are the token states
    of these windows for a teacher that reads. The unit is that of L_pred (eq. 1), by the student's
    normaliser.
    """
    numbers = torch.arange(len(windows)) if index is None else index
    modes = [(model, model.training) for model in (student, teacher)]
    exists = exists_or_none(windows)
    total = torch.zeros(3, dtype=torch.float64)
    for model, _ in modes:
        model.eval()
    for block in numbers.split(batch_size):
        window = windows.gather(block)
        forecast = predict(student, window.past, block, None)
        teacher_forecast = predict(teacher, window.past, block, states)
        pairs = (
            (forecast, window.future),
            (teacher_forecast, window.future),
            (forecast, teacher_forecast),
        )
        errors = [prediction_loss(a, b, student.normaliser, exists).item() for a, b in pairs]
        total += len(block) * torch.tensor(errors, dtype=torch.float64)
    for model, training in modes:
        model.train(training)
    student_mse, teacher_mse, student_teacher_mse = (total / len(numbers)).tolist()
    return Agreement(
        student_mse=student_mse,
        teacher_mse=teacher_mse,
        student_teacher_mse=student_teacher_mse,
    )
