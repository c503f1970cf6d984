import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from s2kd.core.types import GridSpec, Past, S2KDError, Statistics

KNOWN = Statistics(mean=(0.0,), std=(1.0,), minimum=(0.0,), maximum=(1.0,), quantiles={})


def grid(**changes):
    plain = {
        "channels": ("z500",),
        "units": ("m",),
        "height": 2,
        "width": 3,
        "step_seconds": 3600.0,
    }
    return GridSpec(**{**plain, **changes})


def past(frames, **changes):
    whole = {"grid": grid(), "domain": "generic", "statistics": KNOWN, **changes}
    return Past(frames=frames, **whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"units": ("m", "K")}, "1 channels .* but 2 units"),
        ({"channels": (), "units": ()}, "at least one channel"),
        ({"height": 0}, "0×3"),
        ({"step_seconds": 0.0}, "step_seconds must be positive, got 0.0"),
        ({"step_seconds": float("nan")}, "step_seconds must be positive, got nan"),
        ({"latitude": (10.0,)}, "latitude has 1 values, the grid has 2"),
        ({"longitude": (0.0, 1.0)}, "longitude has 2 values, the grid has 3"),
        ({"latitude": (-10.0, 10.0)}, "latitude must descend"),
        ({"mask": ((True, True), (True, False))}, r"mask has shape \(2, 2\), grid is 2×3"),
    ],
)
def test_a_grid_that_contradicts_itself_is_refused(changes, said):
    with pytest.raises(S2KDError, match=said):
        grid(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"wraps": True, "latitude": (30.0, -30.5), "longitude": (0.0, 120.0, 240.0)},
        {"mask": ((True, False, True), (False, False, True))},
        {"channels": ("u", "v"), "units": ("m s-1", "m s-1")},
    ],
)
def test_a_grid_survives_json(changes):
    made = grid(**changes)
    assert GridSpec.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_exists_is_the_mask_and_everything_without_one():
    mask = ((True, False, True), (False, False, True))
    np.testing.assert_array_equal(grid(mask=mask).exists, np.array(mask))
    np.testing.assert_array_equal(grid().exists, np.ones((2, 3), bool))


def test_what_travels_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        grid().height = 5


def test_a_digest_names_the_content_of_the_input_frames():
    frames = np.arange(12, dtype=np.float64).reshape(2, 1, 2, 3) / 7
    told = past(frames).digest
    # neither type nor memory layout is content
    assert past(frames.astype(np.float32)).digest == told
    assert past(np.asfortranarray(frames)).digest == told
    # every value, the shape and the channels' names are
    for place in np.ndindex(frames.shape):
        other = frames.copy()
        other[place] += 1e-3
        assert past(other).digest != told
    assert past(frames.reshape(1, 2, 2, 3)).digest != told
    assert past(frames, grid=replace(grid(), channels=("t850",))).digest != told
