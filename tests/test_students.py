"""ResNet and Mixer, and what every backbone must do to be a student that is shipped."""

import pytest
import torch
import torch.nn.functional as F

from s2kd.core.types import S2KDError
from s2kd.models.backbones import Backbone, backbones
from s2kd.models.backbones.mixer import MixerBlock
from s2kd.models.forecasters import FramesOnly
from s2kd.models.layers import match_grids
from s2kd.pipeline.contracts import frames, small_grid, student_of

ALL = ("earthfarseer", "mixer", "resnet", "simvp", "triton", "unet")
WAYS = (
    *((name, {}) for name in ALL),
    ("simvp", {"translator": "inception"}),
    ("simvp", {"translator": "inception", "fuse_at": "mid"}),
    ("triton", {"variant": "vcycle", "layers": 6}),
    ("earthfarseer", {"fuse_at": "mid", "skip": False}),
)


def tiny(name, grid, *, past=3, lead=2, **settings):
    torch.manual_seed(0)
    made = backbones.build(name, grid, past=past, lead=lead, preset="tiny", **settings)
    return made.eval()


def forecast(made, past):
    return made.decode(*made.encode(past))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mixer", {}),
        ("resnet", {}),
        ("unet", {}),
        ("unet", {"norm": "group"}),
        ("simvp", {"blocks": 2}),
        ("triton", {"blocks": 2}),
        ("earthfarseer", {"rounds": 0, "fourier": 1, "shortcut": 0}),  # the parts, each once
        ("simvp", {"translator": "inception", "blocks": 2}),
    ],
)
def test_it_can_be_exported_with_the_batch_left_free(name, settings):
    grid = small_grid(20, 21, wraps=True)
    student = student_of(tiny(name, grid, **settings), grid).eval()

    program = torch.export.export(
        FramesOnly(student),
        (frames(grid, 3, batch=2),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    past = frames(grid, 3, batch=5)
    torch.testing.assert_close(program.module()(past), student(past).future)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "settings"), WAYS)
def test_bfloat16_gives_numbers_near_those_of_float32(name, settings, training):
    grid = small_grid(wraps=True)
    made, past = tiny(name, grid, **settings).train(training), frames(grid, 3)
    exact = forecast(made, past).detach()
    with torch.autocast("cpu", torch.bfloat16):
        rough = forecast(made, past)
    rough.float().square().mean().backward()
    assert torch.isfinite(rough).all()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())
    assert ((rough - exact).std() / exact.std()).item() < 0.05


@pytest.mark.parametrize(("name", "settings"), WAYS)
def test_weights_go_to_another_of_its_kind(name, settings):
    grid = small_grid(wraps=True)
    one, past = tiny(name, grid, **settings), frames(grid, 3)
    other = backbones.build(name, grid, past=3, lead=2, preset="tiny", **settings).eval()
    assert not torch.equal(forecast(other, past), forecast(one, past))
    other.load_state_dict(one.state_dict())
    assert torch.equal(forecast(other, past), forecast(one, past))


@pytest.mark.parametrize(("height", "width"), [(25, 53), (33, 49), (21, 21), (1, 3)])
@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_odd_grids_are_padded(name, height, width, wraps):
    grid = small_grid(height, width, wraps=wraps)
    made, past = tiny(name, grid), frames(grid, 3)
    latent, carry = made.encode(past)
    assert isinstance(made, Backbone)
    assert latent.shape == (3, made.latent_width, *made.latent_grid)
    assert made.decode(latent, carry).shape == (3, 2, 2, height, width)


@pytest.mark.parametrize("preset", ["paper", "small"])
@pytest.mark.parametrize(("height", "width"), [(1, 3), (181, 360)])
@pytest.mark.parametrize("name", ALL)
def test_every_preset_fits_every_grid(name, height, width, preset):
    """Shapes alone, on the `meta` device."""
    grid = small_grid(height, width)
    fewer = (
        {"rounds": 0, "fourier": 1, "blocks": 2} if name == "earthfarseer" else {}
    )  # of equal shape
    with torch.device("meta"):
        made = backbones.build(name, grid, past=4, lead=2, preset=preset, **fewer).eval()
        seen = torch.empty(1, 4, 2, height, width)
    latent, carry = made.encode(seen)
    assert tuple(latent.shape[2:]) == made.latent_grid
    assert made.decode(latent, carry).shape == (1, 2, 2, height, width)


