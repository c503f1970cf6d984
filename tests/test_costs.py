"""The number of parameters in the table of backbones."""

from s2kd.models import costs as measure


def test_a_row_counts_what_the_built_model_holds():
    size = next(s for s in measure.sizes() if s.name == "unet" and s.preset == "tiny")
    built = sum(p.numel() for p in measure.build(size).parameters())
    assert measure.row(size)["parameters"] == built
