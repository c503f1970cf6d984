"""The one memo of finished work: made once, continued after a stop, never overwritten."""

import pytest

from s2kd.core.files import digest, write_json
from s2kd.pipeline.kept import NOTE, is_kept, kept

INPUTS = {"data": "air", "seed": 42}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "targets" / "text"


def store(folder, calls, *, done=3):
    """Write a store of three windows, of which `done` are finished."""

    def make(key):
        calls.append((key, sorted(path.name for path in folder.iterdir())))
        write_json(folder / "key.json", {"key": key, "windows": 3, "done": done})

    return make


def test_a_result_is_made_once_per_inputs(folder):
    calls = []
    for _ in range(2):
        kept(folder, INPUTS, store(folder, calls))
    assert calls == [(digest(INPUTS), [NOTE])]
    assert is_kept(folder, INPUTS)
    assert not is_kept(folder, {**INPUTS, "seed": 7})
    assert not (folder / NOTE).exists()


def test_unfinished_work_of_the_same_inputs_is_continued(folder):
    calls = []
    kept(folder, INPUTS, store(folder, calls, done=1))
    assert not is_kept(folder, INPUTS)
    (folder / "latent.npy").touch()
    kept(folder, INPUTS, store(folder, calls))
    assert "latent.npy" in calls[-1][1]
    assert is_kept(folder, INPUTS)


def test_a_store_of_other_inputs_is_deleted_since_it_is_cheap(folder):
    calls, messages = [], []
    kept(folder, INPUTS, store(folder, calls))
    (folder / "latent.npy").touch()
    kept(folder, {"seed": 7}, store(folder, calls), say=messages.append)
    assert calls[-1] == (digest({"seed": 7}), [NOTE])
    assert messages == []


def test_a_checkpoint_of_other_inputs_is_set_aside_and_said(folder):
    messages = []
    for number in (1, 2):
        folder.mkdir(parents=True)
        (folder / "checkpoint.pt").write_text(f"weights {number}")
        write_json(folder / NOTE, {"key": f"other {number}"})
        kept(folder, INPUTS, store(folder, []), say=messages.append)
        aside = folder.parents[1] / "before" / f"text-{number}"
        assert (aside / "checkpoint.pt").read_text() == f"weights {number}"
        assert str(aside) in messages[-1]
        folder.rename(folder.with_name(f"new-{number}"))
