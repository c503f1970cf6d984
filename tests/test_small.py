"""Every backbone keeps its contract at `small`, the size that trains on two cores."""

import pytest
import torch

from s2kd.models.backbones import backbones
from s2kd.pipeline import contracts
from s2kd.training.objectives import prediction_loss


def small(name, *, wraps=False, seed=0):
    torch.manual_seed(seed)
    grid = contracts.small_grid(wraps=wraps)
    made = backbones.build(name, grid, past=contracts.PAST, lead=contracts.LEAD, preset="small")
    return made, grid


@pytest.mark.parametrize("check", contracts.BACKBONE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", backbones.names())
def test_small_keeps_its_contract(name, check):
    check(*small(name))


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize("name", backbones.names())
def test_one_seed_gives_one_training(name, role):
    first, again, other = (trained(name, role, seed=seed) for seed in (0, 0, 1))
    for key, value in first.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=0)
    assert any(not torch.equal(other[key], value) for key, value in first.items())


def trained(name, role, *, seed):
    """Weights after two steps."""
    backbone, grid = small(name, wraps=True, seed=seed)
    model = (contracts.student_of if role == "student" else contracts.teacher_of)(backbone, grid)
    past, future = contracts.frames(grid, contracts.PAST), contracts.frames(grid, contracts.LEAD)
    given = () if role == "student" else (contracts.narrative_tokens(),)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        loss = prediction_loss(model(past, *given).future, future, model.normaliser, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
