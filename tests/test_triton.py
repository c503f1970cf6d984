import math

import pytest
import torch
import torch.nn.functional as F

from s2kd.core.types import S2KDError
from s2kd.models.backbones import backbones
from s2kd.models.backbones._frames import BlockCore, Enlarge, FrameEncoder, Retime, retime
from s2kd.models.backbones.triton import SelfAttention
from s2kd.pipeline.contracts import frames, small_grid


def triton(grid=None, *, past=3, lead=2, **settings):
    torch.manual_seed(0)
    grid = grid or small_grid(wraps=True)
    made = backbones.build("triton", grid, past=past, lead=lead, preset="tiny", **settings)
    return made.eval()


def forecast(made, past):
    return made.decode(*made.encode(past))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scattered(module, seed=0):
    """Every weight away from its initial value: scales near zero and norms of one hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


# --- the block -----------------------------------------------------------------------------------


def attention(layer, cells):
    """Each head by itself, each cell by itself: weights of a softmax over all cells."""
    width, heads = cells.shape[-1], layer.heads
    size = width // heads
    rows = layer.project.weight.reshape(3, heads, size, width)
    bias = layer.project.bias.reshape(3, heads, size)
    found = torch.zeros_like(cells)
    for example in range(len(cells)):
        for head in range(heads):
            query, key, value = (
                cells[example] @ rows[part, head].T + bias[part, head] for part in range(3)
            )
            for cell in range(cells.shape[1]):
                weights = (key @ query[cell] / math.sqrt(size)).exp()
                mean = (weights[:, None] * value).sum(0) / weights.sum()
                found[example, cell, head * size : (head + 1) * size] = mean
    return found @ layer.out.weight.T + layer.out.bias


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_its_formula(heads):
    layer = scattered(SelfAttention(8, heads)).double()
    cells = noise(2, 6, 8)
    torch.testing.assert_close(layer(cells), attention(layer, cells))


def test_a_block_is_place_then_attention_then_mlp():
    made = scattered(triton(small_grid(wraps=False))).double()
    block, x = made.core[0], noise(2, 12, 4, 6)
    x1 = x + F.conv2d(x, block.place.weight, block.place.bias, padding=1, groups=12)
    cells = x1.permute(0, 2, 3, 1).reshape(2, 24, 12)

    def normed(z, norm):
        z = (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return z * norm.weight + norm.bias

    cells = cells + block.scale1 * attention(block.attend, normed(cells, block.norm1))
    one, _, two = block.mlp
    hidden = normed(cells, block.norm2) @ one.weight.T + one.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    cells = cells + block.scale2 * (hidden @ two.weight.T + two.bias)
    want = cells @ block.change.weight[:, :, 0, 0].T + block.change.bias
    torch.testing.assert_close(block(x), want.reshape(2, 4, 6, 16).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("scale", "linear"), [(1e-6, True), (1.0, False)])
def test_the_released_scale_makes_the_core_linear_at_first(scale, linear):
    core = triton(layer_scale=scale).core.double()
    one, other = noise(1, 12, 4, 6), noise(1, 12, 4, 6, seed=1)

    def run(x):
        return core.second(*core.first(x))

    together = run(one + other) + run(torch.zeros_like(one))
    assert torch.allclose(together, run(one) + run(other), atol=1e-4) == linear


def test_paths_are_dropped_more_often_the_deeper():
    made = triton(blocks=4, drop_path=0.1)
    torch.testing.assert_close(
        torch.tensor([block.drop.rate for block in made.core]),
        torch.tensor([0.01, 0.04, 0.07, 0.10]),
    )
    made = triton(drop_path=0.9, layer_scale=1.0)
    past = frames(small_grid(wraps=True), 3)
    assert torch.equal(forecast(made, past), forecast(made, past))
    made.train()  # there is no batch norm: nothing but the paths differs
    assert not torch.allclose(forecast(made, past), forecast(made, past))


# --- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wraps", [False, True])
def test_enlarging_is_a_convolution_of_the_grid_with_zeros_between(wraps):
    layer = Enlarge(3, 5, wraps=wraps).double()
    x = noise(2, 3, 4, 6)
    stuffed = torch.zeros(2, 3, 8, 12, dtype=torch.float64)
    stuffed[..., ::2, ::2] = x
    around = F.pad(stuffed, (1, 1, 0, 0), mode="circular" if wraps else "constant")
    around = F.pad(around, (0, 0, 1, 1))
    kernel = layer.weight.transpose(0, 1).flip(2, 3)
    torch.testing.assert_close(layer(x), F.conv2d(around, kernel, layer.bias))
    turned = layer(x.roll(1, -1))
    assert torch.allclose(turned, layer(x).roll(2, -1)) == wraps


def test_frames_are_mixed_over_time_alone():
    layer = Retime(3, 2).double()
    x = noise(4 * 3, 5, 2, 2)
    want = torch.einsum("lp,bpdhw->bldhw", layer.weight, x.reshape(4, 3, 5, 2, 2))
    torch.testing.assert_close(layer(x), want.reshape(8, 5, 2, 2))
    assert not list(retime(3, 3).parameters())
    assert torch.equal(retime(3, 3)(x), x)


def test_the_encoder_halves_the_grid_at_every_second_layer():
    encoder = FrameEncoder(2, 4, 6, wraps=False)
    x, levels = encoder(torch.zeros(1, 2, 16, 24))
    assert x.shape == (1, 4, 2, 3)
    assert [tuple(level.shape[-2:]) for level in levels] == [(16, 24), (8, 12), (4, 6)]


@pytest.mark.parametrize(
    ("settings", "grid", "skips"),
    [
        ({}, (4, 6), [(16, 24)]),
        ({"layers": 2}, (8, 12), [(16, 24)]),
        ({"variant": "vcycle"}, (4, 6), [(16, 24), (8, 12)]),
        ({"variant": "vcycle", "layers": 6}, (2, 3), [(16, 24), (8, 12), (4, 6)]),
        ({"skip": False}, (4, 6), []),
        ({"variant": "vcycle", "skip": False}, (4, 6), []),
    ],
)
@pytest.mark.parametrize("cut", ["pre", "mid", "post"])
def test_variants_differ_in_their_skips(settings, grid, skips, cut):
    world = small_grid(wraps=True)
    made, past = triton(fuse_at=cut, **settings), frames(world, 3)
    latent, carry = made.encode(past)
    assert made.latent_grid == grid
    assert tuple(latent.shape[1:]) == ({"pre": 12, "mid": 16, "post": 12}[cut], *grid)
    assert [tuple(level.shape[-2:]) for level in carry] == skips
    whole = made.decode(latent, carry)
    assert whole.shape == (3, 2, 2, 16, 24)
    for number in range(len(carry)):
        without = [torch.zeros_like(x) if i == number else x for i, x in enumerate(carry)]
        assert not torch.allclose(made.decode(latent, tuple(without)), whole, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"variant": "vcycle", "layers": 6}])
def test_the_cut_does_not_change_the_forecast(settings):
    past = frames(small_grid(wraps=True), 3)
    pre, mid, post = (
        forecast(triton(fuse_at=cut, **settings), past) for cut in ("pre", "mid", "post")
    )
    assert torch.equal(pre, mid)
    assert torch.equal(mid, post)


@pytest.mark.parametrize("settings", [{}, {"variant": "vcycle"}, {"layers": 6}])
def test_a_turned_globe_gives_a_turned_forecast_and_a_plane_does_not(settings):
    for wraps in (True, False):
        grid = small_grid(wraps=wraps)
        made, past = scattered(triton(grid, **settings)).double(), frames(grid, 3).double()
        turned, want = forecast(made, past.roll(8, -1)), forecast(made, past).roll(8, -1)
        assert torch.allclose(turned, want, rtol=1e-6, atol=1e-8) == wraps


def test_every_cell_sees_every_other_through_attention():
    """Convolutions alone would not reach across a grid of 16 × 24 quarter cells."""
    grid = small_grid(64, 96)
    made, past = scattered(triton(grid, lead=3)), frames(grid, 3, batch=1)
    poked = past.clone()
    poked[..., 0, 0] += 3.0
    latents = [made.encode(x)[0] for x in (past, poked)]
    assert ((latents[0] - latents[1]).abs().amax((0, 1)) > 0).all()


def test_the_halves_of_a_core_are_the_whole():
    layers = [torch.nn.Conv2d(2, 2, 1) for _ in range(5)]
    core, x = BlockCore(layers, 2, 2), torch.randn(1, 2, 3, 3)
    assert torch.equal(core.second(*core.first(x)), torch.nn.Sequential(*layers)(x))
    assert torch.equal(core.first(x)[0], torch.nn.Sequential(*layers[:2])(x))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"heads": 5},
            r"heads must divide temporal \(16\) and past × spatial \(3 × 4 = 12\), got 5",
        ),
        ({"heads": 8}, r"\(3 × 4 = 12\), got 8"),
        ({"heads": 0}, "heads: wants int >= 1, got 0"),
        ({"variant": "wcycle"}, "variant: must be one of released, vcycle, got 'wcycle'"),
        ({"fuse_at": "end"}, "backbone 'triton': fuse_at: must be one of"),
        ({"spatial": 3}, "backbone 'triton': spatial: wants int .*multiple of 2, got 3"),
        ({"layers": 5}, "layers: must be one of 2, 4, 6, got 5"),
        ({"blocks": 1}, "blocks: wants int >= 2, got 1"),
        ({"drop_path": 1.0}, r"drop_path: wants float < 1.0, got 1\.0"),
        ({"expansion": 0}, "expansion: wants int >= 1, got 0"),
        ({"layer_scale": 0.0}, r"layer_scale: wants float > 0.0, got 0\.0"),
        ({"head": 2}, "no setting 'head'; did you mean 'heads'"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(settings, said):
    with pytest.raises(S2KDError, match=said) as error:
        triton(**settings)
    assert "\n" not in str(error.value)
