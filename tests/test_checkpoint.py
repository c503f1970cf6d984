import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from s2kd.core.files import read_json, write_json
from s2kd.core.recipe import Part, TeacherSpec
from s2kd.core.saved import find_student
from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.deploy.forecaster import Forecaster
from s2kd.models.backbones.triton import Triton
from s2kd.models.checkpoint import (
    Setting,
    build_student,
    build_teacher,
    load_student,
    load_teacher,
    metadata_of,
    save_model,
    versions,
)
from s2kd.models.layers import parameter_count
from s2kd.models.normaliser import Normaliser
from s2kd.pipeline.contracts import narrative_tokens

PAST, LEAD = 3, 2
PART = Part(name="unet", params={"width": 4})
SPEC = TeacherSpec(
    backbone=Part(name="simvp", params={"spatial": 4, "temporal": 8, "blocks": 2, "expansion": 2}),
    width=16,
    heads=4,
    depth=2,
)


def scattered(model):
    """Every number away from its initial value, running statistics too."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape))
    return model.eval()


def setting_of(data, *, lead=LEAD, normalise="zscore", predict="change"):
    return Setting(
        grid=data.grid,
        past=PAST,
        lead=lead,
        statistics=statistics(data, lead=lead),
        normalise=normalise,
        predict=predict,
    )


def save_student(folder, data, *, seed=0, part=PART, predict="change", lead=LEAD, **origin):
    torch.manual_seed(seed)
    setting = setting_of(data, lead=lead, predict=predict)
    student = scattered(build_student(part, setting))
    about = {"dataset": {"name": "cf", "params": {}}, **origin}
    save_model(folder, student, metadata_of("student", part, setting, **about))
    return student


def save_teacher(folder, data, *, reads=True, spec=SPEC):
    torch.manual_seed(0)
    setting = setting_of(data, normalise="minmax", predict="frames")
    teacher = scattered(build_teacher(spec, setting, text_width=5, reads=reads))
    metadata = metadata_of("teacher", spec, setting, text_width=5, reads=reads)
    save_model(folder, teacher, metadata)
    return teacher


def past(data, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    grid = data.grid
    shape = (batch, PAST, len(grid.channels), grid.height, grid.width)
    return rng.standard_normal(shape).astype(np.float32)


# --- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", ["frames", "change"])
def test_a_student_comes_back_bit_for_bit(blobs, tmp_path, predict):
    student = save_student(tmp_path, blobs, predict=predict)
    torch.manual_seed(99)
    again, metadata = load_student(tmp_path)
    assert not again.training
    frames = torch.from_numpy(past(blobs))
    one, other = student(frames), again(frames)
    torch.testing.assert_close(other.future, one.future, rtol=0, atol=0)
    torch.testing.assert_close(other.latent, one.latent, rtol=0, atol=0)
    assert metadata["parameters"] == parameter_count(student)
    assert metadata["versions"] == versions()


@pytest.mark.parametrize("reads", [True, False])
def test_a_teacher_comes_back_bit_for_bit(blobs, tmp_path, reads):
    teacher = save_teacher(tmp_path, blobs, reads=reads)
    again, _ = load_teacher(tmp_path)
    assert again.reads == reads
    frames, read = torch.from_numpy(past(blobs, 3)), narrative_tokens()
    want = teacher(frames, read).future
    torch.testing.assert_close(again(frames, read).future, want, rtol=0, atol=0)


def test_a_grid_with_places_and_holes_comes_back(blobs, tmp_path):
    grid = replace(
        blobs.grid,
        latitude=tuple(np.linspace(70.1, -70.3, 8).tolist()),
        longitude=tuple(np.linspace(0.1, 315.3, 8).tolist()),
        mask=tuple(tuple(bool((r + c) % 3) for c in range(8)) for r in range(8)),
    )
    save_student(tmp_path, replace(blobs, grid=grid))
    assert Forecaster.load(tmp_path).grid == grid


def test_a_student_carries_nothing_of_its_teacher(blobs, tmp_path):
    """On the file itself: the backbone and the normaliser, and no other tensor."""
    student = save_student(tmp_path, blobs)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        keys = set(file.keys())
        sizes = {key: file.get_tensor(key).numel() for key in keys}
    foreign = ("teacher", "text", "project", "attend", "read.", "null", "blocks", "cells")
    assert [key for key in keys if any(word in key for word in foreign)] == []
    want = {f"backbone.{name}" for name in student.backbone.state_dict()}
    want |= {"normaliser.offset", "normaliser.scale", "normaliser.unit"}
    assert keys == want
    learned = {f"backbone.{name}" for name, _ in student.backbone.named_parameters()}
    assert sum(sizes[name] for name in learned) == parameter_count(student)
    # while the teacher's file has them, so the names above would have been seen
    save_teacher(tmp_path / "teacher", blobs)
    with safe_open(tmp_path / "teacher" / "model.safetensors", framework="pt") as file:
        told = " ".join(file.keys())
    for word in ("project", "attend", "read.", "null", "blocks", "cells"):
        assert word in told


def test_a_normaliser_made_by_hand_can_be_saved(blobs, tmp_path):
    student = save_student(tmp_path, blobs)
    student.normaliser = Normaliser(torch.zeros(1), torch.ones(1))
    save_model(tmp_path / "other", student, {"kind": "student"})


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 7, 300, -1])
def test_a_truncated_file_is_refused(blobs, tmp_path, keep):
    save_student(tmp_path, blobs)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(S2KDError, match=r"model\.safetensors: not the weights that"):
        load_student(tmp_path)


def test_one_changed_bit_is_refused(blobs, tmp_path):
    save_student(tmp_path, blobs)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(S2KDError, match=r"not the weights that model\.json beside it"):
        load_student(tmp_path)


def test_weights_exchanged_between_folders_are_refused(blobs, tmp_path):
    save_student(tmp_path / "one", blobs, seed=1)
    save_student(tmp_path / "two", blobs, seed=2)
    shutil.copy(tmp_path / "one" / "model.safetensors", tmp_path / "two" / "model.safetensors")
    with pytest.raises(S2KDError, match=r"two/model\.safetensors: not the weights that"):
        load_student(tmp_path / "two")


def test_altered_metadata_are_refused(blobs, tmp_path):
    save_student(tmp_path, blobs)
    metadata = read_json(tmp_path / "model.json")
    metadata["statistics"]["mean"][0] += 1.0
    write_json(tmp_path / "model.json", metadata)
    with pytest.raises(S2KDError, match=r"model\.json: was altered after it was written"):
        load_student(tmp_path)
    del metadata["digest"]
    metadata["part"]["params"]["width"] = 5
    write_json(tmp_path / "model.json", metadata)
    with pytest.raises(S2KDError, match="does not fit the model its metadata describes"):
        load_student(tmp_path)


def test_a_later_default_does_not_change_a_saved_model(blobs, tmp_path, monkeypatch):
    """Heads of Triton's small preset: 4 and 2 have the same weights and other forecasts."""
    part = Part(name="triton", params={"preset": "small"})
    student = save_student(tmp_path / "student", blobs, part=part)
    spec = TeacherSpec(backbone=part, width=16, heads=4)
    teacher = save_teacher(tmp_path / "teacher", blobs, spec=spec)
    frames = torch.from_numpy(past(blobs))
    preset = Triton.preset
    monkeypatch.setattr(
        Triton, "preset", staticmethod(lambda name, grid: {**preset(name, grid), "heads": 2})
    )
    changed = build_student(part, setting_of(blobs)).eval()
    changed.load_state_dict(student.state_dict())
    assert not torch.equal(changed(frames).future, student(frames).future)
    loaded, _ = load_student(tmp_path / "student")
    torch.testing.assert_close(loaded(frames).future, student(frames).future, rtol=0, atol=0)
    loaded, metadata = load_teacher(tmp_path / "teacher")
    assert metadata["part"]["backbone"]["params"]["layer_scale"] == 1e-2
    tokens = narrative_tokens(2)
    torch.testing.assert_close(
        loaded(frames, tokens).future, teacher(frames, tokens).future, rtol=0, atol=0
    )


