"""The paper's own relative results, worked by hand from its tables."""

import pytest

from s2kd.paper.published import PUBLISHED


def test_the_headline_claim_is_in_the_tables():
    closed = [PUBLISHED[t].gap_closed_percent("unet", "s2kd") for t in PUBLISHED]
    # (0.0831 - 0.0698) / (0.0831 - 0.0683), and so on
    assert closed == pytest.approx([89.86, 95.60, 89.41], abs=0.01)
    by_hints = [PUBLISHED[t].gap_closed_percent("unet", "fitnet") for t in PUBLISHED]
    assert by_hints == pytest.approx([44.59, 30.77, 31.76], abs=0.01)


def test_gains_and_rows_that_the_paper_lacks():
    assert PUBLISHED["table2"].gain_percent("unet", "semantic") == pytest.approx(6.87, abs=0.01)
    assert PUBLISHED["table1"].gain_percent("unet", "review") is None
    assert PUBLISHED["table1"].gap_closed_percent("vit", "s2kd") is None
