import numpy as np
import pytest
import torch

from s2kd.core.files import read_json, sealed, write_json
from s2kd.core.recipe import Part, TeacherSpec
from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.checkpoint import Setting, build_teacher
from s2kd.narration.text.states import encode_states
from s2kd.narration.text.toys import Hashed
from s2kd.training.targets import LiveTargets, StoredTargets, store_targets

SPEC = TeacherSpec(
    backbone=Part(name="simvp", params={"spatial": 4, "temporal": 8, "blocks": 2, "expansion": 2}),
    width=16,
    heads=4,
    depth=1,
)
ALL = torch.arange(36)


class Pulled(Exception):
    """The plug."""


@pytest.fixture(scope="module")
def asked(blobs):
    """A teacher left in training mode, its windows and their words: 36 of them."""
    torch.manual_seed(0)
    setting = Setting(
        grid=blobs.grid, past=3, lead=2, statistics=statistics(blobs, lead=2), predict="change"
    )
    teacher = build_teacher(SPEC, setting, text_width=8, reads=True)
    windows = WindowDataset(blobs, "train", past=3, lead=2)
    texts = ["" if i % 5 == 0 else f"blob {i} drifts east {i % 3}" for i in range(36)]
    return teacher, windows, encode_states(texts, Hashed(width=8))


def store(folder, asked, **more):
    store_targets(folder, *asked, **{"key": "one", "batch_size": 5, **more})


@pytest.mark.parametrize("memory_bytes", [2**30, 0], ids=["memory", "disk"])
def test_what_is_stored_is_what_the_teacher_says(asked, tmp_path, memory_bytes):
    asked[0].train()
    store(tmp_path / "targets", asked)
    stored = StoredTargets(tmp_path / "targets", memory_bytes=memory_bytes)
    live = LiveTargets(*asked)
    for index in (ALL, torch.tensor([35, 0, 7, 0])):
        one, other = stored.gather(index, "cpu"), live.gather(index, "cpu")
        for view in ("latent", "forecast"):
            got, want = getattr(one, view), getattr(other, view)
            assert got.dtype == torch.float32
            # float16 keeps eleven bits; a batch of another size moves the last bit of float32
            torch.testing.assert_close(got, want, rtol=2**-10, atol=1e-4)


def test_the_forecast_is_in_the_normalisers_unit(asked, tmp_path):
    teacher, windows, states = asked
    store(tmp_path / "targets", asked)
    window = windows.gather(ALL)
    future = teacher.eval()(window.past, states.tokens(ALL)).future
    change = np.asarray(statistics(windows.dataset, lead=2).change)[:, None, None]
    want = ((future - window.past[:, -1:]).detach().numpy()) / change
    got = StoredTargets(tmp_path / "targets").gather(ALL, "cpu").forecast
    np.testing.assert_allclose(got, want, rtol=2**-10, atol=1e-3)


def test_only_the_views_asked_for_are_kept(asked, tmp_path):
    store(tmp_path / "targets", asked, views=("latent",))
    got = StoredTargets(tmp_path / "targets").gather(ALL, "cpu")
    assert got.latent.shape == (36, 16, 2, 2)
    assert got.forecast is None
    assert not (tmp_path / "targets" / "forecast.npy").exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("at", [1, 33, 35])
def test_a_store_that_was_killed_goes_on(asked, tmp_path, at):
    """Blocks of one window: the note is written after 32 of them, and at the end."""
    store(tmp_path / "whole", asked, batch_size=1)
    done = []

    def progress(count, total):
        done.append((count, total))
        if count == at:
            raise Pulled

    with pytest.raises(Pulled):
        store(tmp_path / "cut", asked, batch_size=1, progress=progress)
    # what is not whole is not read
    with pytest.raises(S2KDError, match=r"32 of 36 windows|no such file"):
        StoredTargets(tmp_path / "cut")
    done.clear()
    store(tmp_path / "cut", asked, batch_size=1, progress=lambda *said: done.append(said))
    first = 33 if at > 32 else 1
    assert done == [(count, 36) for count in range(first, 37)], "finished blocks are not redone"
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_whole_store_is_left_alone_and_a_stale_one_made_again(asked, tmp_path):
    folder, said = tmp_path / "targets", []
    progress = lambda *told: said.append(told)  # noqa: E731
    store(folder, asked)
    before = contents(folder)
    store(folder, asked, progress=progress)
    assert said == []
    assert contents(folder) == before
    # other words, under the key that names them
    teacher, windows, _ = asked
    flipped = torch.flip(torch.arange(36), (0,))
    reread = encode_states([f"text {i}" for i in flipped.tolist()], Hashed(width=8))
    store_targets(folder, teacher, windows, reread, key="two", batch_size=5, progress=progress)
    assert len(said) == 8
    again = contents(folder)
    assert again["latent.npy"] != before["latent.npy"]
    assert read_json(folder / "key.json")["key"] == "two"
    # another wish for views, or another version of the format, is stale too
    store_targets(folder, teacher, windows, reread, key="two", views=("latent",))
    assert set(contents(folder)) == {"key.json", "latent.npy"}
    note = read_json(folder / "key.json")
    write_json(folder / "key.json", sealed({**note, "format": 0}))
    said.clear()
    store_targets(folder, teacher, windows, reread, key="two", views=("latent",), progress=progress)
    assert said


@pytest.mark.parametrize("keep", [0, 60, -1])
@pytest.mark.parametrize("view", ["latent", "forecast"])
@pytest.mark.parametrize("memory_bytes", [2**30, 0], ids=["memory", "disk"])
def test_a_truncated_store_is_refused(asked, tmp_path, view, keep, memory_bytes):
    folder = tmp_path / "targets"
    store(folder, asked)
    path = folder / f"{view}.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(S2KDError, match="targets: truncated or not a store of targets"):
        StoredTargets(folder, memory_bytes=memory_bytes)


def test_a_missing_part_is_refused(asked, tmp_path):
    folder = tmp_path / "targets"
    store(folder, asked)
    (folder / "forecast.npy").unlink()
    with pytest.raises(S2KDError, match=r"truncated or not a store of targets.*forecast\.npy"):
        StoredTargets(folder)
    (folder / "key.json").unlink()
    with pytest.raises(S2KDError, match=r"key\.json: no such file"):
        StoredTargets(folder)


def test_a_torn_half_store_is_refused_when_going_on(asked, tmp_path):
    folder = tmp_path / "targets"
    store(folder, asked)
    note = read_json(folder / "key.json")
    write_json(folder / "key.json", sealed({**note, "done": 10}))
    path = folder / "latent.npy"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(S2KDError, match="truncated or not a store of targets"):
        store(folder, asked)


def test_a_frozen_teacher_is_in_evaluation_mode_and_learns_nothing(asked, tmp_path):
    teacher = asked[0]
    teacher.train().requires_grad_(True)
    store(tmp_path / "targets", asked)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.train().requires_grad_(True)
    said = LiveTargets(*asked).gather(ALL, "cpu")
    assert not teacher.training
    assert not said.latent.requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())
