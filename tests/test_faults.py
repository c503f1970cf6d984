"""Altered files are never used unnoticed: one byte flipped in every kind of artefact of a run."""

import random
import shutil

import numpy as np
import pytest
import road
import torch
from msgspec import structs
from worlds import world

from s2kd import pipeline
from s2kd.core.files import read_json
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.data import prepare
from s2kd.data.store import open_store
from s2kd.evaluation.progress import read_progress
from s2kd.models.checkpoint import load_student, load_teacher
from s2kd.narration.store import read_texts
from s2kd.narration.text.states import TextStates
from s2kd.training.targets import StoredTargets

STUDENT, TEACHER = "students/unet-s2kd-seed42", "teachers/text-seed42"
TARGETS = "targets/text-seed42"
BLOBS = Part(name="blobs", params={"size": 8, "runs": 3, "length": 12})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of one student, and the same data prepared."""
    out = tmp_path_factory.mktemp("faults") / "run"
    road.walk(structs.replace(road.tiny(), methods=road.tiny().methods[-1:]), out)
    prepare(BLOBS, out / "prepared")
    return out


def _model(load, folder):
    model, metadata = load(folder)
    # but for the digest, the last field: by another name, the file is one of earlier versions
    return [dict(list(metadata.items())[:-1]), *model.state_dict().values()]


def _targets(folder):
    stored = StoredTargets(folder)
    target = stored.gather(torch.arange(read_json(folder / "key.json")["windows"]), "cpu")
    return [target.latent, target.forecast]


def _states(path):
    states = TextStates.load(path)
    return [states.values, states.offsets, states.index, states.key]


def _prepared(folder):
    stored = open_store(folder, memory_gb=0.0)
    return [stored.frames[0 : stored.frames.shape[0]], stored.times, stored.grid, stored.splits]


READERS = {
    "recipe.json": lambda run: [pipeline.load_recipe(run)],
    "narratives.jsonl": lambda run: [read_texts(run / "narratives.jsonl")],
    "states/val.safetensors": lambda run: _states(run / "states/val.safetensors"),
    f"{TARGETS}/key.json": lambda run: _targets(run / TARGETS),
    f"{TARGETS}/latent.npy": lambda run: _targets(run / TARGETS),
    f"{TARGETS}/forecast.npy": lambda run: _targets(run / TARGETS),
    f"{TEACHER}/model.json": lambda run: _model(load_teacher, run / TEACHER),
    f"{STUDENT}/model.json": lambda run: _model(load_student, run / STUDENT),
    f"{STUDENT}/model.safetensors": lambda run: _model(load_student, run / STUDENT),
    f"{STUDENT}/log.jsonl": lambda run: [read_progress(run).trainings],
    "scores/test.nc": lambda run: list(pipeline.read_scores(run)["test"].to_dict().items()),
    "prepared/prepared.json": lambda run: _prepared(run / "prepared"),
    "prepared/times.npy": lambda run: _prepared(run / "prepared"),
    "prepared/frames.npy": lambda run: _prepared(run / "prepared"),
}


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) if isinstance(a, np.ndarray | torch.Tensor) else str(a) == str(b)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_byte_is_never_used_unnoticed(finished, name):
    """It is refused by the file's name, or it changes nothing that is read (a space of JSON)."""
    path, chance = finished / name, random.Random(name)
    content, before = path.read_bytes(), READERS[name](finished)
    refused = silent = 0
    try:
        # but for the last byte: narratives whose last line has no end are written again
        for place in [0, len(content) - 2, *chance.sample(range(len(content)), 20)]:
            altered = bytearray(content)
            altered[place] ^= chance.randrange(1, 256)
            path.write_bytes(altered)
            try:
                assert equal(READERS[name](finished), before), f"byte {place}"
            except S2KDError as error:
                refused += path.name in str(error) or path.parent.name in str(error)
            else:
                silent += 1
    finally:
        path.write_bytes(content)
    assert refused >= 10
    assert refused + silent == 22, "the sentence does not name the file"
    assert equal(READERS[name](finished), before)


@pytest.mark.parametrize("content", ["null", "[]", '"x"', '{"recipe": 3, "format": 1}', "[" * 9999])
@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
def test_something_else_than_the_object_is_one_sentence(finished, name, content):
    path = finished / name
    before = path.read_bytes()
    path.write_text(content)
    try:
        with pytest.raises(S2KDError, match=path.name):
            READERS[name](finished)
    finally:
        path.write_bytes(before)


@pytest.fixture
def mine(finished, tmp_path):
    return road.copy_of(finished, tmp_path / "run")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def again(out):
    return road.walk(pipeline.load_recipe(out), out)


def test_damaged_weights_are_trained_again_and_damaged_scores_made_again(finished, mine):
    flip(mine / STUDENT / "model.safetensors")
    flip(mine / "scores/test.nc")
    stages = again(mine)
    assert f"train {STUDENT.rpartition('/')[2]}" in stages
    assert "score unet-s2kd-seed42 on test" in stages
    assert road.weights(finished).items() <= road.weights(mine).items()
    assert (mine / "before/unet-s2kd-seed42-1/model.safetensors").exists()


def test_a_damaged_checkpoint_is_refused_before_torch_reads_it(mine):
    class Killed(Exception):
        pass

    def kill(record):
        raise Killed

    shutil.rmtree(mine / STUDENT)
    recipe = pipeline.load_recipe(mine)
    with pytest.raises(Killed):
        pipeline.run_all(pipeline.open_run(recipe, mine, on_epoch=kill))
    path = mine / STUDENT / "checkpoint.pt"
    content, chance = path.read_bytes(), random.Random(0)
    for place in chance.sample(range(len(content)), 3):
        altered = bytearray(content)
        altered[place] ^= chance.randrange(1, 256)
        path.write_bytes(altered)
        with pytest.raises(S2KDError, match=r"checkpoint\.pt: was altered .*delete it to train"):
            again(mine)
    path.write_bytes(content)
    assert f"train {path.parent.name}" in again(mine)


def test_a_prepared_file_is_that_of_its_source(finished):
    stored = open_store(finished / "prepared")
    assert stored.fingerprint == world("blobs", **BLOBS.params).fingerprint
