import math

import pytest
import torch
import torch.nn.functional as F

from s2kd.core.types import S2KDError
from s2kd.models.backbones import backbones
from s2kd.models.backbones._fourier import FourierBlock, SpectralProduct
from s2kd.models.backbones._inception import InceptionCore, InceptionLayer
from s2kd.models.layers import parameter_count
from s2kd.pipeline.contracts import frames, small_grid


def farseer(grid=None, *, past=3, lead=2, **settings):
    torch.manual_seed(0)
    grid = grid or small_grid(wraps=True)
    made = backbones.build("earthfarseer", grid, past=past, lead=lead, preset="tiny", **settings)
    return made.eval()


def simvp(grid, **settings):
    torch.manual_seed(0)
    settings = {"translator": "inception", **settings}
    return backbones.build("simvp", grid, past=3, lead=2, preset="tiny", **settings).eval()


def forecast(made, past):
    return made.decode(*made.encode(past))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scattered(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


# --- Fourier blocks ------------------------------------------------------------------------------


def complex_layer(modes, weight, bias):
    return (
        torch.einsum("bhwgi,gio->bhwgo", modes, torch.complex(*weight)) + torch.complex(*bias)[:, 0]
    )


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 3), (2, 2)])
def test_the_spectral_product_is_a_complex_einsum(groups, height, width):
    layer = scattered(SpectralProduct(8, groups)).double()
    x = noise(2, height, width, 8)
    modes = torch.fft.fftn(x, dim=(1, 2), norm="ortho")[:, :, : width // 2 + 1]
    modes = modes.reshape(2, height, -1, groups, 8 // groups)
    modes = complex_layer(modes, layer.weight1, layer.bias1)
    modes = torch.complex(modes.real.clamp(min=0), modes.imag.clamp(min=0))
    modes = complex_layer(modes, layer.weight2, layer.bias2).flatten(3)
    want = torch.fft.irfft(torch.fft.ifft(modes, dim=1, norm="ortho"), n=width, dim=2, norm="ortho")
    want = want + x @ layer.beside.weight.T + layer.beside.bias
    torch.testing.assert_close(layer(x), want)


def test_groups_of_features_do_not_mix():
    layer = SpectralProduct(8, 2).double()
    with torch.no_grad():
        layer.beside.weight.zero_()
    x = noise(1, 4, 4, 8)
    poked = x.clone()
    poked[..., 0] += noise(1, 4, 4)
    felt = (layer(x) - layer(poked)).abs().amax((0, 1, 2)) > 1e-12
    assert felt.tolist() == [True] * 4 + [False] * 4


def test_without_the_relu_and_biases_the_product_is_a_filter(monkeypatch):
    """Which turns both ways; the ReLU of real and imaginary parts is what does not."""
    layer = scattered(SpectralProduct(4, 2)).double()
    x = noise(1, 8, 6, 4)
    with torch.no_grad():
        for bias in (layer.bias1, layer.bias2, layer.beside.bias):
            bias.zero_()
    for axis in (1, 2):
        assert not torch.allclose(layer(x.roll(1, axis)), layer(x).roll(1, axis))
    monkeypatch.setattr(torch.Tensor, "relu", lambda part: part)
    for axis in (1, 2):
        torch.testing.assert_close(layer(x.roll(1, axis)), layer(x).roll(1, axis))


def test_a_fourier_block_is_two_residuals():
    block = scattered(FourierBlock(4, 1, 3)).double()
    x = noise(1, 2, 3, 4)

    def normed(z, norm):
        return F.layer_norm(z, (4,), norm.weight, norm.bias)

    one, _, two = block.mlp
    assert one.weight.shape == (12, 4)
    assert two.weight.shape == (4, 12)
    x1 = x + block.mix(normed(x, block.norm1))
    hidden = F.gelu(normed(x1, block.norm2) @ one.weight.T + one.bias)
    torch.testing.assert_close(block(x), x1 + hidden @ two.weight.T + two.bias)


# --- the Inception U -----------------------------------------------------------------------------


def test_an_inception_layer_is_the_sum_of_four_grouped_kernels():
    layer = scattered(InceptionLayer(3, 4, 6, wraps=False)).double()
    x = noise(2, 3, 5, 7)
    narrow = F.conv2d(x, layer.narrow.weight, layer.narrow.bias)
    want = 0
    for size, view in zip((3, 5, 7, 11), layer.views, strict=True):
        conv, norm, _ = view
        halves = [  # two groups: the common divisor of 8, 4 and 6
            F.conv2d(
                narrow[:, 2 * g : 2 * g + 2], conv.weight[3 * g : 3 * g + 3], padding=size // 2
            )
            for g in range(2)
        ]
        each = torch.cat(halves, 1) + conv.bias[:, None, None]
        apart = each.reshape(2, 2, -1)
        spread = (apart.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        each = ((apart - apart.mean(-1, keepdim=True)) / spread).reshape(each.shape)
        each = each * norm.weight[:, None, None] + norm.bias[:, None, None]
        want = want + torch.where(each > 0, each, 0.2 * each)
    torch.testing.assert_close(layer(x), want)


def test_the_arms_of_the_u_meet_layer_by_layer():
    core = InceptionCore(6, 8, 3, wraps=False).double()
    x = noise(1, 6, 4, 4)
    a = core.down[0](x)
    b = core.down[1](a)
    z = core.up[0](core.down[2](b))
    z = core.up[1](torch.cat([z, b], 1))
    want = core.up[2](torch.cat([z, a], 1))
    torch.testing.assert_close(core.second(*core.first(x)), want)
    assert want.shape == x.shape


@pytest.mark.parametrize("wraps", [False, True])
def test_simvp_with_inception_turns_where_the_grid_does(wraps):
    grid = small_grid(wraps=wraps)
    made, past = simvp(grid).double(), frames(grid, 3).double()
    turned, want = forecast(made, past.roll(8, -1)), forecast(made, past).roll(8, -1)
    assert torch.allclose(turned, want, rtol=1e-6, atol=1e-8) == wraps


def test_the_cut_of_simvp_with_inception_does_not_change_the_forecast():
    grid = small_grid()
    past, said = frames(grid, 3), []
    for cut, kept in (("pre", 1), ("mid", 3), ("post", 1)):
        made = simvp(grid, fuse_at=cut)
        latent, carry = made.encode(past)
        assert latent.shape[1] == made.latent_width == {"pre": 12, "mid": 16, "post": 12}[cut]
        assert len(carry) == kept
        said.append(made.decode(latent, carry))
    assert torch.equal(said[0], said[1])
    assert torch.equal(said[1], said[2])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"translator": "incepu"}, "translator: must be one of gsta, inception"),
        ({"temporal": 15}, "temporal must be even with translator 'inception', got 15"),
        ({"fuse_at": "mid", "skip": False}, "skip=False cannot be had .* fuse 'pre' or 'post'"),
    ],
)
def test_impossible_settings_of_simvp_with_inception_are_refused(settings, said):
    with pytest.raises(S2KDError, match=said):
        simvp(small_grid(), **settings)


