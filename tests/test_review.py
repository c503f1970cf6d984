"""Knowledge review: fusion and comparison against loops, and as part of training."""

import numpy as np
import pytest
import torch

from s2kd.core.recipe import Training
from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.normaliser import Normaliser
from s2kd.pipeline import contracts
from s2kd.training.loop import fit, validation_error
from s2kd.training.losses import losses
from s2kd.training.losses.review import Fusion, Review, hierarchical
from s2kd.training.objectives import Distilling, Target, Weighted
from s2kd.training.targets import LiveTargets


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def pooled(x, level):
    """Averages over `level` by `level` parts, as PyTorch cuts them, by loops."""
    height, width = x.shape[-2:]
    out = np.zeros((*x.shape[:-2], level, level))
    for i, j in np.ndindex(level, level):
        rows = slice(i * height // level, -(-(i + 1) * height // level))
        columns = slice(j * width // level, -(-(j + 1) * width // level))
        out[..., i, j] = x[..., rows, columns].mean((-2, -1))
    return out


@pytest.mark.parametrize(
    ("grid", "levels"),
    [((8, 16), (4, 2, 1)), ((5, 7), (4, 2, 1)), ((4, 16), (2, 1)), ((16, 3), (2, 1)), ((1, 9), ())],
)
def test_hierarchical_context_by_loops(grid, levels):
    one, other = noise(2, 3, *grid), noise(2, 3, *grid, seed=1)
    total, weights = ((one - other).numpy() ** 2).mean(), 1.0
    for number, level in enumerate(levels, start=1):
        apart = pooled(one.numpy(), level) - pooled(other.numpy(), level)
        total += 0.5**number * (apart**2).mean()
        weights += 0.5**number
    np.testing.assert_allclose(hierarchical(one, other), total / weights, rtol=1e-12)
    assert hierarchical(one, one) == 0


def test_fusion_by_loops():
    """Two sigmoid maps weigh the stage and the deeper feature, cell by cell."""
    torch.manual_seed(0)
    fusion = Fusion(3, 4, 5, False, deepest=False).double().eval()
    for norm in (fusion.narrow[1], fusion.widen[1]):
        torch.nn.init.uniform_(norm.running_mean)
        torch.nn.init.uniform_(norm.weight)
    own, deeper = noise(2, 3, 6, 8), noise(2, 4, 3, 2, seed=1)
    with torch.no_grad():
        made, fused = fusion(own, deeper)
        narrow = fusion.narrow(own).numpy()
        kernel, bias = (p.numpy() for p in fusion.attend[0].parameters())
        want = np.zeros((2, 4, 6, 8))
        for b, y, x in np.ndindex(2, 6, 8):
            below = deeper[b, :, y * 3 // 6, x * 2 // 8].numpy()  # nearest
            both = np.concatenate([narrow[b, :, y, x], below])
            share = 1 / (1 + np.exp(-(kernel[:, :, 0, 0] @ both + bias)))
            want[b, :, y, x] = share[0] * narrow[b, :, y, x] + share[1] * below
        np.testing.assert_allclose(fused, want, rtol=1e-10)
        np.testing.assert_allclose(made, fusion.widen(torch.from_numpy(want)), rtol=1e-10)
    assert made.shape == (2, 5, 6, 8)


def test_review_runs_from_deep_to_shallow_over_the_deepest_stages_of_both():
    torch.manual_seed(0)
    review = Review([3, 4, 6], [5, 2], False).double()
    own = [noise(4, 3, 16, 8), noise(4, 4, 8, 4, seed=1), noise(4, 6, 4, 2, seed=2)]
    wanted = [noise(4, 5, 16, 8, seed=3), noise(4, 2, 4, 2, seed=4)]
    got = review(own, wanted)
    deep, carried = review.fusions[1](own[2], None)
    shallow, _ = review.fusions[0](own[1], carried)
    # the teacher's stage is the finer one: its features are averaged to the student's grid
    coarse = torch.from_numpy(wanted[0].numpy().reshape(4, 5, 8, 2, 4, 2).mean((3, 5)))
    want = hierarchical(deep, wanted[1]) + hierarchical(shallow, coarse)
    torch.testing.assert_close(got, want)
    # a change of the deepest stage reaches the comparison of the shallower one
    own[2].requires_grad_()
    hierarchical(
        review.fusions[0](own[1], review.fusions[1](own[2], None)[1])[0], coarse
    ).backward()
    assert own[2].grad.any()


@pytest.mark.parametrize(("widths", "middle"), [([4, 700], 512), ([4, 6], 6)])
def test_the_middle_width(widths, middle):
    review = Review(widths, [8, 8], True)
    assert [f.narrow[0].out_channels for f in review.fusions] == [middle, middle]
    assert review.fusions[1].attend is None


def test_the_weight_rises_by_twentieths():
    review = losses.build("review")([3], [3], False)
    got = [review.ramp(epoch) for epoch in (0, 9, 19, 20, 99)]
    np.testing.assert_allclose(got, [0.05, 0.5, 1.0, 1.0, 1.0])
    assert losses.build("review", warmup=0)([3], [3], False).ramp(0) == 1.0
    with pytest.raises(S2KDError, match="warmup: wants int >= 0, got -1"):
        losses.build("review", warmup=-1)
    with pytest.raises(S2KDError, match="no setting 'warm'"):
        losses.build("review", warm=3)


@pytest.mark.parametrize("check", contracts.PYRAMID_LOSS_CHECKS)
def test_the_contract_holds(check):
    check(losses.build("review"), "feature_pyramid")


def test_stages_of_backbones_lie_on_their_grids():
    """The frames that SimVP encodes one by one come side by side, in their order."""
    grid = contracts.small_grid()
    settings = {"past": contracts.PAST, "lead": contracts.LEAD, "preset": "tiny"}
    past = contracts.frames(grid, contracts.PAST)
    unet = contracts.student_of(backbones.build("unet", grid, **settings), grid)
    said = unet(past)
    assert [tuple(s.shape[1:]) for s in said.feature_pyramid] == [
        (4, 16, 24),
        (8, 8, 12),
        (16, 4, 6),
    ]
    assert said.feature_pyramid[-1] is said.latent
    simvp = backbones.build("simvp", grid, **settings)
    teacher = contracts.teacher_of(simvp, grid).eval()
    said = teacher(past, contracts.narrative_tokens())
    assert [tuple(s.shape[1:]) for s in said.feature_pyramid] == [(12, 16, 24), (16, 4, 6)]
    assert said.feature_pyramid[-1] is said.latent
    with torch.no_grad():
        alone = simvp.encoder[0](past[1, 2][None])
    torch.testing.assert_close(said.feature_pyramid[0][1, 8:12], alone[0])


PAST, LEAD = 3, 2


def forecasters(blobs):
    torch.manual_seed(0)
    scaler = Normaliser.from_statistics(statistics(blobs, lead=LEAD), predict="change")
    settings = {"past": PAST, "lead": LEAD, "preset": "tiny"}
    student = Student(backbones.build("unet", blobs.grid, **settings), scaler)
    simvp = backbones.build("simvp", blobs.grid, **settings)
    return student, Teacher(
        simvp, scaler, wraps=True, text_width=1, width=16, heads=2, depth=0, dropout=0.0
    )


def reviewing(blobs, weight=1.0, **settings):
    student, teacher = forecasters(blobs)
    train = WindowDataset(blobs, "train", past=PAST, lead=LEAD)
    term = Weighted("review", weight, losses.build("review", **settings), "feature_pyramid")
    live = LiveTargets(teacher, train, None)
    return Distilling(student, train, live, [term], teacher_width=16, weight=1.0)


def test_the_objective_adds_the_ramped_weight(blobs):
    objective, index = reviewing(blobs, weight=0.6), torch.arange(4)
    assert objective.project is None
    for epoch, factor in ((0, 0.05), (19, 1.0)):
        objective.epoch = epoch
        torch.manual_seed(0)
        total, terms = objective(index)
        want = terms["forecast"] + 0.6 * factor * terms["review"]
        torch.testing.assert_close(total.detach(), want)


def test_it_trains_and_leaves_nothing_in_the_student(blobs, tmp_path, fabric):
    objective = reviewing(blobs, warmup=0)
    names = set(objective.model.state_dict())
    before = {n: p.detach().clone() for n, p in objective.trainable_losses.named_parameters()}
    val = WindowDataset(blobs, "val", past=PAST, lead=LEAD)
    history = fit(
        objective, count=24, validate=lambda: validation_error(objective.model, val, None, fabric),
        training=Training(epochs=3, batch_size=8, lr=3e-3), seed=0, folder=tmp_path, fabric=fabric,
    )  # fmt: skip
    assert history[-1]["terms"]["review"] < 0.9 * history[0]["terms"]["review"]
    assert set(objective.model.state_dict()) == names
    same = [
        n for n, p in objective.trainable_losses.named_parameters() if torch.equal(p, before[n])
    ]
    assert same == []


def test_finding_the_widths_changes_neither_student_nor_chance(blobs):
    torch.manual_seed(3)
    plain = forecasters(blobs)[0].state_dict()
    objective = reviewing(blobs)
    for name, value in objective.model.state_dict().items():
        torch.testing.assert_close(value, plain[name], rtol=0, atol=0)
    assert objective.model.training


class Without:
    def gather(self, index, device):
        return Target(latent=torch.zeros(len(index), 16, 2, 2), forecast=None)


def test_targets_without_stages_are_refused(blobs):
    student, _ = forecasters(blobs)
    train = WindowDataset(blobs, "train", past=PAST, lead=LEAD)
    term = Weighted("review", 1.0, losses.build("review"), "feature_pyramid")
    with pytest.raises(S2KDError, match="loss 'review' compares feature pyramids"):
        Distilling(student, train, Without(), [term], teacher_width=16, weight=1.0)
