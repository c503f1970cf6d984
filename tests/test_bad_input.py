"""What a user can get wrong: one sentence, exit status 2, and nothing half-written."""

import contextlib
import errno
import json
import os
import shutil
import zlib
from pathlib import Path

import gridded
import numpy as np
import pytest
import road
from msgspec import structs
from worlds import world

from s2kd import pipeline
from s2kd.cli import main
from s2kd.core.console import first_process
from s2kd.core.recipe import Part, Term, method_named
from s2kd.pipeline.recipes import BASELINE


@pytest.fixture
def refused(capsys):
    """Call a verb that must fail; its one sentence."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert stopped.value.code == 2, said
        lines = said.err.strip().splitlines()
        assert [line for line in lines if line.startswith("s2kd: ")] == lines[-1:], said.err
        assert "Traceback" not in said.err
        assert said.out == ""
        return lines[-1]

    return call


@pytest.fixture
def run_refused(refused, tmp_path):
    """`s2kd run WHAT --out DIR` must fail and leave no DIR behind."""

    def call(what: object, *arguments: object) -> str:
        out = tmp_path / "out"
        sentence = refused("run", what, "--out", out, *arguments)
        assert not out.exists(), f"left {list(out.rglob('*'))}"
        return sentence

    return call


@pytest.fixture
def file(tmp_path):
    return gridded.write(gridded.waves(), tmp_path / "waves.nc")


# --- files ---------------------------------------------------------------------------------------


def test_a_missing_file(run_refused, tmp_path):
    sentence = run_refused(tmp_path / "no.nc")
    assert "no.nc" in sentence
    assert "no such file" in sentence


@pytest.mark.parametrize("keep", [0, 100, 5000, -100])
def test_a_truncated_file(run_refused, file, keep):
    whole = file.read_bytes()
    file.write_bytes(whole[:keep] if keep else b"")
    assert "waves.nc" in run_refused(file)


@pytest.mark.parametrize("name", ["notes.txt", "notes.nc", "notes.grib", "photo.png", "notes.zarr"])
def test_what_is_not_gridded(run_refused, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(_png() if name.endswith("png") else b"Dear diary,\n")
    assert name in run_refused(path)


def _png() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]))
    return (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    )


def test_a_file_without_a_field_that_moves(run_refused, tmp_path):
    path = gridded.write(gridded.waves().isel(time=0, drop=True), tmp_path / "still.nc")
    assert "still.nc" in run_refused(path)


def test_a_variable_that_is_not_there(run_refused, file):
    sentence = run_refused(file, "--set", 'dataset.params.variables=["t2n"]')
    assert "t2n" in sentence
    assert "t2m" in sentence, "those that are there are listed"


def test_too_few_frames(run_refused, tmp_path):
    path = gridded.write(gridded.waves(6), tmp_path / "short.nc")
    assert "short" in run_refused(path)
    path = gridded.write(gridded.waves(), tmp_path / "long.nc")
    assert "500" in run_refused(path, "--set", "past=500")


def test_values_that_are_missing(run_refused, tmp_path):
    waves = gridded.waves()
    waves["t2m"][7, 2, 3:5] = np.nan
    path = gridded.write(waves, tmp_path / "holes.nc")
    sentence = run_refused(path, "--set", "keep.missing=error")
    assert "t2m" in sentence
    assert "2 " in sentence, "how many"
    assert "missing" in sentence, "which setting helps"
    assert "2020-01-02" in sentence, "where"


def test_a_step_that_is_not_even(run_refused, tmp_path):
    waves = gridded.waves()
    waves["time"] = waves["time"] + np.random.default_rng(0).integers(0, 9**12, 60).cumsum().astype(
        "timedelta64[ns]"
    )
    path = gridded.write(waves, tmp_path / "uneven.nc")
    assert "uneven.nc" in run_refused(path)


# --- settings and names --------------------------------------------------------------------------


def test_a_setting_misspelt(run_refused):
    sentence = run_refused("demo", "--set", "student_training.lrr=1")
    assert "did you mean 'lr'?" in sentence


def test_a_setting_of_a_part_misspelt(run_refused):
    sentence = run_refused("demo", "--set", "teacher.backbone.params.widht=3")
    assert "did you mean 'width'?" in sentence


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("seeds", "PATH=VALUE"),
        ("seeds=[42,42]", "twice"),
        ("past=two", "int"),
        ("past=0", ">= 1"),
        ("student_training.schedule=linear", "plateau"),
        ("students.unett.params.width=3", "unet"),
        ("=3", ""),
        ("predict=wishes", "change"),
        ("normalise=loudly", "zscore"),
        ("students.0.params.width=wide", "width: wants int, got 'wide'"),
    ],
)
def test_a_setting_that_cannot_be(run_refused, setting, hint):
    assert hint in run_refused("demo", "--set", setting)


@pytest.mark.parametrize(
    "option", [("--preset", "small"), ("--world", "plume"), ("--data", "folder")]
)
def test_an_option_that_nothing_would_read(refused, run_refused, file, mine, tmp_path, option):
    told = f"{option[0]} {option[1]}: is an option of built-in recipes"
    for what in (file, road.saved_recipe(tmp_path)):
        sentence = run_refused(what, *option)
        assert told in sentence
        assert str(what) in sentence
    before = road.content(mine)
    assert told in refused("run", "--out", mine, *option)
    assert road.content(mine) == before


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("precision", "garbage", "must be one of 32-true, 16-mixed, bf16-mixed"),
        ("precision", "bf16-true", "must be one of 32-true"),
        ("devices", "0", "must be at least 1"),
        ("nodes", "0", "must be at least 1"),
        ("accelerator", "garbage", "not on this machine"),
        ("accelerator", "tpu", "not on this machine"),
        ("strategy", "garbage", "not on this machine"),
    ],
)
def test_a_machine_that_cannot_be(run_refused, tmp_path, option, value, hint):
    said = run_refused(road.saved_recipe(tmp_path), f"--{option}", value)
    assert f"--{option} {value}" in said
    assert hint in said


def test_a_recipe_that_is_not_there(run_refused):
    assert "did you mean 'demo'?" in run_refused("dmeo")


@pytest.mark.parametrize(
    ("path", "value", "near"),
    [
        ("dataset.name", "blob", "blobs"),
        ("narrator.name", "rule", "rules"),
        ("text.name", "hash", "hashed"),
        ("teacher.backbone.name", "simvpp", "simvp"),
    ],
)
def test_a_part_that_is_not_there(run_refused, tmp_path, path, value, near):
    recipe = road.saved_recipe(tmp_path)
    assert f"did you mean {near!r}" in run_refused(recipe, "--set", f"{path}={value}")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"name": "x"}', '{"naem": "x"}', "3", '{"recipe": null}']
)
def test_a_recipe_file_of_something_else(run_refused, tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    assert "recipe.json" in run_refused(tmp_path / "recipe.json")


def test_a_built_in_recipe_without_its_data(run_refused, tmp_path):
    assert "--data" in run_refused("ncep_air")
    assert "nowhere" in run_refused("ncep_air", "--data", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("run", "demo", "--out", "x", "--until", "train"), "narrate, teach, distil"),
        (("list", "backbone"), "did you mean 'backbones'?"),
        (("check", "unett"), "did you mean 'unet'?"),
        (("check", "no.such.module:name"), "no.such.module"),
        (("data", "describe", "no.nc"), "no such file"),
        (("report", "nowhere"), "nowhere"),
        (("evaluate", "nowhere"), "nowhere"),
        (("diagnose", "nowhere"), "nowhere"),
        (("forecast", "nowhere", "x.nc", "--out", "y.nc"), "nowhere"),
        (("export", "nowhere"), "nowhere"),
        (("reproduce", "tabel1"), "did you mean 'table1'?"),
        (("reproduce", "--results", "nowhere"), "nowhere"),
        (("reproduce", "--plan"), "--plan needs --data FOLDER"),
        (("reproduce", "--minutes", "9"), "--minutes needs --data FOLDER"),
        (("reproduce", "--set", "stride=2"), "--set needs --data FOLDER"),
        (("reproduce", "--preset", "paper"), "--preset needs --data FOLDER"),
        (("reproduce", "--seeds", "42"), "--seeds needs --data FOLDER"),
        (("reproduce", "--data", "nowhere"), "nowhere"),
        (("reproduce", "--data", ".", "--on", "ncep_airr"), "no data set 'ncep_airr'"),
        (("reproduce", "--data", ".", "--seeds", "a"), "--seeds a"),
        (("reproduce", "--narratives", "x=y"), "--narratives"),
    ],
)
def test_a_word_that_is_not_known(refused, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    assert hint in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


_NO_GROUPS = Part(name="unet", params={"norm": "layers"})
_WRONG_AXES = structs.replace(
    method_named("s2kd"), terms=(Term(loss=Part(name="spectral", params={"axes": "rows"})),)
)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("students", (Part(name="unet", params={"width": 0}),), "width: wants int >= 1, got 0"),
        ("students", (Part(name="resnet", params={"norm": "none"}),), "norm"),
        ("teacher", structs.replace(road.TEACHER, backbone=_NO_GROUPS), "norm"),
        ("methods", (method_named("relational"),), "at least 3 a process, not 2"),
        ("methods", (_WRONG_AXES,), "axes: must be one of grid"),
    ],
)
def test_models_that_cannot_be_built_are_refused_before_a_word_is_written(
    refused, tmp_path, field, value, hint
):
    quick = structs.replace(road.QUICK, batch_size=2)
    recipe = structs.replace(road.tiny(), student_training=quick, **{field: value})
    out = tmp_path / "out"
    assert hint in refused("run", road.saved_recipe(tmp_path, recipe), "--out", out)
    assert not out.exists()


def test_diagnose_wants_windows_and_a_teacher(refused, done, tmp_path):
    assert "--windows 0" in refused("diagnose", done, "--windows", "0")
    alone = structs.replace(road.tiny(), methods=(BASELINE,))
    pipeline.open_run(alone, tmp_path / "run")
    assert "nothing that a student could agree with" in refused("diagnose", tmp_path / "run")


# --- folders -------------------------------------------------------------------------------------


def test_the_folder_of_another_recipe(refused, mine, tmp_path):
    before = road.content(mine)
    recipe = road.saved_recipe(tmp_path, road.tiny().with_settings(["past=4"]))
    assert "differs in past" in refused("run", recipe, "--out", mine)
    assert {**road.content(mine), ".lock": b""} == {**before, ".lock": b""}


def test_a_folder_that_is_a_file(refused, tmp_path):
    recipe = road.saved_recipe(tmp_path)
    (tmp_path / "letter").write_text("mine")
    assert "letter" in refused("run", recipe, "--out", tmp_path / "letter")
    assert "letter" in refused("run", recipe, "--out", tmp_path / "letter/run")
    assert (tmp_path / "letter").read_text() == "mine"


def test_a_folder_that_is_not_ours(refused, tmp_path):
    recipe = road.saved_recipe(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("mine")
    assert "not empty" in refused("run", recipe, "--out", theirs)
    assert [p.name for p in theirs.iterdir()] == ["letter.txt"]


def test_two_runs_in_one_folder_at_once(refused, mine, tmp_path):
    recipe = road.saved_recipe(tmp_path)
    with pipeline.locked(mine):
        assert "another run" in refused("run", recipe, "--out", mine)
    assert (mine / "report.html").exists()


def test_tasks_that_work_each_by_itself_do_not_share_a_lock(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert not first_process(), "one speaks for all"
    assert not first_process(4)
    assert not first_process(-1)
    with pipeline.locked(tmp_path), pytest.raises(pipeline.Busy), pipeline.locked(tmp_path):
        pass
    with pipeline.locked(tmp_path), pipeline.locked(tmp_path, 4):
        pass


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK"])
def test_the_further_processes_of_a_run_are_quiet_and_do_not_stop_at_its_lock(
    mine, monkeypatch, name
):
    with pipeline.locked(mine):
        monkeypatch.setenv(name, "0")
        assert first_process()
        with pytest.raises(pipeline.Busy), pipeline.locked(mine):
            pass
        monkeypatch.setenv(name, "1")
        assert not first_process()
        with pipeline.locked(mine):
            pass


# --- models --------------------------------------------------------------------------------------


@pytest.fixture
def latest(tmp_path):
    """The last frames of the tiny world, as a file that its student can forecast from."""
    import xarray as xr

    dataset = world("blobs", **road.tiny().dataset.params)
    frames = xr.Dataset(
        {"density": (("time", "y", "x"), dataset.frames[-6:, 0], {"units": "1"})},
        coords={"time": dataset.times[-6:]},
    )
    return gridded.write(frames, tmp_path / "latest.nc")


@pytest.fixture
def forecast_refused(refused, mine, tmp_path):
    def call(latest: object, *arguments: object, out: str = "forecast.nc") -> str:
        sentence = refused("forecast", mine, latest, "--out", tmp_path / out, *arguments)
        assert not (tmp_path / out).exists()
        assert not list(tmp_path.glob(".*part*"))
        return sentence

    return call


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_student(forecast_refused, mine, latest, keep):
    for path in mine.glob("students/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors" in forecast_refused(latest)


def test_the_weights_of_another_student(forecast_refused, mine, latest):
    one, other = (mine / f"students/unet-{name}-seed42" for name in ("baseline", "s2kd"))
    shutil.copy(one / "model.safetensors", other / "model.safetensors")
    sentence = forecast_refused(latest, "--student", "unet-s2kd-seed42")
    assert "not the weights" in sentence


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"hello": 1}', '{"format": "s2kd-model-1"}', "null"]
)
def test_a_card_of_something_else(forecast_refused, refused, mine, latest, text):
    for path in mine.glob("students/*/model.json"):
        path.write_text(text)
    assert "model.json" in forecast_refused(latest)
    assert "model.json" in refused("export", mine)


def test_a_student_that_is_not_there(forecast_refused, latest):
    sentence = forecast_refused(latest, "--student", "unet-mixup")
    assert "unet-s2kd-seed42" in sentence


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint(refused, mine, tmp_path, keep):
    folder = mine / "students/unet-s2kd-seed42"
    key = json.loads((folder / "model.json").read_text())["key"]
    (folder / "training.json").write_text(json.dumps({"key": key}))
    (folder / "checkpoint.pt").write_bytes((folder / "model.safetensors").read_bytes()[:keep])
    (folder / "model.json").unlink()
    sentence = refused("run", road.saved_recipe(tmp_path), "--out", mine)
    assert "checkpoint.pt" in sentence
    assert "delete it" in sentence


@pytest.mark.parametrize("name", ["narratives.jsonl", "scores/test.nc", "states/train.safetensors"])
def test_a_file_of_the_run_that_was_overwritten(refused, mine, tmp_path, name):
    (mine / name).write_text("Dear diary,\n" * 3)
    again = ("run", road.saved_recipe(tmp_path), "--out", mine)
    verb = ("report", mine) if name == "scores/test.nc" else again
    assert name.split("/")[-1] in refused(*verb)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wider", "16×20"),
        ("celsius", "degC"),
        ("renamed", "density"),
        ("short", "2 frames"),
        ("slower", "7200"),
        ("holes", "density"),
    ],
)
def test_frames_that_the_student_does_not_know(forecast_refused, latest, tmp_path, name, hint):
    import xarray as xr

    with xr.open_dataset(latest) as opened:
        frames = opened.load()
    match name:
        case "wider":
            frames = frames.pad(x=(0, 4), mode="edge")
        case "celsius":
            frames["density"].attrs["units"] = "degC"
        case "renamed":
            frames = frames.rename(density="pressure")
        case "short":
            frames = frames.isel(time=slice(0, 2))
        case "slower":
            hours = np.arange(6) * np.timedelta64(2, "h")
            frames["time"] = np.datetime64("2020-01-01", "ns") + hours
        case "holes":
            frames["density"][-1, 3, 3] = np.nan
    sentence = forecast_refused(gridded.write(frames, tmp_path / f"{name}.nc"))
    assert f"{name}.nc" in sentence
    assert hint in sentence


def test_a_forecast_from_what_is_no_file_of_frames(forecast_refused, tmp_path):
    (tmp_path / "notes.nc").write_text("Dear diary,\n")
    assert "notes.nc" in forecast_refused(tmp_path / "notes.nc")
    assert "no.nc" in forecast_refused(tmp_path / "no.nc")


@pytest.mark.parametrize("out", ["forecast.csv", "forecast", "forecast.nc4x"])
def test_a_forecast_with_another_ending(forecast_refused, latest, out):
    assert ".zarr" in forecast_refused(latest, out=out)


@pytest.mark.parametrize("steps", ["-1", "0"])
def test_a_forecast_of_no_steps(forecast_refused, latest, steps):
    assert f"steps={steps}: must be" in forecast_refused(latest, "--steps", steps)


# --- disks ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [25, 60])
def test_a_disk_that_fills(tmp_path, kilobytes):
    """A limit on the size of a file: real writes fail, in whichever library meets it first."""
    pytest.importorskip("resource")
    out, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = ["run", str(road.saved_recipe(tmp_path)), "--out", str(out), "--save-every", "0"]
    process = road.start(arguments, log, largest_file=kilobytes * 1024)
    process.join(180)
    said = log.read_text()
    assert process.exitcode == 2, said
    assert said.strip().splitlines()[-1].startswith("s2kd: the disk is full")
    assert "Traceback" not in said
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("name", ["forecast.nc", "forecast.zarr"])
def test_a_forecast_onto_a_full_disk(forecast_refused, latest, monkeypatch, name):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "disk is full" in forecast_refused(latest, out=name)


@pytest.mark.parametrize(
    ("out", "hint"),
    [("letter/f.nc", "letter: is a file"), ("/proc/none/f.nc", "/proc/none: no such")],
)
def test_a_place_where_no_forecast_can_lie(forecast_refused, latest, tmp_path, out, hint):
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("no folder where even the superuser can make nothing")
    (tmp_path / "letter").write_text("mine")
    assert hint in forecast_refused(latest, out=out)
    assert (tmp_path / "letter").read_text() == "mine"


@pytest.mark.parametrize("place", ["letter", "letter/student"])
def test_a_place_where_no_export_can_lie(refused, done, tmp_path, place):
    (tmp_path / "letter").write_text("mine")
    assert tmp_path.name in refused("export", done, "--out", tmp_path / place)


def test_a_folder_that_may_not_be_written(refused, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o500)
    with contextlib.ExitStack() as stack:
        stack.callback(theirs.chmod, 0o700)
        assert "permission" in refused("run", road.saved_recipe(tmp_path), "--out", theirs / "run")
