import pytest
import torch

from s2kd.core.types import S2KDError
from s2kd.models.backbones import PRESETS, Backbone, backbones
from s2kd.models.layers import parameter_count
from s2kd.pipeline.contracts import small_grid

SMALL = {
    "simvp": {"spatial": 4, "temporal": 16, "blocks": 3, "expansion": 2},
    "unet": {"width": 4},
}


def small(name, grid, *, past=3, lead=2, **settings):
    torch.manual_seed(0)
    chosen = {**SMALL.get(name, {"preset": "tiny"}), **settings}
    return backbones.build(name, grid, past=past, lead=lead, **chosen).eval()


def frames(grid, count=3, *, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, count, len(grid.channels), grid.height, grid.width)
    return torch.randn(shape, generator=generator)


def forecast(backbone, past):
    return backbone.decode(*backbone.encode(past))


@pytest.mark.parametrize(
    ("past", "channels", "spatial", "temporal", "layers", "blocks", "millions"),
    [
        (10, 1, 64, 512, 4, 8, 46.77),  # Moving MNIST
        (4, 2, 32, 256, 2, 8, 9.96),  # TaxiBJ
        (12, 1, 32, 256, 2, 8, 12.76),  # WeatherBench temperature
        (10, 2, 64, 512, 4, 14, 78.77),
    ],
)
def test_simvp_has_the_published_sizes(past, channels, spatial, temporal, layers, blocks, millions):
    """Of SimVP with the gSTA translator in OpenSTL's table of models."""
    with torch.device("meta"):
        made = backbones.build(
            "simvp", small_grid(64, 64, channels=channels), past=past, lead=past,
            spatial=spatial, temporal=temporal, layers=layers, blocks=blocks,
        )  # fmt: skip
    assert round(parameter_count(made) / 1e6, 2) == millions


@pytest.mark.parametrize(("patch", "millions"), [(1, 5.096), (4, 5.148)])
def test_unet_has_the_students_size(patch, millions):
    with torch.device("meta"):
        made = backbones.build("unet", small_grid(32, 64), past=12, lead=12, patch=patch)
    assert round(parameter_count(made) / 1e6, 3) == millions


@pytest.mark.parametrize("name", backbones.names())
def test_presets_are_of_growing_size(name):
    """The published sizes of `paper` are in a test of their own."""
    assert backbones.presets(name) == PRESETS
    small_one, tiny = (
        backbones.build(name, small_grid(), past=4, lead=4, preset=preset)
        for preset in ("small", "tiny")
    )
    assert isinstance(tiny, Backbone)
    assert parameter_count(tiny) < 100_000
    assert parameter_count(tiny) < parameter_count(small_one) < 5_000_000


def test_a_preset_is_settings_and_those_beside_it_win():
    grid = small_grid()
    settings = backbones.settings("unet", "tiny", grid)
    plain = backbones.build("unet", grid, past=3, lead=2, **settings)
    named = backbones.build("unet", grid, past=3, lead=2, preset="tiny")
    assert parameter_count(plain) == parameter_count(named)
    wider = backbones.build("unet", grid, past=3, lead=2, preset="tiny", width=6)
    assert wider.latent_width == 24
    with pytest.raises(S2KDError, match="no preset 'tinny'; did you mean 'tiny'"):
        backbones.build("unet", grid, past=3, lead=2, preset="tinny")


@pytest.mark.parametrize(("height", "width"), [(25, 53), (33, 49), (21, 21), (1, 3)])
@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("name", backbones.names())
def test_any_grid_will_do(name, height, width, wraps):
    grid = small_grid(height, width, wraps=wraps)
    made, past = small(name, grid), frames(grid)
    latent, _ = made.encode(past)
    assert latent.shape[1:] == (made.latent_width, *made.latent_grid)
    assert forecast(made, past).shape == (2, 2, 2, height, width)


