import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2kd.core.types import GridSpec, S2KDError, Statistics
from s2kd.data import statistics as normalise
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import QUANTILES, statistics, training_blocks
from s2kd.models.normaliser import Normaliser

MASK = tuple(tuple((row + column) % 3 != 0 for column in range(5)) for row in range(4))


def dataset(frames, *, train=((0, 20),), mask=None):
    """Training stretches as given, then two held-out splits of four frames each at the end."""
    count, channels, height, width = frames.shape
    names = tuple(f"field{i}" for i in range(channels))
    grid = GridSpec(
        channels=names, units=("1",) * channels, height=height, width=width, step_seconds=1.0,
        mask=mask,
    )  # fmt: skip
    splits = {"train": train, "val": ((count - 8, count - 4),), "test": ((count - 4, count),)}
    return Dataset(
        name="noise", domain="generic", grid=grid, frames=frames,
        times=np.arange(count).astype("datetime64[s]").astype("datetime64[ns]"),
        splits={k: tuple(Stretch(first=f, stop=s) for f, s in v) for k, v in splits.items()},
    )  # fmt: skip


def noise(count=40, channels=2, height=4, width=5, seed=0):
    return (
        np.random.default_rng(seed).standard_normal((count, channels, height, width)).astype("f4")
    )


@pytest.mark.parametrize("mask", [None, MASK])
def test_statistics_are_those_of_the_training_cells_in_float64(mask):
    frames = noise()
    train = ((0, 7), (9, 20))
    known = statistics(dataset(frames, train=train, mask=mask), lead=3)
    exists = np.ones((4, 5), bool) if mask is None else np.array(mask)
    chosen = np.concatenate([frames[f:s] for f, s in train]).astype(np.float64)[..., exists]
    flat = chosen.swapaxes(0, 1).reshape(2, -1)
    np.testing.assert_allclose(known.mean, flat.mean(1), rtol=1e-9)
    np.testing.assert_allclose(known.std, flat.std(1), rtol=1e-9)
    np.testing.assert_array_equal(known.minimum, flat.min(1))
    np.testing.assert_array_equal(known.maximum, flat.max(1))
    for q in QUANTILES:
        np.testing.assert_allclose(known.quantiles[q], np.quantile(flat, q, axis=1), rtol=1e-5)
    squares = [
        (frames[t + k] - frames[t])[..., exists].astype(np.float64) ** 2
        for f, s in train
        for t in range(f, s - 3)
        for k in (1, 2, 3)
    ]
    np.testing.assert_allclose(known.change, np.sqrt(np.mean(squares, axis=(0, 2))), rtol=1e-6)


def test_cells_that_do_not_exist_do_not_count():
    frames = noise()
    before = statistics(dataset(frames, mask=MASK))
    frames[..., ~np.array(MASK)] = 1e30
    assert statistics(dataset(frames, mask=MASK)) == before


def test_what_is_held_out_does_not_count():
    """Leakage: validation, test and the gaps between may hold anything."""
    frames = noise()
    train = ((0, 9), (12, 20))
    before = statistics(dataset(frames, train=train), lead=2)
    frames[9:12] = 1e6
    frames[20:] = -1e6
    assert statistics(dataset(frames, train=train), lead=2) == before


def test_a_small_spread_on_a_large_mean_is_kept():
    """Geopotential: the mean of squares minus the square of the mean would lose it in float32."""
    frames = (55_000 + 0.05 * noise(60, 1, 8, 8)).astype(np.float32)
    known = statistics(dataset(frames, train=tuple((f, f + 10) for f in range(0, 50, 10))))
    np.testing.assert_allclose(known.std, frames[:50].astype(np.float64).std(), rtol=1e-6)


@given(
    cuts=st.lists(st.integers(1, 29), max_size=6, unique=True),
    offset=st.floats(-1e4, 1e4),
    scale=st.floats(1e-2, 1e3),
)
def test_statistics_do_not_depend_on_how_training_is_cut(cuts, offset, scale):
    frames = (offset + scale * noise(38)).astype(np.float32)
    edges = [0, *sorted(cuts), 30]
    whole = statistics(dataset(frames, train=((0, 30),)))
    cut = statistics(dataset(frames, train=tuple(itertools.pairwise(edges))))
    np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(cut.std, whole.std, rtol=1e-9)


def test_blocks_are_bounded_and_hold_every_training_frame_once():
    frames = noise()
    data = dataset(frames, train=((0, 7), (9, 20)), mask=MASK)
    blocks = list(training_blocks(data, values=3 * 2 * 4 * 5))
    assert max(map(len, blocks)) == 3
    want = np.concatenate([frames[:7], frames[9:20]])[..., np.array(MASK)]
    np.testing.assert_array_equal(np.concatenate(blocks), want)


