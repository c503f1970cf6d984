import numpy as np
import pytest
import torch

from s2kd.core.types import S2KDError
from s2kd.training.losses import losses
from s2kd.training.objectives import distillation_loss, student_loss

AXES = ("grid", "tokens_1d", "tokens_channels")


def pair(name="semantic", batch=3):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 4, 5, 6, 8) if losses.compares(name) == "forecast" else (batch, 5, 6, 8)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


def oracle_semantic(one, other):
    """Eq. 10 as a slow loop: the mean over batch, features and cells."""
    total = 0.0
    for place in np.ndindex(one.shape):
        total += (one[place] - other[place]) ** 2
    return total / one.size


def oracle_spectral(one, other, axes):
    """Eq. 11 by NumPy's FFT in float64."""

    def amplitude(z):
        tokens = z.reshape(*z.shape[:2], -1)  # batch, feature, token
        if axes == "grid":
            return np.abs(np.fft.fftn(z, axes=(2, 3), norm="ortho"))
        if axes == "tokens_1d":
            return np.abs(np.fft.fft(tokens, axis=2, norm="ortho"))
        return np.abs(np.fft.fftn(tokens, axes=(1, 2), norm="ortho"))

    return np.abs(amplitude(one) - amplitude(other)).mean()


def test_semantic_is_the_mean_squared_difference():
    one, other = pair()
    got = losses.build("semantic")(one, other)
    np.testing.assert_allclose(got, oracle_semantic(one.numpy(), other.numpy()), rtol=1e-12)


def test_fitnet_is_half_of_that_and_output_the_same_of_frames():
    one, other = pair()
    want = oracle_semantic(one.numpy(), other.numpy())
    np.testing.assert_allclose(losses.build("fitnet")(one, other), want / 2, rtol=1e-12)
    one, other = pair("output")
    want = oracle_semantic(one.numpy(), other.numpy())
    np.testing.assert_allclose(losses.build("output")(one, other), want, rtol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(6, 8), (6, 7), (5, 8), (5, 7), (1, 1), (1, 2)])
@pytest.mark.parametrize("features", [4, 5])
@pytest.mark.parametrize("axes", AXES)
def test_spectral_is_numpys(axes, features, rows, columns):
    """On even and odd sizes: half of the modes are computed, and which have twins depends on it."""
    one, other = (z[:, :features, :rows, :columns] for z in pair())
    got = losses.build("spectral", axes=axes)(one, other)
    np.testing.assert_allclose(got, oracle_spectral(one.numpy(), other.numpy(), axes), rtol=1e-12)


def test_the_three_readings_differ():
    one, other = pair()
    said = {axes: float(losses.build("spectral", axes=axes)(one, other)) for axes in AXES}
    assert len({round(value, 6) for value in said.values()}) == 3
    assert float(losses.build("spectral")(one, other)) == said["grid"]


def wave(k, l, *, amplitude, phase=0.0, height=6, width=8):  # noqa: E741
    y, x = np.mgrid[:height, :width]
    field = amplitude * np.cos(2 * np.pi * (k * y / height + l * x / width) + phase)
    return torch.from_numpy(field)[None, None]


def test_spectral_of_cosines_by_hand():
    """a cos(kx + φ) has two modes of amplitude a √(HW) / 2; all others are zero.

    Their mean over the HW modes is a / √(HW), whatever k and φ.
    """
    loss, root = losses.build("spectral"), np.sqrt(6 * 8)
    zero = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    np.testing.assert_allclose(loss(wave(1, 2, amplitude=3.0), zero), 3 / root, rtol=1e-12)
    # one wavelength: the difference of amplitudes, phases do not count
    one, other = wave(1, 2, amplitude=3.0), wave(1, 2, amplitude=0.5, phase=1.1)
    np.testing.assert_allclose(loss(one, other), 2.5 / root, rtol=1e-12)
    # two wavelengths: their sum
    other = wave(2, 1, amplitude=0.5)
    np.testing.assert_allclose(loss(one, other), 3.5 / root, rtol=1e-12)
    # a constant c has one mode, c √(HW)
    np.testing.assert_allclose(loss(zero + 2.0, zero), 2 / root, rtol=1e-12)
    # the wave of two cells is its own mirror image: one mode, not two
    np.testing.assert_allclose(loss(wave(0, 4, amplitude=3.0), zero), 3 / root, rtol=1e-12)


