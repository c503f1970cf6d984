import json
import os
import stat
import subprocess
import sys

import pytest

from s2kd.core.files import (
    check_seal,
    clear_parts,
    digest,
    read_json,
    whole_folder,
    write_json,
    write_sealed,
    write_text,
    write_whole,
)
from s2kd.core.types import S2KDError


class Pulled(Exception):
    """The plug."""


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "note.txt"
    write_text(path, "old")

    def fail(beside):
        beside.write_text("half")
        assert path.read_text() == "old"
        raise Pulled

    with pytest.raises(Pulled):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"], "something was left behind"
    write_text(path, "new ²")
    assert path.read_text(encoding="utf-8") == "new ²"


def test_the_writer_gets_a_path_in_the_same_folder(tmp_path):
    """A rename across file systems would be a copy, which can be interrupted."""
    seen = []
    write_whole(tmp_path / "a.bin", lambda beside: (seen.append(beside), beside.write_bytes(b"x")))
    assert seen[0].parent == tmp_path
    assert seen[0] != tmp_path / "a.bin"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "store"
    with pytest.raises(Pulled), whole_folder(path) as beside:  # noqa: PT012
        (beside / "half").write_text("x")
        raise Pulled
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    with whole_folder(path) as beside:
        (beside / "all").write_text("x")
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert (path / "all").read_text() == "x"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")]
    assert modes == [0o666 & ~mask, 0o777 & ~mask]


def test_parts_of_killed_writers_are_cleared_and_those_of_living_ones_are_not(tmp_path):
    (tmp_path / "models").mkdir()
    writer = "import os, sys, pathlib; from s2kd.core.files import write_whole, whole_folder\n"
    writer += "path = pathlib.Path(sys.argv[1])\n"
    writer += "with whole_folder(path / 'f'): write_whole(path / 'w', lambda p: os._exit(9))\n"
    subprocess.run([sys.executable, "-c", writer, str(tmp_path / "models")], check=False)
    assert len(list(tmp_path.rglob("*.part"))) == 2

    def clear(beside):
        clear_parts(tmp_path)
        assert list(tmp_path.rglob("*.part")) == [beside]
        beside.touch()

    write_whole(tmp_path / "mine", clear)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine", "models"]


def test_a_sealed_file_is_whole_whenever_its_writer_is_killed(tmp_path):
    """The old content passes after any number of writers that were killed before the rename."""
    path = tmp_path / "a"
    write_sealed(path, lambda file: file.write_text("old"))
    writer = """
import os, sys
from pathlib import Path
from s2kd.core.files import write_sealed
replace = Path.replace
Path.replace = lambda path, to: replace(path, to) if to.name[0] == "." else os._exit(9)
write_sealed(Path(sys.argv[1]), lambda file: file.write_text(sys.argv[2]))
"""
    for content in ("one", "two"):
        process = subprocess.run([sys.executable, "-c", writer, str(path), content], check=False)
        assert process.returncode == 9
        check_seal(path, "")
    write_sealed(path, lambda file: file.write_text("new"))
    check_seal(path, "")
    path.write_text("old")
    with pytest.raises(S2KDError, match="a: was altered after it was written; train again"):
        check_seal(path, "train again")


def test_json_survives(tmp_path):
    value = {"ä": [1, 2.5, None, True], "nested": {"x": "²"}}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize("content", [b'{"torn": [1, 2', b"", b"\xff\xfe\x00", b"{} trailing"])
def test_a_torn_json_is_named(tmp_path, content):
    path = tmp_path / "torn.json"
    path.write_bytes(content)
    with pytest.raises(S2KDError, match=r"torn\.json: not readable as JSON"):
        read_json(path)


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(S2KDError, match=r"gone\.json: no such file"):
        read_json(tmp_path / "gone.json")


def test_a_digest_depends_on_values_alone():
    one = {"a": [1, 2], "b": {"x": 0.1, "y": None}}
    other = {"b": {"y": None, "x": 0.1}, "a": [1, 2]}
    assert digest(one) == digest(other)
    # the same in every process and on every machine: caches are named by it
    assert digest([1, "ä"]) == "14306595e49b70c10c942c0c"
    assert digest(json.loads(json.dumps(one))) == digest(one)
    different = [one, {**one, "a": [2, 1]}, {**one, "b": {}}, [one], "1", 1, 1.5, None]
    assert len({digest(value) for value in different}) == len(different)