def test_quantiles_come_from_frames_evenly_spaced_over_all_of_training(monkeypatch):
    """Also where blocks are shorter than the spacing: a large series would fill the memory."""
    frames = noise(88, 1)
    train = tuple((f, f + 2) for f in range(0, 80, 2))
    monkeypatch.setattr(normalise, "SAMPLED_VALUES", 8 * 20)
    known = statistics(dataset(frames, train=train))
    for q in QUANTILES:
        np.testing.assert_allclose(known.quantiles[q], np.quantile(frames[:80:10], q), rtol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f[:20, 1].fill(3.0), "'field1' never changes in the training split"),
        (lambda f: f[5, 0].fill(np.nan), "'field0' is not finite in the training split"),
        (lambda f: f[5, 0, 0, 0:1].fill(np.inf), "'field0' is not finite in the training split"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_field_that_cannot_be_scaled_is_named(spoil, said):
    frames = noise()
    spoil(frames)
    with pytest.raises(S2KDError, match=said):
        statistics(dataset(frames))


def test_an_empty_training_split_is_named():
    with pytest.raises(S2KDError, match="noise: the training split is empty"):
        statistics(dataset(noise(), train=()))


KNOWN = Statistics(
    mean=(10.0, -3.0), std=(2.0, 0.5), minimum=(4.0, -5.0), maximum=(24.0, -1.0), quantiles={},
    change=(0.25, 8.0),
)  # fmt: skip


def test_scaling_by_hand():
    field = torch.tensor([14.0, -3.5])[:, None, None].expand(2, 3, 4)
    got = Normaliser.from_statistics(KNOWN)(field)[:, 0, 0]
    assert got.tolist() == [2.0, -1.0]  # (14 − 10)/2 and (−3.5 + 3)/0.5
    got = Normaliser.from_statistics(KNOWN, kind="minmax")(field)[:, 0, 0]
    torch.testing.assert_close(got, torch.tensor([0.5, 0.375]))  # 10/20 and 1.5/4


def test_a_forecast_of_frames_and_one_of_changes_by_hand():
    past = torch.tensor([[[6.0, 1.0], [14.0, -3.5]]])[..., None, None]  # 1 example, 2 frames
    decoded = torch.tensor([[[2.0, -1.0]]])[..., None, None]
    frames = Normaliser.from_statistics(KNOWN, predict="frames").future(decoded, past)
    assert frames.flatten().tolist() == [14.0, -3.5]  # 10 + 2·2 and −3 − 0.5
    change = Normaliser.from_statistics(KNOWN, predict="change").future(decoded, past)
    assert change.flatten().tolist() == [14.5, -11.5]  # last frame + 2·0.25 and − 1·8


@pytest.mark.parametrize("predict", ["frames", "change"])
@pytest.mark.parametrize("kind", ["zscore", "minmax"])
def test_decoded_undoes_future_and_error_is_their_difference(kind, predict):
    scaler = Normaliser.from_statistics(KNOWN, kind=kind, predict=predict).double()
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    past, one, other = draw(2, 3, 2, 4, 5), draw(2, 4, 2, 4, 5), draw(2, 4, 2, 4, 5)
    torch.testing.assert_close(scaler.decoded(scaler.future(one, past), past), one)
    gap = scaler.error(scaler.future(one, past), scaler.future(other, past))
    torch.testing.assert_close(gap, one - other)


def test_the_numbers_travel_with_the_weights():
    ours = Normaliser.from_statistics(KNOWN, predict="change")
    blank = Normaliser(torch.zeros(2), torch.ones(2), change=torch.ones(2))
    blank.load_state_dict(ours.state_dict())
    field = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(blank(field), ours(field), rtol=0, atol=0)
    assert not list(ours.parameters()), "they are not learned"


def test_no_two_of_its_tensors_are_one():
    """Files of weights refuse tensors that share memory."""
    one = Normaliser(torch.zeros(2), torch.ones(2))
    assert len({buffer.data_ptr() for buffer in one.buffers()}) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "z-score"}, "normalise='z-score': must be 'zscore' or 'minmax'"),
        ({"predict": "delta"}, "predict='delta': must be 'frames' or 'change'"),
    ],
)
def test_unknown_words_are_refused(settings, said):
    with pytest.raises(S2KDError, match=said):
        Normaliser.from_statistics(KNOWN, **settings)


def test_statistics_survive_json():
    known = statistics(dataset(noise()))
    plain = json.loads(json.dumps(asdict(known)))
    quantiles = {float(q): tuple(v) for q, v in plain.pop("quantiles").items()}
    assert Statistics(**{k: tuple(v) for k, v in plain.items()}, quantiles=quantiles) == known