def test_metadata_of_older_versions_are_read(blobs, tmp_path):
    """They hold the settings as given, and no digest."""
    student = save_student(tmp_path, blobs)
    metadata = read_json(tmp_path / "model.json")
    del metadata["digest"]
    metadata["part"]["params"] = {"width": 4}
    write_json(tmp_path / "model.json", metadata)
    frames = torch.from_numpy(past(blobs))
    loaded, _ = load_student(tmp_path)
    torch.testing.assert_close(loaded(frames).future, student(frames).future, rtol=0, atol=0)


def test_files_of_other_things_are_refused(blobs, tmp_path):
    with pytest.raises(S2KDError, match=r"no model\.json in it, so not the folder of a trained"):
        load_student(tmp_path)
    for content in ([1, 2], None, "x", {"format": "another", "kind": "student"}, {}):
        write_json(tmp_path / "model.json", content)
        with pytest.raises(S2KDError, match=r"model\.json: (not the model|holds no JSON object)"):
            load_student(tmp_path)
    (tmp_path / "model.json").write_text('{"format": "s2kd-mod')
    with pytest.raises(S2KDError, match=r"model\.json: not readable as JSON"):
        load_student(tmp_path)
    save_student(tmp_path, blobs)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(S2KDError, match="the model's folder is incomplete"):
        load_student(tmp_path)


