"""Every backbone teaches every other: one short distillation a pair, on the blobs."""

import pytest
import torch
from worlds import world

from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.normaliser import Normaliser
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Weighted
from s2kd.training.targets import LiveTargets

PAST, LEAD = 3, 2


@pytest.fixture(scope="module")
def blobs():
    dataset = world("blobs")
    windows = WindowDataset(dataset, "train", past=PAST, lead=LEAD, stride=8)
    return windows, statistics(dataset, lead=LEAD)


def made(name, windows):
    return backbones.build(name, windows.dataset.grid, past=PAST, lead=LEAD, preset="small")


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("taught", backbones.names())
@pytest.mark.parametrize("teaching", backbones.names())
def test_a_pair_trains_and_the_teacher_stays(teaching, taught, precision, blobs):
    windows, known = blobs
    torch.manual_seed(0)
    normaliser = Normaliser.from_statistics(known, predict="change")
    teacher = Teacher(
        made(teaching, windows), normaliser, wraps=True, text_width=1, width=16, heads=4, depth=0
    )
    student = Student(made(taught, windows), normaliser)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    terms = [
        Weighted(name, weight, losses.build(name), losses.compares(name))
        for name, weight in (("semantic", 1.0), ("spectral", 0.5), ("output", 1.0))
    ]
    objective = Distilling(
        student, windows, LiveTargets(teacher, windows, None), terms, teacher_width=16, weight=1.0
    )
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    index, totals = torch.arange(8), []
    for _ in range(6):
        # weights stay float32, as under Fabric's "bf16-mixed"
        with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
            loss, _ = objective(index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < totals[0]
    idle = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not [n for n in idle if n.startswith(("model", "project"))]
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
