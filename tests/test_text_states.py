"""Token states: each text once, float16, padding, and files that are damaged or of other texts."""

from dataclasses import replace

import pytest
import torch

from s2kd.core.tensors import Tokens
from s2kd.core.types import S2KDError
from s2kd.narration.text import TextEncoder, encoders
from s2kd.narration.text.states import TextStates, encode_states

TEXTS = ["cold front in the west", "warm", "", "cold front in the west", "warm air", "warm", ""]


class Watched(TextEncoder):
    """The hashed encoder, remembering its calls."""

    width, version = 8, "watched"

    def __init__(self, scale=1.0):
        self.inner, self.calls, self.scale = encoders.build("hashed", width=8), [], scale

    def encode(self, texts):
        self.calls.append(list(texts))
        tokens = self.inner.encode(texts)
        return Tokens(values=tokens.values * self.scale, padding=tokens.padding)


@pytest.fixture
def states():
    return encode_states(TEXTS, Watched(), key="of these")


def test_every_different_text_is_encoded_once():
    watched, progress = Watched(), []
    states = encode_states(TEXTS, watched, batch=3, progress=lambda *p: progress.append(p))
    encoded = [text for batch in watched.calls for text in batch]
    assert sorted(encoded) == sorted(set(TEXTS))
    assert [len(batch) for batch in watched.calls] == [3, 1]
    assert encoded == sorted(encoded, key=len)  # short ones are not padded to long ones
    assert progress == [(3, 4), (4, 4)]
    assert states.index.tolist() == [0, 1, 2, 0, 3, 1, 2]
    assert states.lengths.tolist() == [5, 1, 0, 2]
    assert states.values.shape == (8, 8)
    assert states.values.dtype == torch.float16
    assert (len(states), states.width) == (7, 8)


def test_tokens_are_what_the_encoder_gave(states):
    index = torch.tensor([4, 0, 2, 1])
    got = states.tokens(index)
    want = Watched().encode([TEXTS[i] for i in index])
    assert torch.equal(got.padding, want.padding)
    assert got.values.dtype == torch.float32
    torch.testing.assert_close(got.values, want.values, rtol=2**-11, atol=1e-7)
    assert (got.values[got.padding] == 0).all()


def test_a_batch_is_as_long_as_its_longest(states):
    assert states.tokens(torch.tensor([1, 4])).values.shape == (2, 2, 8)
    assert states.tokens(torch.tensor([0, 1])).values.shape == (2, 5, 8)
    empty = states.tokens(torch.tensor([2, 6]))
    assert empty.values.shape == (2, 1, 8)
    assert empty.padding.all()
    assert states.tokens(torch.zeros(0, dtype=torch.long)).values.shape == (0, 1, 8)


def test_a_window_that_is_not_there_is_refused(states):
    with pytest.raises(IndexError):
        states.tokens(torch.tensor([7]))


def test_round_trip_through_a_file(states, tmp_path):
    path = tmp_path / "deep" / "text.safetensors"
    states.save(path)
    again = TextStates.load(path)
    for name in ("values", "offsets", "index"):
        assert torch.equal(getattr(again, name), getattr(states, name))
    assert again.key == states.key == "of these"
    assert [p.name for p in path.parent.glob("[!.]*")] == ["text.safetensors"]
    encode_states([], Watched()).save(tmp_path / "none")
    assert len(TextStates.load(tmp_path / "none")) == 0


def test_float16_loses_no_more_than_it_must():
    values = encoders.build("hashed", width=64).encode(["a b c d e f g h"]).values[0]
    states = encode_states(["a b c d e f g h"], encoders.build("hashed", width=64))
    got = states.tokens(torch.tensor([0])).values[0]
    assert ((got - values).abs() <= values.abs() * 2**-11 + 2**-25).all()
    assert not torch.equal(got, values)


def test_states_out_of_range_are_refused():
    with pytest.raises(S2KDError, match="not finite in float16 for the text 'warm'"):
        encode_states(["warm"], Watched(scale=1e6))


def test_torn_files_are_refused_at_every_length(states, tmp_path):
    path = tmp_path / "text.safetensors"
    states.save(path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(S2KDError, match=r"text\.safetensors: (was altered|not readable)"):
            TextStates.load(path)
    with pytest.raises(S2KDError, match="no such file"):
        TextStates.load(tmp_path / "nothing")
    with pytest.raises(S2KDError, match="not readable"):
        TextStates.load(tmp_path)


def test_files_that_hold_something_else_are_refused(states, tmp_path):
    from safetensors.torch import save_file

    save_file({"values": torch.zeros(2, 2)}, tmp_path / "other")
    with pytest.raises(S2KDError, match="not readable as text states"):
        TextStates.load(tmp_path / "other")
    plain = {name: getattr(states, name) for name in ("values", "offsets", "index")}
    save_file(plain, tmp_path / "unmarked")
    with pytest.raises(S2KDError, match="does not hold text states"):
        TextStates.load(tmp_path / "unmarked")
    for damage in (
        {"offsets": states.offsets - 1},
        {"offsets": states.offsets.flip(0)},
        {"index": states.index + 1},
        {"index": states.index - 1},
        {"values": states.values[:-1]},
        {"values": states.values * float("nan")},
    ):
        replace(states, **damage).save(tmp_path / "damaged")
        with pytest.raises(S2KDError, match="damaged: does not hold text states"):
            TextStates.load(tmp_path / "damaged")
