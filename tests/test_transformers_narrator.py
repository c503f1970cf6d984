"""The narrator that runs a multimodal model, on tiny random models saved as real ones are."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_vlm
import torch
from test_narrators import moving, past_of
from worlds import world

from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.store import narrate_windows, read_narratives

MOVING = moving(east=1, south=0)
PASTS = [
    past_of(MOVING),
    past_of(2 * MOVING, season="winter", part_of_day="evening", context=("rain",)),
    past_of(4 * MOVING - 2),
    past_of(MOVING[::-1].copy(), domain="fire", channels=("soot density",), units=("mg/m3",)),
    past_of(2 - 4 * MOVING),
]


@pytest.fixture(scope="module", params=sorted(tiny_vlm.FAMILIES))
def folder(request, tmp_path_factory):
    return tiny_vlm.FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return tiny_vlm.llava(tmp_path_factory.mktemp("llava"))


def teller(folder, **settings):
    plain = {"model": str(folder), "max_new_tokens": 16, "device": "cpu", **settings}
    return narrators.build("transformers", **plain)


@pytest.fixture(scope="module")
def told(folder):
    """A narrator, and what it says of every past, asked for all at once."""
    narrator = teller(folder, batch=len(PASTS))
    return narrator, narrator.narrate(PASTS)


def test_it_keeps_the_narrators_contract(told):
    narrator, texts = told
    assert isinstance(narrator, Narrator)
    assert narrator.reads_future is False
    assert narrator.narrate([]) == []
    assert len(texts) == len(PASTS)


def test_a_batch_says_what_each_would_be_told_alone(folder, told):
    """Prompts of unequal length: with padding on the right, all but the longest would differ."""
    narrator, texts = told
    prompts = {len(narrator.processor.tokenizer(text)["input_ids"]) for text in texts}
    assert len(set(texts)) == len(texts)
    assert len(prompts) > 1
    alone = teller(folder, batch=1)
    assert [alone.narrate([past])[0] for past in PASTS] == texts
    pairs = teller(folder, batch=2)
    assert pairs.narrate(PASTS) == texts


def test_padding_on_the_right_would_be_noticed(folder, told):
    narrator = teller(folder, batch=len(PASTS))
    narrator.processor.tokenizer.padding_side = "right"
    assert narrator.narrate(PASTS) != told[1]


def test_the_answer_depends_on_the_picture(told):
    """The first, third and fifth past are asked the same words."""
    _, texts = told
    assert len({texts[0], texts[2], texts[4]}) == 3


def test_the_same_again_whatever_the_models_file_says_of_sampling(folder, told):
    settings = told[0]._network.generation_config
    assert (settings.do_sample, settings.temperature, settings.top_p) == (False, None, None)
    assert '"do_sample": true' in (folder / "generation_config.json").read_text()
    torch.manual_seed(1)
    assert teller(folder, batch=len(PASTS)).narrate(PASTS) == told[1]


def test_answers_are_bounded(folder):
    short, long = (teller(folder, max_new_tokens=most) for most in (5, 9))
    (answer,), (longer,) = (
        narrator.answers([narrator.sheets(PASTS[0])], ["Describe it."])
        for narrator in (short, long)
    )
    assert longer.startswith(answer.rstrip("\ufffd"))
    assert len(longer) > len(answer) > 0
    assert len(teller(folder, max_new_tokens=300).narrate(PASTS[:1])[0].split()) <= 120


def test_nothing_is_printed_and_no_warning_given(folder, capfd, recwarn):
    teller(folder).narrate(PASTS[:2])
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
    assert not [w for w in recwarn if "s2kd" in str(w.filename) or "generat" in str(w.message)]


# --- what narratives are stored under ----------------------------------------------------------


def test_the_version_names_all_that_words_depend_on(llava):
    plain = teller(llava)
    for other in (
        {"max_new_tokens": 17},
        {"size": 336},
        {"labels": False},
        {"dtype": "bfloat16"},
        {"channels": ("c0",)},
    ):
        assert teller(llava, **other).version != plain.version
    for same in ({"batch": 3}, {"device": "auto"}):
        if not torch.cuda.is_available():
            assert teller(llava, **same).version == plain.version
    assert "prompt-1" in plain.version
    assert "sheet-2 size=224" in plain.version  # the smallest that can be read; it wants 32


def test_another_content_of_the_folder_is_another_version(llava, tmp_path):
    same = tmp_path / "elsewhere"
    shutil.copytree(llava, same)
    assert teller(same).version == teller(llava).version
    (same / "chat_template.jinja").write_text(tiny_vlm.TEMPLATE.replace("ASSISTANT", "A"))
    words = teller(same).version
    assert words != teller(llava).version
    tiny_vlm.llava(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", same)
    assert teller(same).version not in (words, teller(llava).version)


def test_the_commit_of_a_hub_model_is_recorded_and_held_to(llava, monkeypatch):
    """A hub's cache is a folder `snapshots/COMMIT`; the commit is read from there."""
    import transformers

    asked = []
    config = transformers.AutoConfig.from_pretrained(llava)
    config._commit_hash = "c0ffee"

    def found(model, **more):
        asked.append(more)
        return config

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", found)
    monkeypatch.setattr(
        transformers.AutoProcessor, "from_pretrained", lambda model, **more: asked.append(more)
    )
    narrator = narrators.build("transformers", revision="main", size=336)
    assert "deepseek-community/deepseek-vl-1.3b-chat@c0ffee" in narrator.version
    with pytest.raises(S2KDError, match="no image processor"):
        narrator.narrate(PASTS[:1])
    assert asked == [{"revision": "main"}, {"backend": "pil", "revision": "c0ffee"}]


