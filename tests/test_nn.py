import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from s2kd.core.types import GridSpec
from s2kd.models.backbones import backbones
from s2kd.models.layers import (
    Conv,
    DropPath,
    crop_features,
    crop_grid,
    extent_of,
    match_grids,
    pad_grid,
    padded_size,
    parameter_count,
)

SIZES = st.integers(1, 21)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(height=SIZES, width=SIZES, wraps=st.booleans(), multiple=st.sampled_from([1, 4, 8, 32]))
def test_padding_goes_on_round_the_globe_or_repeats_the_edge(height, width, wraps, multiple):
    x = noise(2, 3, height, width)
    down, right = -height % multiple, -width % multiple
    want = np.pad(x.numpy(), ((0, 0), (0, 0), (0, down), (0, 0)), mode="edge")
    columns = ((0, 0), (0, 0), (0, 0), (0, right))
    want = np.pad(want, columns, mode="wrap" if wraps else "edge")
    got = pad_grid(x, wraps=wraps, multiple=multiple)
    np.testing.assert_array_equal(got, want)
    assert got.shape[-2:] == (padded_size(height, multiple), padded_size(width, multiple))
    torch.testing.assert_close(crop_grid(got, height, width), x, rtol=0, atol=0)


@pytest.mark.parametrize("width", [1, 2, 5, 16])
@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (5, 1), (7, 3)])
@pytest.mark.parametrize("wraps", [False, True])
def test_a_convolution_is_one_on_a_padded_grid(width, size, dilation, wraps):
    """Zeros beyond the poles; east and west zeros, or the columns again as often as needed."""
    torch.manual_seed(0)
    conv = Conv(2, 4, size, dilation=dilation, wraps=wraps)
    x = noise(3, 2, 6, width)
    reach = dilation * (size - 1) // 2
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (reach, reach), (0, 0)))
    columns = ((0, 0), (0, 0), (0, 0), (reach, reach))
    padded = np.pad(padded, columns, mode="wrap" if wraps else "constant")
    want = F.conv2d(torch.from_numpy(padded), conv.weight, conv.bias, dilation=dilation)
    torch.testing.assert_close(conv(x), want)


@pytest.mark.parametrize("wraps", [False, True])
def test_a_stride_halves_the_grid(wraps):
    torch.manual_seed(0)
    whole, half = Conv(2, 2, 3, wraps=wraps), Conv(2, 2, 3, stride=2, wraps=wraps)
    half.load_state_dict(whole.state_dict())
    x = noise(1, 2, 8, 12)
    torch.testing.assert_close(half(x), whole(x)[..., ::2, ::2])


def test_a_wrapping_convolution_turns_with_its_input():
    torch.manual_seed(0)
    x = noise(1, 2, 8, 12)
    turning, fixed = Conv(2, 3, 3, wraps=True), Conv(2, 3, 3, wraps=False)
    torch.testing.assert_close(turning(x.roll(5, -1)), turning(x).roll(5, -1))
    assert not torch.allclose(fixed(x.roll(5, -1)), fixed(x).roll(5, -1))


def test_a_path_is_dropped_for_whole_examples_and_the_mean_stays():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(20_000, 2, 3)
    got = drop(x)
    per_example = got.flatten(1)
    assert (per_example == per_example[:, :1]).all(), "an example is left out whole"
    torch.testing.assert_close(got.unique(), torch.tensor([0.0, 1 / 0.75]))
    # standard error of the mean is (√(1/3)) / √20000 = 0.004
    assert abs(got.mean() - 1) < 0.02
    torch.testing.assert_close(drop.eval()(x), x, rtol=0, atol=0)
    torch.testing.assert_close(DropPath(0.0).train()(x), x, rtol=0, atol=0)


def test_grids_meet_on_the_coarser_by_area_means():
    one, other = noise(2, 3, 4, 12), noise(2, 5, 8, 4, seed=1)
    left, right = match_grids(one, other)
    torch.testing.assert_close(left, one.unflatten(3, (4, 3)).mean(4))
    torch.testing.assert_close(right, other.unflatten(2, (4, 2)).mean(3))
    same = noise(2, 4, 4, 12, seed=2)
    for got, given_ in zip(match_grids(one, same), (one, same), strict=True):
        torch.testing.assert_close(got, given_, rtol=0, atol=0)


def test_features_are_cropped_to_a_part_of_what_they_cover():
    x = noise(2, 3, 4, 6)
    # 12×24 cells of the grid under 4×6 features: 3×4 cells each
    torch.testing.assert_close(crop_features(x, (12, 24), (9, 16)), x[:, :, :3, :4])
    assert crop_features(x, (12, 24), (12, 24)) is x


def test_where_the_edge_cuts_a_feature_fewer_share_the_part_by_area():
    x = torch.tensor([[1.0, 3.0, 8.0]])[None, None]  # 4 cells of the grid each
    # of 10 cells, two features of 5: 4 + 1 cells, then 3 + 2
    want = torch.tensor([[(4 * 1 + 1 * 3) / 5, (3 * 3 + 2 * 8) / 5]])[None, None]
    torch.testing.assert_close(crop_features(x, (1, 12), (1, 10)), want)
    # a part smaller than one feature is that feature
    torch.testing.assert_close(crop_features(x, (1, 12), (1, 2)), x[..., :1])


@pytest.mark.parametrize(("student", "teacher"), [("unet", "simvp"), ("simvp", "mixer")])
@pytest.mark.parametrize(("height", "width"), [(121, 240), (45, 90), (16, 24), (9, 70)])
def test_the_same_field_on_differently_padded_latents_is_the_same(student, teacher, height, width):
    """A ramp averaged over each model's cells, as an ideal latent of both would hold it."""
    settings = {"unet": {"patch": 4, "width": 2}, "mixer": {"patch": 32, "width": 4, "depth": 1}}
    if "mixer" in (student, teacher) and min(height, width) < 32:
        settings["mixer"]["patch"] = 16
    grid = GridSpec(
        channels=("a",), units=("K",), height=height, width=width, step_seconds=60.0, wraps=True
    )
    latents, extents = [], []
    for name in (student, teacher):
        preset = {} if name in settings else {"preset": "tiny"}
        made = backbones.build(name, grid, past=1, lead=1, **preset, **settings.get(name, {}))
        extent = extent_of(made, height, width)
        ramp = sum(torch.meshgrid(*(torch.arange(n).double() for n in extent), indexing="ij"))
        cell = [n // k for n, k in zip(extent, made.latent_grid, strict=True)]
        latents.append(F.avg_pool2d(ramp[None, None], cell))
        extents.append(extent)
    common = tuple(map(min, *extents))
    cropped = [crop_features(x, e, common) for x, e in zip(latents, extents, strict=True)]
    one, other = match_grids(*cropped)
    step = max(c / n for c, n in zip(common, one.shape[-2:], strict=True))
    # no more than what one latent's finest cells leave open at the edges of the other's
    assert (one - other).abs().max() <= 0.5 * step


def test_parameters_are_counted_without_buffers():
    # 2·3·3·3 + 3, and norm weights and biases without running statistics
    module = torch.nn.Sequential(Conv(2, 3, 3, wraps=True), torch.nn.BatchNorm2d(3))
    assert parameter_count(module) == 57 + 6