def test_spectral_does_not_see_a_shift_and_semantic_does():
    latent = pair()[0]
    shifted = latent.roll((2, 3), dims=(2, 3))
    assert losses.build("spectral")(shifted, latent) < 1e-12
    assert losses.build("semantic")(shifted, latent) > 1
    # but it is not blind to where every feature's energy lies
    assert losses.build("spectral")(latent.flip(1), latent) > 0.1


def test_terms_are_of_order_one_on_latents_of_unit_variance():
    """So that λ = 1 and β = 0.5 weigh terms of one size, whatever the latent's."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 16, 8, 16), (2, 256, 16, 32)):
        one, other = (torch.randn(shape, generator=generator) for _ in range(2))
        assert 1.9 < losses.build("semantic")(one, other) < 2.1
        # amplitudes of unit mean square are Rayleigh: E|a − b| = (√2 − 1) √(π/2)
        want = (np.sqrt(2) - 1) * np.sqrt(np.pi / 2)
        np.testing.assert_allclose(losses.build("spectral")(one, other), want, rtol=0.05)


PLAIN = [name for name in losses.names() if losses.compares(name) != "feature_pyramid"]
ALL = [(name, {}) for name in PLAIN] + [("spectral", {"axes": axes}) for axes in AXES[1:]]


@pytest.mark.parametrize(("name", "settings"), ALL)
def test_a_match_costs_nothing_and_a_larger_batch_no_more(name, settings):
    loss, (one, other) = losses.build(name, **settings), pair(name)
    assert loss(one, one) == 0
    assert loss(one, other) > 0
    cost = loss(one, other)
    torch.testing.assert_close(loss(one.repeat(4, *[1] * (one.ndim - 1)), other.repeat(
        4, *[1] * (one.ndim - 1))), cost)  # fmt: skip
    assert cost.shape == ()


@pytest.mark.parametrize(("name", "settings"), ALL)
def test_gradients_agree_with_finite_differences(name, settings):
    loss, (one, other) = losses.build(name, **settings), pair(name, batch=1)
    one, other = one[:, :2, ..., :3, :4].contiguous(), other[:, :2, ..., :3, :4].contiguous()
    one.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, other), (one,))


def test_half_precision_is_widened_for_the_transform():
    one, other = (z.bfloat16() for z in pair())
    got = losses.build("spectral")(one, other)
    assert got.dtype == torch.float32
    want = oracle_spectral(one.double().numpy(), other.double().numpy(), "grid")
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"axes": "channels"}, "axes: must be one of grid, tokens_1d, tokens_channels, got 'chan"),
        ({"axis": "grid"}, "loss 'spectral' has no setting 'axis'; did you mean 'axes'"),
    ],
)
def test_unknown_readings_are_refused(settings, said):
    with pytest.raises(S2KDError, match=said):
        losses.build("spectral", **settings)(*pair())


def test_a_loss_says_what_it_compares():
    assert [losses.compares(n) for n in ("semantic", "spectral", "fitnet", "output")] == (
        ["latent", "latent", "latent", "forecast"]
    )
    with pytest.raises(
        S2KDError, match=r"compares must be one of \('latent', .*'feature_pyramid'\), got"
    ):
        losses.register("new", compares="weights")


def test_the_objectives_arithmetic():
    """Eqs. 12 and 14 with λ = 2, β = 0.5: 7 + 2 (3 + 0.5 · 4) = 17."""
    semantic, spectral, prediction = (torch.tensor(v) for v in (3.0, 4.0, 7.0))
    distillation = distillation_loss([(1.0, semantic), (0.5, spectral)])
    assert distillation == 5.0
    assert student_loss(prediction, distillation, weight=2.0) == 17.0
    assert student_loss(prediction, distillation, weight=0.0) == 7.0
    assert distillation_loss([(0.25, spectral)]) == 1.0
