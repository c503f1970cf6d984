"""Candidates of a search: students at several sizes, methods, and what each student costs."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from s2kd.core.errors import S2KDError, nearest
from s2kd.core.methods import Method, Part
from s2kd.core.types import GridSpec
from s2kd.deploy.export import measure_onnx
from s2kd.evaluation.answer import Candidate, Cost
from s2kd.models.checkpoint import build_student
from s2kd.models.layers import parameter_count
from s2kd.pipeline.options import Budget
from s2kd.pipeline.run import Run
from s2kd.training.objectives import Forecasting

SIZES: dict[str, dict[str, dict[str, int]]] = {
    "unet": {"small": {"width": 6}, "medium": {"width": 12}, "large": {"width": 24}},
    "resnet": {
        "small": {"width": 16, "blocks": 3},
        "medium": {"width": 32, "blocks": 4},
        "large": {"width": 64, "blocks": 4},
    },
    "mixer": {
        "small": {"width": 64, "depth": 2, "token_width": 64, "channel_width": 192},
        "medium": {"width": 128, "depth": 4, "token_width": 128, "channel_width": 384},
        "large": {"width": 256, "depth": 6, "token_width": 256, "channel_width": 768},
    },
}
"""Settings of each backbone by size; `paper` adds the published size."""

RUNTIME = "ONNX Runtime, batch 1, 1 thread"
ALL_SIZES = ("small", "medium", "large", "paper")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Size and speed of a network, and the seconds of one training step."""

    parameters: int
    bytes: int
    latency_ms: float
    step_seconds: float

    def cost(self, seconds: float | None = None) -> Cost:
        """As in an answer, with the seconds of its training."""
        return Cost(
            latency_ms=self.latency_ms,
            bytes=self.bytes,
            parameters=self.parameters,
            seconds=seconds,
            runtime=RUNTIME,
        )


@dataclass(frozen=True, kw_only=True)
class MeasuredStudent(Measured):
    """A student by its name in the search.

    `excess` says how it exceeds the budget, "" where it does not.
    """

    name: str
    part: Part
    excess: str

    def candidate(self, **facts: Any) -> Candidate:
        """As a row of an answer, with these `facts`."""
        row = {"method": "", "label": self.name, "validation": None, "seconds": 0.0, "epochs": 0}
        return Candidate(
            student=self.name,
            settings=self.part.params,
            parameters=self.parameters,
            bytes=self.bytes,
            latency_ms=self.latency_ms or None,
            runtime=RUNTIME,
            **row | facts,
        )


@dataclass(frozen=True, kw_only=True)
class Design:
    """One candidate: a student trained by one method."""

    student: MeasuredStudent
    method: Method

    @property
    def name(self) -> str:
        """Student and method, as in `unet-medium s2kd`."""
        return f"{self.student.name} {self.method.name}"


def student_parts(
    grid: GridSpec, *, backbones: Iterable[str] = (), sizes: Iterable[str] = (), norm: str = ""
) -> dict[str, Part]:
    """Students by name (`unet-small`), of these backbones and sizes, for a grid.

    Without `backbones` all, without `sizes` small, medium and large. A large grid is read in
    patches. A `norm` other than the backbones' own is set where they have one.
    """
    backbones, sizes = tuple(backbones) or tuple(SIZES), tuple(sizes) or ALL_SIZES[:3]
    for names, choices, option in (
        (backbones, tuple(SIZES), "--students"),
        (sizes, ALL_SIZES, "--sizes"),
    ):
        for name in names:
            if name not in choices:
                raise S2KDError(
                    f"{option} {name}: must be of {', '.join(choices)}{nearest(name, choices)}"
                )
    parts = {}
    for size in sizes:
        for backbone in backbones:
            params: dict[str, Any] = (
                {"preset": "paper"} if size == "paper" else dict(SIZES[backbone][size])
            )
            if size != "paper":
                params |= _patch(backbone, grid)
            if norm and backbone != "mixer":
                params["norm"] = norm
            parts[f"{backbone}-{size}"] = Part(name=backbone, params=params)
    return parts


def _patch(backbone: str, grid: GridSpec) -> dict[str, int]:
    """Patches by the number of cells, so that a step on a large grid stays affordable."""
    cells = grid.height * grid.width
    if backbone == "mixer":
        return {"patch": 2 if cells <= 1024 else 4 if cells <= 128 * 128 else 8}
    return {"patch": 1 if cells <= 128 * 128 else 2 if cells <= 256 * 256 else 4}


def measured(run: Run, name: str, part: Part, budget: Budget) -> MeasuredStudent:
    """A student built, exported untrained, run once and held against the budget.

    Raises S2KDError where it cannot be built on this grid or exported to ONNX, so that a failure
    after hours of training is found before the first step.
    """
    student = build_student(part, run.setting)
    parameters = parameter_count(student)
    if budget.max_parameters is not None and parameters > budget.max_parameters:
        latency_ms, size, step_seconds = 0.0, 4 * parameters, 0.0  # too large: not measured
    else:
        try:
            latency_ms, size = measure_onnx(student, run.setting)
        except S2KDError:
            raise
        except Exception as error:  # of the exporter, of a dozen types
            raise S2KDError(
                f"student {name}: cannot be exported to ONNX ({type(error).__name__}: {error}); "
                "leave it out with --students"
            ) from error
        step_seconds = time_of_step(run, student)
    return MeasuredStudent(
        name=name,
        part=part,
        parameters=parameters,
        bytes=size,
        latency_ms=latency_ms,
        step_seconds=step_seconds,
        excess=budget.excess(latency_ms=latency_ms, parameters=parameters),
    )


def time_of_step(
    run: Run, model: torch.nn.Module, *, batch_size: int = 0, repeats: int = 3
) -> float:
    """Seconds of one training step (forward and backward) on this machine, the fastest of a few."""
    windows = run.windows("train", device=run.fabric.device)
    size = batch_size or run.recipe.student_training.batch_size
    index = torch.arange(len(windows))[:size]
    model = model.to(run.fabric.device).to(memory_format=torch.channels_last).train()
    objective = Forecasting(model, windows, None)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        loss, _ = objective(index)
        loss.backward()
        loss.item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    return min(times)


def designs(students: Sequence[MeasuredStudent], methods: Sequence[Method]) -> list[Design]:
    """Every student within the budget by every method: by the first method first."""
    affordable = [student for student in students if not student.excess]
    return [Design(student=student, method=method) for method in methods for student in affordable]