@pytest.mark.parametrize(("height", "width"), [(25, 53), (12, 12)])
@pytest.mark.parametrize("wraps", [False, True])
def test_patches_take_any_grid(height, width, wraps):
    grid = small_grid(height, width, wraps=wraps)
    made = small("unet", grid, patch=4)
    assert made.latent_grid == (-(-height // 32) * 2, -(-width // 32) * 2)
    assert forecast(made, frames(grid)).shape == (2, 2, 2, height, width)


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_where_a_unet_has_its_latent_changes_no_forecast(stride, wraps):
    grid = small_grid(25, 53, wraps=wraps)
    made, usual = small("unet", grid, latent_stride=stride), small("unet", grid)
    made.load_state_dict(usual.state_dict())
    past = frames(grid)
    latent, carry = made.encode(past)
    assert latent.shape[1:] == (stride * 4, 32 // stride, 56 // stride)
    assert (made.latent_width, *made.latent_grid) == latent.shape[1:]
    assert len(carry) == {1: 0, 2: 1, 4: 2}[stride]
    assert torch.equal(forecast(made, past), forecast(usual, past))


def test_all_of_a_unets_forecast_passes_through_a_latent_of_the_full_grid():
    """At a quarter its skips pass by, so what is done to the latent is not all there is."""
    grid = small_grid()
    past = frames(grid)
    for stride, passes_by in ((1, False), (2, True), (4, True)):
        made = small("unet", grid, latent_stride=stride)
        latent, carry = made.encode(past)
        other = made.encode(past.flip(0))[1]
        same = torch.equal(made.decode(latent, carry), made.decode(latent, other))
        assert same != passes_by


@pytest.mark.parametrize(("past", "lead"), [(1, 1), (4, 1), (2, 5)])
@pytest.mark.parametrize("name", backbones.names())
def test_any_number_of_frames_will_do(name, past, lead):
    grid = small_grid()
    made = small(name, grid, past=past, lead=lead)
    assert forecast(made, frames(grid, past)).shape == (2, lead, 2, 16, 24)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_latents_of_all_backbones_lie_on_one_grid(name):
    """A quarter of the grid padded to a multiple of eight: nothing is resampled to compare."""
    assert small(name, small_grid(25, 53)).latent_grid == (8, 14)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_wrapping_turns_and_edges_do_not(name):
    for wraps in (True, False):
        grid = small_grid(wraps=wraps)
        made, past = small(name, grid), frames(grid)
        turned, straight = forecast(made, past.roll(8, -1)), forecast(made, past).roll(8, -1)
        close = torch.allclose(turned, straight, rtol=1e-4, atol=1e-5)
        assert close == wraps


@pytest.mark.parametrize("name", backbones.names())
def test_the_order_of_frames_matters(name):
    grid = small_grid()
    made, past = small(name, grid), frames(grid)
    assert not torch.allclose(forecast(made, past.flip(1)), forecast(made, past), atol=1e-4)


@pytest.mark.parametrize("name", backbones.names())
def test_the_forecast_comes_from_the_latent(name):
    grid = small_grid()
    made, past = small(name, grid), frames(grid)
    latent, carry = made.encode(past)
    assert not torch.allclose(made.decode(latent + 1, carry), made.decode(latent, carry), atol=1e-4)


def test_without_skip_all_passes_through_the_latent():
    grid = small_grid()
    one, other = frames(grid), frames(grid, seed=1)
    for skip in (True, False):
        made = small("simvp", grid, skip=skip)
        latent, carry = made.encode(one)
        _, foreign = made.encode(other)
        same = torch.equal(made.decode(latent, carry), made.decode(latent, foreign))
        assert same == (not skip)
        assert (carry == ()) == (not skip)


@pytest.mark.parametrize("skip", [True, False])
def test_where_a_teacher_reads_does_not_change_what_is_seen(skip):
    """The three cuts are three places in one network."""
    grid = small_grid()
    past, said = frames(grid), {}
    for cut in ("pre", "mid", "post"):
        made = small("simvp", grid, fuse_at=cut, skip=skip)
        latent, carry = made.encode(past)
        assert latent.shape[1] == made.latent_width
        said[cut] = made.decode(latent, carry)
    widths = [small("simvp", grid, fuse_at=c).latent_width for c in ("pre", "mid", "post")]
    assert widths == [12, 16, 12]  # past × spatial, temporal, past × spatial
    torch.testing.assert_close(said["pre"], said["post"], rtol=0, atol=0)
    torch.testing.assert_close(said["mid"], said["post"], rtol=0, atol=0)


def test_paths_are_dropped_in_training_alone():
    grid = small_grid()
    made, past = small("simvp", grid, drop_path=0.9), frames(grid, batch=8)
    with torch.no_grad():
        for block in made.translator:
            block.scale1.fill_(1.0)
    torch.testing.assert_close(forecast(made, past), forecast(made, past), rtol=0, atol=0)
    made.train()
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    assert not torch.allclose(forecast(made, past), forecast(made, past))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        (
            "simvp",
            {"fuse_at": "end"},
            "fuse_at: must be one of pre, mid, post, got 'end'",
        ),
        ("simvp", {"spatial": 5}, "spatial: wants int .*multiple of 2, got 5"),
        ("simvp", {"spatial": 0}, "spatial: wants int >= 2, got 0"),
        ("simvp", {"layers": 3}, "layers: must be one of 2, 4, 6, got 3"),
        ("simvp", {"layers": 8}, "layers: must be one of 2, 4, 6"),
        ("simvp", {"blocks": 1}, "blocks: wants int >= 2, got 1"),
        ("simvp", {"temporal": 0}, "temporal: wants int >= 1, got 0"),
        ("simvp", {"drop_path": 1.0}, r"drop_path: wants float < 1.0, got 1\.0"),
        ("unet", {"width": 0}, "width: wants int >= 1, got 0"),
        ("unet", {"patch": 0}, "patch: wants int >= 1, got 0"),
        ("unet", {"latent_stride": 3}, "latent_stride: must be one of 1, 2, 4, got 3"),
        ("unet", {"widht": 8}, "no setting 'widht'; did you mean 'width'"),
    ],
)
def test_impossible_settings_are_refused(name, settings, said):
    with pytest.raises(S2KDError, match=said):
        small(name, small_grid(), **settings)