# --- the whole -----------------------------------------------------------------------------------


def test_every_convolution_in_it_wraps():
    """Without learned positions and Fourier blocks it turns with the globe."""
    for wraps in (True, False):
        grid = small_grid(wraps=wraps)
        made = scattered(farseer(grid), seed=1).double()
        past = frames(grid, 3).double()

        def turns(made=made, past=past):
            turned, want = forecast(made, past.roll(8, -1)), forecast(made, past).roll(8, -1)
            return torch.allclose(turned, want, rtol=1e-6, atol=1e-8)

        assert not turns()
        with torch.no_grad():
            made.spatial.globally.place.zero_()
        assert not turns()
        made.spatial.globally.blocks = made.temporal.between = torch.nn.Identity()
        assert turns() == wraps
        assert not made.turns


def test_rounds_share_their_weights():
    one, three = farseer(rounds=1), farseer(rounds=3)
    assert parameter_count(one) == parameter_count(three) > parameter_count(farseer(rounds=0))
    past = frames(small_grid(wraps=True), 3)
    assert not torch.allclose(forecast(one, past), forecast(three, past), atol=1e-5)


def test_branches_exchange_what_they_found():
    part = scattered(farseer(rounds=2)).spatial.double()
    x = noise(1, 2, 16, 24)
    far, near = part.globally(x), part.locally(x)
    far = part.globally(far + part.to_global(near))
    near = part.locally(near + part.to_local(far))
    far = part.globally(far + part.to_global(near))
    near = part.locally(near + part.to_local(far))
    both = torch.einsum("oi,bihw->bohw", part.join.weight[..., 0, 0], torch.cat([far, near], 1))
    torch.testing.assert_close(part(x), x + both + part.join.bias[:, None, None])


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_the_head_of_the_global_branch_follows_the_patch(patch):
    """A patch comes back to its own cells: with mixing cut off, nothing else is felt."""
    grid = small_grid(16, 24)
    branch = farseer(grid, patch=patch).spatial.globally
    assert branch.place.shape == (16, 16 // patch, 24 // patch)
    assert branch(torch.zeros(1, 2, 16, 24)).shape == (1, 2, 16, 24)
    branch.blocks = torch.nn.Identity()
    x = torch.zeros(1, 2, 16, 24)
    poked = x.clone()
    poked[..., 8, 16] = 1.0
    felt = ((branch(x) - branch(poked)).abs().amax((0, 1)) > 0).nonzero()
    assert felt.amin(0).tolist() == [8, 16]
    assert felt.amax(0).tolist() == [8 + patch - 1, 16 + patch - 1]


def test_the_temporal_part_adds_to_what_comes_in():
    part = farseer().temporal
    x = torch.randn(2, 6, 4, 6)
    lowest, kept = part.first(x)
    assert lowest.shape == (2, 8, 4, 6)
    with torch.no_grad():
        for view in part.up[-1].views:
            view[1].weight.zero_()
            view[1].bias.zero_()
    assert torch.equal(part.second(lowest, kept), x)


def test_a_whole_simvp_is_added_to_the_output():
    grid = small_grid(wraps=True)
    made, past = farseer(grid), frames(grid, 3)
    direct = forecast(made.shortcut, past)
    whole = forecast(made, past)
    assert not torch.allclose(whole, direct, atol=1e-4)
    with torch.no_grad():
        made.decoder.readout.weight.zero_()
        made.decoder.readout.bias.zero_()
    assert torch.equal(forecast(made, past), direct)
    assert farseer(shortcut=0).shortcut is None


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("shortcut", [0, 2])
def test_what_passes_by_the_latent_is_in_the_carry(skip, shortcut):
    past, said = frames(small_grid(wraps=True), 3), []
    for cut, inner in (("pre", 0), ("mid", 2), ("post", 0)):
        made = farseer(fuse_at=cut, skip=skip, shortcut=shortcut)
        latent, carry = made.encode(past)
        assert latent.shape == (3, made.latent_width, *made.latent_grid)
        assert made.latent_width == (8 if cut == "mid" else 6)
        assert len(carry) == inner + skip + (shortcut > 0)
        said.append(made.decode(latent, carry))
    assert torch.equal(said[0], said[1])
    assert torch.equal(said[1], said[2])


@pytest.mark.parametrize(("height", "width"), [(32, 64), (128, 128)])
def test_the_published_patches_leave_a_grid_of_tokens(height, width):
    with torch.device("meta"):
        made = backbones.build(
            "earthfarseer", small_grid(height, width), past=12, lead=12, preset="paper"
        )
    patch = 8 if height * width >= 128 * 128 else 4
    assert made.spatial.globally.place.shape == (768, height // patch, width // patch)
    assert math.prod(made.latent_grid) == height * width // 16


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"patch": 3}, "patch: must be one of 1, 2, 4, 8, got 3"),
        ({"patch": 16}, "patch: must be one of 1, 2, 4, 8, got 16"),
        ({"groups": 3}, r"groups must divide embed \(16\) and temporal \(8\), got 3"),
        ({"groups": 0}, "groups: wants int >= 1, got 0"),
        ({"temporal": 7}, "temporal: wants int .*multiple of 2, got 7"),
        ({"embed": 0}, "embed: wants int >= 1, got 0"),
        ({"fourier": 0}, "fourier: wants int >= 1, got 0"),
        ({"rounds": -1}, "rounds: wants int >= 0, got -1"),
        ({"shortcut": 3}, "shortcut: wants int .*multiple of 2, got 3"),
        ({"fuse_at": "end"}, "backbone 'earthfarseer': fuse_at: must be one of"),
        ({"spatial": 3}, "backbone 'earthfarseer': spatial: wants int .*multiple of 2, got 3"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(settings, said):
    with pytest.raises(S2KDError, match=said) as error:
        farseer(**settings)
    assert "\n" not in str(error.value)