def test_a_teacher_is_no_student_nor_the_other_way_round(blobs, tmp_path):
    save_teacher(tmp_path / "teacher", blobs)
    save_student(tmp_path / "student", blobs)
    with pytest.raises(S2KDError, match="holds a teacher; a student is wanted"):
        load_student(tmp_path / "teacher")
    with pytest.raises(S2KDError, match="holds a student; a teacher is wanted"):
        load_teacher(tmp_path / "student")


def test_the_card_is_written_last(blobs, tmp_path):
    """A folder with `model.json` is complete: where writing fails between the two, it has none."""
    with pytest.raises(TypeError):
        save_student(tmp_path, blobs, unwritable=object())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


# --- a student in use ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(blobs, tmp_path_factory):
    """A student, and the forecaster of its folder."""
    folder = tmp_path_factory.mktemp("student")
    student = save_student(folder, blobs)
    return student, Forecaster.load(folder)


@pytest.fixture(scope="module")
def forecaster(saved):
    return saved[1]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_beyond_its_lead_it_feeds_its_own_frames_back(blobs, saved, steps):
    frames, (student, loaded) = past(blobs), saved
    known = list(torch.from_numpy(frames).unbind(1))
    with torch.no_grad():
        while len(known) < PAST + steps:
            last = torch.stack(known[-PAST:], 1)
            known += student(last).future.unbind(1)
    want = torch.stack(known[PAST : PAST + steps], 1)
    np.testing.assert_array_equal(loaded.predict(frames, steps=steps), want)


def test_a_lead_longer_than_the_past_rolls_out_too(blobs, tmp_path):
    student = save_student(tmp_path, blobs, lead=5)
    forecaster, frames = Forecaster.load(tmp_path), past(blobs)
    with torch.no_grad():
        one = student(torch.from_numpy(frames)).future
        two = student(one[:, -PAST:]).future
    want = torch.cat([one, two], 1)[:, :8].numpy()
    np.testing.assert_array_equal(forecaster.predict(frames, steps=8), want)
    np.testing.assert_array_equal(forecaster.predict(frames), one)


def test_float64_and_views_will_do(blobs, forecaster):
    frames = past(blobs)
    want = forecaster.predict(frames)
    np.testing.assert_array_equal(forecaster.predict(frames.astype(np.float64)), want)
    np.testing.assert_array_equal(forecaster.predict(np.asfortranarray(frames)), want)
    assert want.shape == (2, LEAD, 1, 8, 8)
    assert want.dtype == np.float32


@pytest.mark.parametrize(
    ("spoil", "steps", "said"),
    [
        (lambda f: f[:, :2], 0, r"past has shape \(2, 2, 1, 8, 8\), this student takes \(batch, 3"),
        (lambda f: f[..., :7], 0, r"shape \(2, 3, 1, 8, 7\)"),
        (lambda f: f.repeat(2, 2), 0, r"shape \(2, 3, 2, 8, 8\)"),
        (lambda f: np.where(f > 1.5, np.nan, f), 0, r"\d+ of the input values are not finite"),
        (lambda f: np.full_like(f, np.inf), 0, "384 of the input values are not finite"),
        (lambda f: f, -1, "steps=-1: must be a whole number of frames, at least 1"),
    ],
)
def test_what_it_cannot_take_is_refused(blobs, forecaster, spoil, steps, said):
    with pytest.raises(S2KDError, match=said):
        forecaster.predict(spoil(past(blobs)), steps=steps)


def test_a_run_gives_the_student_asked_for_or_the_best(blobs, tmp_path):
    names = ("unet-a", "unet-b", "unet-c", "unet-c-seed42", "unet-c-seed43")
    for name, error in zip(names, (0.5, 0.25, 0.75, 0.9, 0.8), strict=True):
        save_student(tmp_path / "students" / name, blobs, validation=error)
    assert find_student(tmp_path).name == "unet-b"
    assert find_student(tmp_path, "unet-c").name == "unet-c"
    assert find_student(tmp_path, "unet-c-seed42").name == "unet-c-seed42"
    shutil.rmtree(tmp_path / "students" / "unet-c")
    assert find_student(tmp_path, "unet-c").name == "unet-c-seed43", "the better of its seeds"
    assert find_student(tmp_path / "students" / "unet-a").name == "unet-a"
    with pytest.raises(
        S2KDError,
        match=r"no student 'unet-d'; did you mean 'unet-.'\? \(there are unet-a, unet-b",
    ):
        find_student(tmp_path, "unet-d")
    with pytest.raises(S2KDError, match="no such folder"):
        find_student(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(S2KDError, match="holds no trained student"):
        find_student(tmp_path / "empty")


def test_the_card_is_plain_json_with_what_is_needed(blobs, tmp_path):
    save_student(tmp_path, blobs, method="s2kd", validation=0.5)
    metadata = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    want = {"format", "kind", "part", "grid", "past", "lead", "normalise", "predict", "statistics"}
    want |= {"parameters", "weights", "versions", "digest"}
    assert set(metadata) == want | {"dataset", "method", "validation"}
