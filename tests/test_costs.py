"""What the cost columns count, against layers whose cost can be worked out by hand."""

import pytest
import torch
from torch import nn

from s2kd.models import costs as measure


def test_multiply_adds_of_one_convolution():
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    # every output cell of 8 × 6, 5 features, sums 3 × 3 × 3 products
    assert measure.multiply_adds(conv, torch.zeros(1, 3, 8, 6)) == 8 * 6 * 5 * 27


def test_activations_are_what_backward_needs_and_neither_weights_nor_input():
    layers = nn.Sequential(nn.Linear(4, 16), nn.Sigmoid(), nn.Linear(16, 2))
    # the sigmoid's output of 16 floats serves it and the layer after it, and is counted once
    assert measure.activation_bytes(layers, torch.zeros(1, 4)) == 16 * 4


def test_a_row_counts_what_the_built_model_holds():
    size = next(s for s in measure.sizes() if s.name == "unet" and s.preset == "tiny")
    built = sum(p.numel() for p in measure.build(size).parameters())
    assert measure.row(size)["parameters"] == built


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_measured_row_says_where(role):
    size = next(s for s in measure.sizes() if s.role == role and s.preset == "tiny")
    row = measure.measured(size, repeats=2)
    assert row["multiply_adds"] > 0 < row["activation_bytes"]
    assert row["latency"]["device"] == "cpu"
    assert row["hardware"]["processor"]
