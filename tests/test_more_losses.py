"""Losses on latents beyond the method's own, against slow loops in float64."""

import dataclasses
import json

import numpy as np
import pytest
import road
import torch
from msgspec.structs import replace

from s2kd import pipeline
from s2kd.core.methods import BUILT_IN
from s2kd.core.types import S2KDError
from s2kd.models.checkpoint import load_student
from s2kd.training.losses import losses
from s2kd.training.losses.pointwise import attention_map
from s2kd.training.losses.relational import angles, distances
from s2kd.training.losses.spectral import low_pass


def pair(batch=5, *, seed=0, widths=(4, 4), grid=(5, 8)):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, width, *grid, generator=generator, dtype=torch.float64)
        for width in widths
    )


def smooth_l1(x):
    return 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5


def oracle_relational(one, other, distance, angle):
    """Park et al. 2019 by loops over pairs and triplets."""
    sides = []
    for latent in (one.numpy(), other.numpy()):
        x = latent.mean((2, 3))
        count = len(x)
        length = [[np.linalg.norm(x[j] - x[i]) for j in range(count)] for i in range(count)]
        positive = [v for row in length for v in row if v > 0]
        mean = sum(positive) / len(positive)
        cosine = np.zeros((count, count, count))
        for i, j, k in np.ndindex(count, count, count):
            if length[i][j] > 0 and length[i][k] > 0:
                dot = np.dot(x[j] - x[i], x[k] - x[i])
                cosine[i, j, k] = dot / length[i][j] / length[i][k]
        sides.append((np.array(length) / mean, cosine))
    (d1, a1), (d2, a2) = sides
    by_distance = np.mean([smooth_l1(v) for v in (d1 - d2).ravel()])
    return distance * by_distance + angle * np.mean([smooth_l1(v) for v in (a1 - a2).ravel()])


@pytest.mark.parametrize("settings", [{}, {"distance": 25.0, "angle": 0.0}, {"distance": 0.0}])
def test_relational_is_the_loop_over_pairs_and_triplets(settings):
    one, other = pair(widths=(4, 7))
    got = losses.build("relational", **settings)(one, other)
    want = oracle_relational(one, other, **{"distance": 1.0, "angle": 2.0, **settings})
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_relational_sees_shape_and_neither_place_nor_size():
    one, other = pair()
    loss = losses.build("relational")
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    moved = 3.0 * torch.einsum("de,behw->bdhw", turn, other) + 7.0
    torch.testing.assert_close(loss(one, moved), loss(one, other), rtol=1e-10, atol=1e-12)
    assert loss(moved, other) < 1e-20
    # nor where in the grid it lies: an example is its mean over cells
    assert loss(other.roll(3, dims=-1), other) < 1e-20


def corners(*places):
    return torch.tensor(places, dtype=torch.float64)[:, :, None, None]


def test_relational_by_hand():
    """The right triangle 3-4-5: distances over their mean 4, and its cosines 0, 0.6 and 0.8."""
    triangle = corners((0.0, 0.0), (3.0, 0.0), (0.0, 4.0)).mean((-2, -1))
    np.testing.assert_allclose(
        distances(triangle), np.array([[0, 3, 4], [3, 0, 5], [4, 5, 0]]) / 4, rtol=1e-12
    )
    cosine = angles(triangle)
    np.testing.assert_allclose(
        [cosine[0, 1, 2], cosine[1, 0, 2], cosine[2, 0, 1]], [0.0, 0.6, 0.8], atol=1e-12
    )
    np.testing.assert_allclose(cosine[0, 1, 1], 1.0)


def test_relational_has_a_finite_slope_where_examples_coincide():
    one = corners((1.0, 2.0), (1.0, 2.0), (3.0, 0.0), (5.0, 1.0)).requires_grad_()
    other = corners((0.0, 1.0), (2.0, 2.0), (2.0, 2.0), (4.0, 1.0))
    loss = losses.build("relational")
    loss(one, other).backward()
    assert torch.isfinite(one.grad).all()
    assert one.grad.abs().sum() > 0
    same = torch.ones(4, 2, 1, 1, requires_grad=True)
    loss(same, same.detach() * 0 + 2).backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_batches_too_small_to_have_relations_cost_nothing(batch):
    one, other = pair(batch)
    one.requires_grad_()
    cost = losses.build("relational")(one, other)
    cost.backward()
    assert abs(cost) < 1e-20
    assert torch.isfinite(one.grad).all()


def oracle_attention(latent):
    maps = np.zeros((latent.shape[0], latent.shape[2] * latent.shape[3]))
    for b, d, y, x in np.ndindex(*latent.shape):
        maps[b, y * latent.shape[3] + x] += latent[b, d, y, x] ** 2 / latent.shape[1]
    return maps / np.sqrt((maps**2).sum(1, keepdims=True))