def test_narratives_are_kept_and_found_again(llava, tmp_path):
    dataset = world("blobs", size=8, runs=3, length=8)
    windows = WindowDataset(dataset, "train", past=3, lead=2)
    known, store = statistics(dataset), tmp_path / "narratives.jsonl"
    narrator = teller(llava, max_new_tokens=4)
    texts = narrate_windows(windows, narrator, known, store, name="transformers")
    lines = read_narratives(store)
    assert [line.text for line in lines] == texts
    assert {line.version for line in lines} == {narrator.version}
    again = teller(llava, max_new_tokens=4)
    assert narrate_windows(windows, again, known, store, name="transformers") == texts
    assert "_network" not in again.__dict__  # nothing was missing: no weights were read


def test_no_frame_after_the_past_and_no_time_changes_an_answer(llava):
    dataset = world("blobs", size=8, runs=3, length=8)
    frames, known = dataset.frames.copy(), statistics(dataset)
    frames[3:] = 7
    other = replace(dataset, frames=frames, times=dataset.times + np.timedelta64(4000, "D"))
    other = replace(other, source="/elsewhere/2019-08-05.nc", name="storm of 2019")
    both = [WindowDataset(d, "train", past=3, lead=2).past_of(0, known) for d in (dataset, other)]
    narrator = teller(llava)
    assert narrator.narrate(both[:1]) == narrator.narrate(both[1:])


# --- what does not fit, and what is not there ----------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_until_it_does(told, folder):
    """The GPU's answer to a batch that is too large, given here by a model that takes two."""
    narrow, sizes = teller(folder, batch=5), []
    answers = narrow.answers

    def limited(sheets, prompts):
        sizes.append(len(sheets))
        if len(sheets) > 2:
            raise torch.OutOfMemoryError
        return answers(sheets, prompts)

    narrow.answers = limited
    assert narrow.narrate(PASTS) == told[1]
    assert sizes == [5, 3, 2, 2, 1]


def test_a_model_that_does_not_fit_at_all_is_refused_before_it_is_loaded(llava, monkeypatch):
    from s2kd.narration.narrators import transformers

    monkeypatch.setattr(transformers, "free_memory", lambda device: 1000)
    message = (
        r"as float32 does not fit into the memory of cpu \(0\.\d GB of weights, 0\.0 GB free\)"
    )
    with pytest.raises(S2KDError, match=message):
        teller(llava).narrate(PASTS[:1])


def test_free_memory_is_a_number_of_bytes_here():
    from s2kd.narration.huggingface import free_memory

    free = free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
    assert free_memory(torch.device("meta")) is None


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(S2KDError, match=r"holds no config\.json, so it is not a model's folder"):
        teller(tmp_path).narrate(PASTS[:1])
    with pytest.raises(S2KDError, match=r"transformers: \./nowhere: no such folder"):
        teller("./nowhere").narrate(PASTS[:1])
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(S2KDError, match="could not be loaded"):
        teller(tmp_path).narrate(PASTS[:1])


def test_a_model_that_only_reads_is_refused(tmp_path):
    from transformers import BertConfig, BertModel

    small = BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    BertModel(small).save_pretrained(tmp_path)
    tiny_vlm.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(S2KDError, match="so it cannot answer about a picture"):
        teller(tmp_path).narrate(PASTS[:1])


def test_a_model_without_a_chat_template_is_refused(llava, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llava, base)
    (base / "chat_template.jinja").unlink()
    with pytest.raises(S2KDError, match="has no chat template; choose a chat model"):
        teller(base).narrate(PASTS[:1])


def test_a_torn_file_of_weights_is_refused(llava, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(llava, torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(S2KDError, match="could not be loaded"):
        teller(torn).narrate(PASTS[:1])


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


def test_a_model_that_cannot_be_fetched_is_told_with_the_way_out(tmp_path):
    code = OFFLINE.format(home=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert "'deepseek-community/deepseek-vl-1.3b-chat' could not be loaded from the Hugging" in line
    assert "hf download deepseek-community/deepseek-vl-1.3b-chat --local-dir FOLDER" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "float8"}, "dtype='float8' must be one of auto, float32"),
        ({"batch": 0}, "must be at least 1, got 16 and 0"),
        ({"modle": "x"}, "no setting 'modle'; did you mean 'model'"),
        ({"device": "gpu"}, "device='gpu' must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_wrong_settings_are_named(llava, settings, said):
    with pytest.raises(S2KDError, match=said):
        teller(llava, **settings).narrate(PASTS[:1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named(llava):
    with pytest.raises(S2KDError, match="PyTorch finds no GPU here"):
        teller(llava, device="cuda").narrate(PASTS[:1])
