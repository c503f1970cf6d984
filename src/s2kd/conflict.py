"""Whether the terms of the loss pull a student the same way; a diagnostic."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s2kd.objectives import Distilling, Index

Gradients = list[Tensor | None]
"""One a parameter; None where the value does not depend on it."""


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