def test_attention_is_the_loop_and_of_any_two_widths():
    one, other = pair(widths=(4, 7))
    want = ((oracle_attention(one.numpy()) - oracle_attention(other.numpy())) ** 2).mean()
    np.testing.assert_allclose(losses.build("attention")(one, other), want, rtol=1e-12)
    assert losses.build("attention")(3 * one, -one) < 1e-25  # neither size nor sign
    np.testing.assert_allclose(attention_map(one).norm(dim=1), 1.0)


def oracle_low(x, cutoff):
    """Every mode by itself: kept where its radius is at most `cutoff` of half a cycle a cell."""
    height, width = x.shape[-2:]
    modes = np.fft.fft2(x)
    for k, l in np.ndindex(height, width):  # noqa: E741
        cycles = [min(n, size - n) / size for n, size in ((k, height), (l, width))]
        if np.hypot(*cycles) > cutoff / 2 + 1e-9:
            modes[..., k, l] = 0
    return np.fft.ifft2(modes).real


@pytest.mark.parametrize("cutoff", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("grid", [(5, 8), (6, 9), (8, 8)])
def test_sdkd_is_numpys(cutoff, grid):
    one, other = pair(grid=grid)
    np.testing.assert_allclose(
        low_pass(one, cutoff), oracle_low(one.numpy(), cutoff), atol=1e-12, rtol=1e-9
    )
    apart = (one - other).numpy()
    low = oracle_low(apart, cutoff)
    want = (low**2).mean() + 0.3 * ((apart - low) ** 2).mean()
    got = losses.build("sdkd", cutoff=cutoff, alpha=0.3)(one, other)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_sdkd_with_equal_weights_is_the_plain_difference():
    one, other = pair()
    torch.testing.assert_close(losses.build("sdkd")(one, other), ((one - other) ** 2).mean())


def test_sdkd_takes_a_wave_whole():
    x = torch.arange(16, dtype=torch.float64)
    for waves, share in ((1, 1.0), (2, 1.0), (3, 0.0)):  # Nyquist is 8; a quarter of it 2
        field = torch.cos(2 * torch.pi * waves * x / 16).expand(1, 1, 12, 16)
        torch.testing.assert_close(low_pass(field, 0.25), share * field, atol=1e-12, rtol=0)
    with pytest.raises(S2KDError, match="cutoff: wants float >= 0"):
        losses.build("sdkd", cutoff=-0.1)(*pair())


@pytest.mark.parametrize("name", ["relational", "attention", "sdkd"])
def test_half_precision_is_widened(name):
    one, other = (z.bfloat16() for z in pair())
    got = losses.build(name)(one, other)
    assert got.dtype == torch.float32
    want = losses.build(name)(one.double(), other.double())
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "compares"),
    [("relational", "unprojected"), ("attention", "unprojected"), ("sdkd", "latent")],
)
def test_what_stands_between(name, compares):
    assert losses.compares(name) == compares


# --- as methods ----------------------------------------------------------------------------------

OWN = tuple(entry.method for entry in BUILT_IN if entry.kind not in ("stored", "capture"))


def recipe_of(*methods, **training):
    quick = replace(road.QUICK, epochs=1)
    return replace(
        road.tiny(),
        methods=methods,
        teacher_training=quick,
        student_training=replace(quick, **training),
    )


@pytest.fixture(scope="module")
def taught():
    """A folder with both teachers, trained for one epoch."""
    out = road.scratch() / "methods"
    run = pipeline.open_run(recipe_of(*OWN), out)
    pipeline.narrate(run)
    pipeline.train_teachers(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
def test_every_method_trains_on_blobs(taught, method):
    epochs = 1
    if method.hint_epochs:
        method, epochs = replace(method, hint_epochs=1), 2
    run = dataclasses.replace(taught, recipe=recipe_of(method, epochs=epochs))
    pipeline.train_students(run)
    folder = pipeline.student_folder(run, run.recipe.students[0], method, 42)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(lines) == epochs
    assert set(lines[-1]["terms"]) == {"forecast", *(term.loss.name for term in method.terms)}
    assert all(np.isfinite(value) and value > 0 for value in lines[-1]["terms"].values())
    plain = load_student(folder)[0]  # refuses weights that a student does not have
    assert torch.isfinite(plain(run.windows("test").gather(torch.arange(2)).past).future).all()


def test_relations_need_three_in_a_batch(taught):
    method = next(method for method in OWN if method.name == "relational")
    run = dataclasses.replace(taught, recipe=recipe_of(method, batch_size=2))
    with pytest.raises(S2KDError, match="at least 3 a process, not 2"):
        pipeline.train_students(run)
