"""The narrator that runs a multimodal model, on tiny random models saved as real ones are."""

import shutil
import subprocess
import sys

import pytest
import tiny_vlm
import torch
from test_narrators import make_past, moving
from worlds import world

from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Narrator, narrators, transformers
from s2kd.narration.store import narrate_windows, read_narratives

MOVING = moving(east=1, south=0)
PASTS = [
    make_past(MOVING),
    make_past(2 * MOVING, season="winter", part_of_day="evening", context=("rain",)),
    make_past(4 * MOVING - 2),
    make_past(MOVING[::-1].copy(), domain="fire", channels=("soot density",), units=("mg/m3",)),
    make_past(2 - 4 * MOVING),
]


@pytest.fixture(scope="module", params=sorted(tiny_vlm.FAMILIES))
def folder(request, tmp_path_factory):
    return tiny_vlm.FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return tiny_vlm.llava(tmp_path_factory.mktemp("llava"))


def build(folder, **settings):
    options = {"model": str(folder), "max_new_tokens": 16, "device": "cpu", **settings}
    return narrators.build("transformers", **options)


@pytest.fixture(scope="module")
def narrated(folder):
    """A narrator, and its narratives of all pasts in one batch."""
    narrator = build(folder, batch=len(PASTS))
    return narrator, narrator.narrate(PASTS)


def test_narratives_depend_on_the_picture_and_not_on_the_batch(folder, narrated):
    """Prompts of unequal length: with padding on the right, all but the longest would differ."""
    narrator, texts = narrated
    assert isinstance(narrator, Narrator)
    assert narrator.narrate([]) == []
    assert len(set(texts)) == len(PASTS), "three of them have the same prompt"
    single = build(folder, batch=1)
    assert [single.narrate([past])[0] for past in PASTS] == texts
    assert build(folder, batch=2).narrate(PASTS) == texts
    single.processor.tokenizer.padding_side = "right"
    single.batch = len(PASTS)
    assert single.narrate(PASTS) != texts, "the premise"


def test_decoding_is_greedy_whatever_the_models_file_says(folder, narrated, capfd, recwarn):
    assert '"do_sample": true' in (folder / "generation_config.json").read_text()
    torch.manual_seed(1)
    capfd.readouterr()
    assert build(folder, batch=len(PASTS)).narrate(PASTS) == narrated[1]
    assert capfd.readouterr() == ("", "")
    assert not [warning for warning in recwarn if "generat" in str(warning.message)]


def test_answers_are_bounded(folder):
    short, long = (build(folder, max_new_tokens=most) for most in (5, 9))
    (answer,), (longer,) = (
        narrator.answers([narrator.sheets(PASTS[0])], ["Describe it."])
        for narrator in (short, long)
    )
    assert longer.startswith(answer.rstrip("\ufffd"))
    assert len(longer) > len(answer) > 0
    assert len(build(folder, max_new_tokens=300).narrate(PASTS[:1])[0].split()) <= 120


# --- what narratives are stored under ------------------------------------------------------------


def test_the_version_names_everything_that_words_depend_on(llava):
    version = build(llava).version
    different = [{"max_new_tokens": 17}, {"size": 336}, {"labels": False}, {"channels": ("c0",)}]
    versions = {build(llava, **settings).version for settings in [*different, {"dtype": "float16"}]}
    assert len(versions | {version}) == 6
    assert build(llava, batch=3).version == version
    assert "sheet-2 size=224" in version  # the smallest readable one; the model takes 32


def test_other_content_of_the_folder_is_another_version(llava, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(llava, copy)
    assert build(copy).version == build(llava).version
    (copy / "chat_template.jinja").write_text(tiny_vlm.TEMPLATE.replace("ASSISTANT", "A"))
    template = build(copy).version
    shutil.copy(tiny_vlm.llava(tmp_path / "other", seed=1) / "model.safetensors", copy)
    assert len({template, build(copy).version, build(llava).version}) == 3


def test_a_narrator_is_one_before_its_model_can_be_loaded(tmp_path):
    """Python 3.11's own check of a protocol would evaluate `version`, which reads the model."""
    narrator = build(tmp_path / "missing")
    assert isinstance(narrator, Narrator)
    with pytest.raises(S2KDError, match="no such folder"):
        _ = narrator.version


def test_all_parts_of_a_hub_model_are_of_the_recorded_commit(llava, monkeypatch):
    from transformers import AutoConfig, AutoProcessor

    config, requests = AutoConfig.from_pretrained(llava), []
    config._commit_hash = "c0ffee"

    def from_pretrained(model, **settings):
        requests.append(settings)
        return config

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda model, **s: requests.append(s))
    narrator = narrators.build("transformers", revision="main", size=336)
    assert "deepseek-community/deepseek-vl-1.3b-chat@c0ffee" in narrator.version
    with pytest.raises(S2KDError, match="no image processor"):
        narrator.narrate(PASTS[:1])
    assert requests == [{"revision": "main"}, {"backend": "pil", "revision": "c0ffee"}]