@pytest.mark.parametrize(("past", "lead"), [(1, 1), (4, 1), (2, 5)])
@pytest.mark.parametrize("name", ["mixer", "resnet"])
def test_any_number_of_frames_will_do(name, past, lead):
    grid = small_grid()
    made = tiny(name, grid, past=past, lead=lead)
    assert forecast(made, frames(grid, past)).shape == (3, lead, 2, 16, 24)


@pytest.mark.parametrize("name", ["mixer", "resnet"])
def test_the_forecast_comes_from_the_latent_alone(name):
    grid = small_grid()
    made, past = tiny(name, grid), frames(grid, 3)
    latent, carry = made.encode(past)
    assert carry == ()
    other = made.decode(latent.roll(1, 0), ())
    torch.testing.assert_close(other, forecast(made, past).roll(1, 0))


# --- ResNet --------------------------------------------------------------------------------------


def test_a_basic_block_is_two_convolutions_and_a_residual():
    block = tiny("resnet", small_grid()).blocks[0].double().train()
    x = noise(2, 8, 5, 6)

    def normed(z):
        mean, spread = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), correction=0, keepdim=True)
        return (z - mean) / (spread + 1e-5).sqrt()

    one, two = (block.branch[i].weight for i in (0, 3))
    hidden = normed(F.conv2d(x, one, padding=1)).clamp(min=0)
    want = (x + normed(F.conv2d(hidden, two, padding=1))).clamp(min=0)
    torch.testing.assert_close(block(x), want)


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_a_resnet_turns_with_the_globe_in_patches_too(patch):
    for wraps in (True, False):
        grid = small_grid(wraps=wraps)
        made, past = tiny("resnet", grid, patch=patch).double(), frames(grid, 3).double()
        assert made.latent_grid == (16 // patch, 24 // patch)
        turned, want = forecast(made, past.roll(8, -1)), forecast(made, past).roll(8, -1)
        assert torch.allclose(turned, want, rtol=1e-6, atol=1e-9) == wraps


def test_a_full_resolution_latent_is_averaged_over_the_teachers_cells():
    grid = small_grid(25, 53)
    student, teacher = tiny("resnet", grid), tiny("triton", grid)
    past = frames(grid, 3)
    own, wanted = student.encode(past)[0], teacher.encode(past)[0]
    assert own.shape[2:] == (32, 56)
    both = match_grids(own, wanted)
    torch.testing.assert_close(both[0], own.reshape(3, 8, 8, 4, 14, 4).mean((3, 5)))
    assert both[1] is wanted


# --- Mixer ---------------------------------------------------------------------------------------


def test_a_mixer_block_is_its_two_formulas():
    block = MixerBlock(6, 4, 5, 7).double()
    x = noise(2, 6, 4)

    def mlp(layers, z):
        one, _, two = layers
        return F.gelu(z @ one.weight.T + one.bias) @ two.weight.T + two.bias

    want = x.clone()
    for feature in range(4):  # each feature by itself, over the tokens
        want[:, :, feature] += mlp(block.over_tokens, F.layer_norm(x, (4,))[:, :, feature])
    seen, told = want, want.clone()
    for token in range(6):  # each token by itself, over the features
        told[:, token] += mlp(block.over_features, F.layer_norm(seen, (4,))[:, token])
    torch.testing.assert_close(block(x), told)


def test_mixing_over_tokens_knows_their_order_and_over_features_does_not():
    block = MixerBlock(6, 4, 5, 7).double()
    x, order = noise(2, 6, 4), torch.tensor([3, 0, 5, 1, 4, 2])
    mixed = block.over_tokens(x.transpose(1, 2)).transpose(1, 2)
    again = block.over_tokens(x[:, order].transpose(1, 2)).transpose(1, 2)
    assert not torch.allclose(again, mixed[:, order])
    assert not torch.allclose(again, mixed)
    torch.testing.assert_close(block.over_features(x[:, order]), block.over_features(x)[:, order])


def test_patches_are_read_and_written_in_place():
    """With the mixing cut off, a poked patch is felt in its own cells and nowhere else."""
    grid = small_grid(16, 24)
    made, past = tiny("mixer", grid), frames(grid, 3, batch=1)
    made.blocks = torch.nn.Identity()
    poked = past.clone()
    poked[0, 1, 0, 9, 14] += 1.0
    felt = ((forecast(made, past) - forecast(made, poked)).abs().amax((0, 1, 2)) > 0).nonzero()
    assert felt.amin(0).tolist() == [8, 12]
    assert felt.amax(0).tolist() == [11, 15]


def test_a_mixer_does_not_claim_to_turn():
    grid = small_grid(wraps=True)
    made, past = tiny("mixer", grid), frames(grid, 3)
    turned, straight = forecast(made, past.roll(8, -1)), forecast(made, past).roll(8, -1)
    assert not torch.allclose(turned, straight, atol=1e-4)
    assert not made.turns


def test_the_latent_of_a_mixer_is_normalised():
    grid = small_grid()
    latent, _ = tiny("mixer", grid).encode(frames(grid, 3))
    torch.testing.assert_close(latent.mean(1), torch.zeros(3, 4, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(latent.var(1, correction=0), torch.ones(3, 4, 6), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("height", "width", "patch"),
    [(32, 64, 4), (32, 32, 2), (128, 128, 8), (25, 53, 4), (21, 21, 2), (1, 3, 2), (181, 360, 32)],
)
def test_the_published_mixer_reads_at_most_256_patches(height, width, patch):
    grid = small_grid(height, width)
    settings = backbones.settings("mixer", "paper", grid)
    assert settings["patch"] == patch
    with torch.device("meta"):
        made = backbones.build("mixer", grid, past=4, lead=4, preset="paper")
    assert made.latent_grid[0] * made.latent_grid[1] <= 256


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("resnet", {"patch": 3}, "patch: must be one of 1, 2, 4, 8, got 3"),
        ("resnet", {"width": 0}, "width: wants int >= 1, got 0"),
        ("resnet", {"blocks": 0}, "blocks: wants int >= 1, got 0"),
        ("mixer", {"patch": 3}, "patch: must be one of 1, 2, 4, 8, 16, 32, got 3"),
        ("mixer", {"patch": 32}, "a patch of 32×32 cells does not fit the grid of 16×24"),
        ("mixer", {"depth": 0}, "depth: wants int >= 1, got 0"),
        ("mixer", {"preset": "huge"}, "backbone 'mixer' has no preset 'huge'"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(name, settings, said):
    with pytest.raises(S2KDError, match=said) as error:
        backbones.build(name, small_grid(), past=3, lead=2, **{"preset": "tiny", **settings})
    assert "\n" not in str(error.value)


def test_group_norm_keeps_the_windows_of_a_batch_apart_and_no_running_means():
    grid = small_grid()
    made = {norm: tiny("unet", grid, norm=norm).train() for norm in ("batch", "group")}
    past = frames(grid, 3, batch=4)
    alone = {norm: model.encode(past[:1])[0] for norm, model in made.items()}
    among = {norm: model.encode(past)[0][:1] for norm, model in made.items()}
    torch.testing.assert_close(alone["group"], among["group"], rtol=1e-4, atol=1e-5)
    assert (alone["batch"] - among["batch"]).abs().max() > 1e-2
    assert not list(made["group"].buffers())
    counts = {norm: sum(p.numel() for p in model.parameters()) for norm, model in made.items()}
    assert counts["group"] == counts["batch"]


@pytest.mark.parametrize("settings", [{"norm": "layer"}, {"norm": "group", "width": 6}])
def test_a_norm_that_there_is_not_is_refused(settings):
    with pytest.raises(S2KDError, match=r"norm must be batch or group, .*multiple of 4"):
        backbones.build("unet", small_grid(), past=3, lead=2, **settings)
