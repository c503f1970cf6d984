"""Parts in files of the user's own: on the command line as it is installed, and by variable."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest
import road
from msgspec import structs

from s2kd.core.recipe import Part
from s2kd.core.registry import import_own
from s2kd.core.types import S2KDError
from s2kd.pipeline.recipes import BASELINE

PROGRAM = Path(sysconfig.get_path("scripts")) / "s2kd"

WAVES = """
import numpy as np
import xarray as xr
from s2kd.data import readers


@readers.register("waves")
def waves(*, length: int = 80) -> xr.Dataset:
    \"\"\"A wave that runs east.\"\"\"
    phase = np.arange(16) / 2 - np.arange(length)[:, None] / 4
    frames = np.repeat(np.sin(phase)[:, None], 16, axis=1).astype(np.float32)
    times = np.datetime64("2000-01-01", "ns") + np.arange(length) * np.timedelta64(1, "m")
    return xr.Dataset(
        {"height": (("time", "row", "column"), frames, {"units": "m"})},
        {"time": times},
        {"domain": "generic", "split": {"fractions": (0.6, 0.2, 0.2), "gap": 1}},
    )
"""


@pytest.mark.skipif(not PROGRAM.exists(), reason="s2kd is not installed")
def test_a_file_in_the_current_folder_is_checked(tmp_path):
    """The program's own folder is where Python looks first, not the current one."""
    (tmp_path / "waves.py").write_text(WAVES)
    done = subprocess.run(
        [PROGRAM, "check", "waves:waves", "--json"],
        cwd=tmp_path,
        env=road.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads(done.stdout)
    assert {row["part"] for row in rows} == {"readers:waves"}


def call(folder, *arguments, **environment):
    """Exit status and output of a process in which nothing has been imported before."""
    log = folder / "log.txt"
    process = road.start(list(arguments), log, folder=folder, environment=environment)
    process.join(120)
    return process.exitcode, log.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax (own.py:1)"),
        ("x = 1\nraise ValueError('boom')\n", "ValueError: boom (own.py:2)"),
        ("\nimport no_such_thing\n", "No module named 'no_such_thing' (own.py:2)"),
        ("import json\njson.loads('')\n", "(own.py:2)"),
        (None, "cannot import 'own': neither in "),
    ],
)
def test_what_is_wrong_with_a_module_is_one_sentence(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # and put back what the import leaves there
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(S2KDError) as refused:
        import_own("own")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_module_that_cannot_be_imported_is_refused_by_every_verb(tmp_path):
    (tmp_path / "own.py").write_text("raise ValueError('boom')")
    status, output = call(tmp_path, "list", "losses", S2KD_IMPORT="own")
    assert status == 2
    assert output == "s2kd: cannot import 'own': ValueError: boom (own.py:1)\n"


def test_every_verb_knows_the_parts_of_modules_that_the_environment_names(tmp_path):
    (tmp_path / "waves.py").write_text(WAVES)
    recipe = structs.replace(
        road.tiny(), dataset=Part(name="waves"), methods=(BASELINE,), student_training=road.QUICK
    )
    road.saved_recipe(tmp_path, recipe)
    status, output = call(tmp_path, "run", "tiny.json", "--out", "run")
    assert status == 2
    assert "no reader called 'waves'" in output
    assert "S2KD_IMPORT" in output
    train = ("run", "tiny.json", "--until", "distil", "--out", "run")
    for arguments in (train, ("evaluate", "run"), ("report", "run")):
        status, output = call(tmp_path, *arguments, S2KD_IMPORT=" waves ")
        assert status == 0, output
    assert (tmp_path / "run/report.html").exists()