def test_stored_narratives_need_no_weights(llava, tmp_path):
    dataset = world("blobs", size=8, runs=3, length=8)
    windows = WindowDataset(dataset, "train", past=3, lead=2)
    train_stats, store = statistics(dataset), tmp_path / "narratives.jsonl"
    narrator, again = (build(llava, max_new_tokens=4) for _ in range(2))
    texts = narrate_windows(windows, narrator, train_stats, store, name="transformers")
    lines = read_narratives(store)
    assert [line.text for line in lines] == texts
    assert {line.version for line in lines} == {narrator.version}
    assert narrate_windows(windows, again, train_stats, store, name="transformers") == texts
    assert "_network" not in again.__dict__


# --- what does not fit, and what is not there ----------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved(narrated, folder):
    """A GPU's answer to a batch that is too large, given here by a model that takes two."""
    narrow, sizes = build(folder, batch=5), []
    answers = narrow.answers

    def limited(sheets, prompts):
        sizes.append(len(sheets))
        if len(sheets) > 2:
            raise torch.OutOfMemoryError
        return answers(sheets, prompts)

    narrow.answers = limited
    assert narrow.narrate(PASTS) == narrated[1]
    assert sizes == [5, 3, 2, 2, 1]


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(llava, monkeypatch):
    monkeypatch.setattr(transformers, "free_memory", lambda device: 1000)
    with pytest.raises(S2KDError, match=r"not fit into the memory of cpu \(0\.\d GB of weights, 0"):
        build(llava).narrate(PASTS[:1])


def test_folders_that_hold_no_model_are_named(llava, tmp_path):
    with pytest.raises(S2KDError, match=r"holds no config\.json, so it is not a model's folder"):
        build(tmp_path).narrate(PASTS[:1])
    with pytest.raises(S2KDError, match=r"transformers: \./nowhere: no such folder"):
        build("./nowhere").narrate(PASTS[:1])
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(S2KDError, match="could not be loaded"):
        build(tmp_path).narrate(PASTS[:1])
    copy = tmp_path / "copy"
    shutil.copytree(llava, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(S2KDError, match="could not be loaded"):
        build(copy).narrate(PASTS[:1])
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(S2KDError, match="has no chat template; choose a chat model"):
        build(copy).narrate(PASTS[:1])


def test_a_model_of_text_is_refused(tmp_path):
    from transformers import BertConfig, BertModel

    sizes = dict.fromkeys(("num_hidden_layers", "num_attention_heads"), 1)
    BertModel(
        BertConfig(vocab_size=40, hidden_size=8, intermediate_size=8, **sizes)
    ).save_pretrained(tmp_path)
    tiny_vlm.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(S2KDError, match="so it cannot answer about a picture"):
        build(tmp_path).narrate(PASTS[:1])


OFFLINE = """
import os
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = {home!r}
from s2kd.narration.narrators import narrators
from s2kd.core.errors import S2KDError
try:
    print(narrators.build("transformers").version)
except S2KDError as error:
    print(error)
"""


def test_a_model_that_cannot_be_downloaded_is_named_with_the_way_out(tmp_path):
    code = OFFLINE.format(home=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert "hf download deepseek-community/deepseek-vl-1.3b-chat --local-dir FOLDER" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float8"}, "dtype: must be one of auto, float32"),
        ({"batch": 0}, "batch: wants int >= 1, got 0"),
        ({"device": "gpu"}, "device='gpu' must be auto, cpu, cuda or cuda:N"),
        ({"device": "cuda"}, "PyTorch finds no GPU here"),
    ],
)
def test_impossible_settings_are_named(llava, settings, message):
    if settings == {"device": "cuda"} and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(S2KDError, match=message):
        build(llava, **settings).narrate(PASTS[:1])
