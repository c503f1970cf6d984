"""Parameter counts, by building on the `meta` device: no memory, no arithmetic.

A teacher's count is all that its training changes: backbone, projections to D = 512 features and
back, positions, the two spectral branches, the projection of the text's 384 features (MiniLM's)
and N alignment layers. The frozen text encoder is not counted. A student's is its backbone. The
paper's figures are of its Table 4; it does not publish the configurations, so 3 % is allowed.
"""

import pytest
import torch

from s2kd.models.backbones import PRESETS, backbones
from s2kd.models.forecasters import Teacher
from s2kd.models.layers import parameter_count
from s2kd.pipeline.contracts import identity, small_grid
from s2kd.pipeline.parts import preset_rows

FRAMES = {
    "triton": (12, 32, 64),  # weather
    "earthfarseer": (12, 32, 32),  # traffic
    "simvp": (10, 64, 64),  # fire
    "unet": (12, 32, 64),
    "resnet": (12, 32, 64),
    "mixer": (12, 32, 64),
}


def backbone(name, past, height, width, *, channels=2, preset="", **settings):
    with torch.device("meta"):
        return backbones.build(
            name, small_grid(height, width, channels=channels), past=past, lead=past,
            preset=preset, **settings,
        )  # fmt: skip


def teacher(made, depth):
    with torch.device("meta"):
        return Teacher(
            made, identity(2), wraps=False, text_width=384, width=512, heads=8, depth=depth
        )


@pytest.mark.parametrize(
    ("name", "depth", "alone", "aligned", "published"),
    [
        ("triton", 3, 143.3, 151.1, 150.2),
        ("earthfarseer", 2, 120.7, 125.9, 125.8),
        ("simvp", 1, 78.8, 82.0, 80.5),
    ],
)
def test_teachers(name, depth, alone, aligned, published):
    made = backbone(name, *FRAMES[name], preset="paper")
    assert round(parameter_count(made) / 1e6, 1) == alone
    millions = parameter_count(teacher(made, depth)) / 1e6
    assert round(millions, 1) == aligned
    assert abs(millions / published - 1) < 0.03


def test_the_list_of_presets_has_their_sizes():
    sizes = {(row["name"], row["preset"]): row["parameters"] for row in preset_rows()}
    assert {name for name, _ in sizes} == set(backbones.names())
    assert round(sizes["triton", "paper"] / 1e6, 1) == 143.3
    (row,) = [row for row in preset_rows("tiny") if row["name"] == "mixer"]
    assert row["parameters"] == sizes["mixer", "tiny"]


@pytest.mark.parametrize(("height", "width"), [(32, 64), (32, 32), (128, 128)])
@pytest.mark.parametrize(("name", "published"), [("unet", 5.1), ("resnet", 4.5), ("mixer", 6.2)])
def test_students(name, published, height, width):
    made = backbone(name, 12, height, width, preset="paper")
    assert abs(parameter_count(made) / 1e6 / published - 1) < 0.03


@pytest.mark.parametrize(
    ("past", "channels", "spatial", "temporal", "blocks", "millions"),
    [
        (1, 69, 64, 128, 8, 1.81),  # the default of the authors' file
        (1, 69, 256, 512, 8, 28.07),  # weather at 1°
        (1, 1, 128, 256, 8, 7.00),  # turbulence
        (12, 2, 64, 256, 8, 13.3),
        (12, 2, 256, 512, 8, 143.3),
        (12, 2, 256, 512, 10, 149.6),
        (12, 2, 160, 1088, 8, 149.9),
        (12, 2, 64, 1024, 8, 97.2),
        (12, 2, 128, 1024, 8, 120.9),
        (1, 69, 1536, 3072, 8, 1000),  # TritonCast
    ],
)
def test_triton_has_the_sizes_of_the_authors_program(
    past, channels, spatial, temporal, blocks, millions
):
    made = backbone(
        "triton", past, 32, 64, channels=channels,
        spatial=spatial, temporal=temporal, blocks=blocks,
    )  # fmt: skip
    assert parameter_count(made) / 1e6 == pytest.approx(millions, rel=4e-3)


@pytest.mark.parametrize(
    ("past", "channels", "spatial", "temporal", "layers", "blocks", "millions"),
    [
        (4, 2, 32, 256, 2, 8, 13.79),  # TaxiBJ
        (12, 1, 32, 256, 2, 8, 14.67),  # WeatherBench temperature
        (12, 2, 128, 512, 4, 10, 79.7),
    ],
)
def test_simvp_with_inception_has_the_published_sizes(
    past, channels, spatial, temporal, layers, blocks, millions
):
    """Of SimVP version 1 in OpenSTL's table of models."""
    made = backbone(
        "simvp", past, 32, 64, channels=channels, translator="inception",
        spatial=spatial, temporal=temporal, layers=layers, blocks=blocks,
    )  # fmt: skip
    assert parameter_count(made) / 1e6 == pytest.approx(millions, rel=1e-3)


@pytest.mark.parametrize(
    ("past", "spatial", "temporal", "blocks", "millions"),
    [(10, 64, 512, 15, 84.1), (10, 128, 384, 16, 81.1), (12, 64, 512, 13, 77.2)],
)
def test_simvp_deep_by_other_settings(past, spatial, temporal, blocks, millions):
    made = backbone("simvp", past, 64, 64, spatial=spatial, temporal=temporal, blocks=blocks)
    assert parameter_count(made) / 1e6 == pytest.approx(millions, rel=1e-3)


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_a_published_size_forecasts(name):
    """Shapes alone, through every layer; the latent is as wide and on the grid as announced."""
    past, height, width = FRAMES[name]
    made = backbone(name, past, height, width, preset="paper")
    seen = torch.empty(1, past, 2, height, width, device="meta")
    latent, carry = made.encode(seen)
    assert latent.shape == (1, made.latent_width, *made.latent_grid)
    assert made.decode(latent, carry).shape == seen.shape


@pytest.mark.parametrize("name", ["triton", "earthfarseer", "simvp", "unet"])
@pytest.mark.parametrize(("height", "width"), [(32, 64), (25, 53)])
def test_teachers_and_unet_have_their_latents_on_one_grid(name, height, width):
    """A quarter of the padded grid: nothing is resampled to compare."""
    made = backbone(name, 12, height, width, preset="paper")
    assert made.latent_grid == (-(-height // 8) * 2, -(-width // 8) * 2)


@pytest.mark.parametrize(("name", "grid"), [("resnet", (32, 32)), ("mixer", (16, 16))])
def test_students_in_patches_have_their_own_grid(name, grid):
    assert backbone(name, 12, 128, 128, preset="paper").latent_grid == grid


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_presets_come_in_order_of_size(name):
    sizes = [parameter_count(backbone(name, 12, 32, 64, preset=preset)) for preset in PRESETS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 1_000_000
    assert sizes[2] < 100_000
