"""Every command of the documents, executed on small data."""

import json
import re
import shlex
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from chat_server import ChatServer
from gridded import waves, write

from s2kd.cli import main

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {
    "teacher_training.epochs": 1,
    "student_training.epochs": 1,
    "text.name": "hashed",
    "text.params": {},
    "teacher.backbone": {"name": "unet", "params": {"width": 4}},
    "teacher.width": 8,
    "teacher.heads": 2,
    "students": [{"name": "unet", "params": {"width": 4}}],
}
"""Appended to every command that trains: the documents' settings stay as written."""
METHODS = {"methods": ["baseline", "s2kd"]}
"""Where the document leaves them to the recipe."""
WORLD = {"dataset.params.members": 4, "dataset.params.days": 20, "dataset.params.spin_up_days": 1}
ELSEWHERE = ("make", "python", "python3")
"""Programs that CI itself runs: a virtual environment, an installation, these tests."""


def commands(page: str) -> list[list[str]]:
    """The words of every command in the console blocks of a page, in order."""
    blocks = FENCE.findall((ROOT / page).read_text("utf-8"))
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


def small_settings(changes: dict) -> list[str]:
    return [word for key, value in changes.items() for word in ("--set", f"{key}={text(value)}")]


def text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def execute(words: list[str], changes: dict) -> int:
    """The exit status of one command; `s2kd` runs in this process."""
    program, verb, *rest = words
    if Path(program).name in ELSEWHERE:
        return 0
    assert Path(program).name == "s2kd", f"{program}: an unknown program"
    arguments = [verb, *rest]
    if verb == "distill":
        arguments = [
            "6s" if word.endswith("m") and word[:-1].isdigit() else word for word in arguments
        ]
        arguments += ["--students", "unet", "--sizes", "small"]
        arguments += [] if "--time" in arguments else ["--time", "6s"]
    if verb in ("compare", "distill", "demo") or "--minutes" in rest:
        arguments += small_settings(changes | WORLD if verb == "demo" else changes)
    if verb == "compare" and changes and not any("methods=" in word for word in rest):
        arguments += small_settings(METHODS)
    if "--minutes" in rest:
        # into results of its own: those of the repository are of the real data
        arguments += ["--minutes", "0.05", "--on", "ncep_air", "--results", "own-results"]
    if verb == "serve":
        return serve_once(arguments)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def serve_once(arguments: list[str]) -> int:
    """0 where the service answers; it is interrupted then."""
    pytest.importorskip("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answers = []

    def ask() -> None:
        while not answers:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/frames") as answer:
                answers.append(json.load(answer)["data_vars"])
            time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    Thread(target=ask, daemon=True).start()
    with pytest.raises(SystemExit):
        main([*arguments, "--port", str(port)])
    return 0 if answers and answers[0] else 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a file of one's own, FOLDER with stand-ins, and results of one."""
    write(waves(frames=200), tmp_path / "latest.nc")
    write(waves(frames=200) + 1.0, tmp_path / "archive.nc")
    (tmp_path / "heavy.py").write_text("def model(past):\n    return past.flip(1), past[:, 0]\n")
    (tmp_path / "FOLDER").mkdir()
    write(air(), tmp_path / "FOLDER" / "ncep_air_sig995_6h_2013_2014.nc")
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / "results" / "ncep_air-small-test.nc", tmp_path / "results")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def air() -> xr.Dataset:
    """Two years, 6-hourly, of a wave on 12×16 cells, named as the NCEP file."""
    ds = waves(frames=2920).rename(t2m="air", latitude="lat", longitude="lon")
    return ds.assign_coords(
        time=np.datetime64("2013-01-01") + np.arange(2920) * np.timedelta64(6, "h")
    )


@pytest.mark.slow
def test_the_readme(folder, capsys):
    changes = SMALL | {"stride": 60, "test_stride": 60}
    wants_gpu = 0 if torch.cuda.is_available() else 2
    for words in commands("README.md"):
        if "fetch" in words:  # `test_fetch` downloads from a local server
            continue
        status = execute(words, changes)
        expected = wants_gpu if "cuda" in words else 0
        assert status == expected, f"{shlex.join(words)}: {capsys.readouterr().err}"
    assert (folder / "forecast.nc").exists()
    for run in ("demo-atmosphere", "mine"):
        assert (folder / "runs" / run / "report.html").exists()
        assert list((folder / "runs" / run).glob("students/*/export/model.onnx"))
    assert (folder / "docs/results.md").exists()
    for words in [*commands("docs/deploy.md"), *commands("docs/serve.md")]:
        if words[1] != "distill":  # done above
            assert execute(words, {}) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"


def refused(words: list[str], changes: dict, capsys) -> None:
    """The command ends with exit status 2 and one sentence."""
    assert execute(words, changes) == 2, shlex.join(words)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("s2kd: "), message


@pytest.mark.slow
def test_the_page_on_narration(folder, capsys, monkeypatch):
    """All but what loads a model from a hub, which the tests of those parts do with tiny ones."""
    changes = {"stride": 200, "test_stride": 200, "text.name": "hashed"}
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        run = "runs/air"
        for number, words in enumerate(commands("docs/narration.md")):
            words = [word.replace("http://localhost:8000/v1", server.url) for word in words]
            line = shlex.join(words)
            if "transformers" in line or "pretrained" in line:
                continue
            settings = {} if "--verify" in words else changes
            if "narrator.name=recorded" in words:
                shutil.copy(folder / run / "narratives.jsonl", folder / "narratives.jsonl")
                texts = (
                    json.loads(row)
                    for row in (folder / "narratives.jsonl").read_text().splitlines()
                )
                rows = [{"window": row["window"], "text": row["text"]} for row in texts]
                pd.DataFrame(rows).to_csv(folder / "texts.csv", index=False)
            if "narrator.name=openai" in words:  # the page's alternatives have runs of their own
                run = f"runs/air{number}"
            out = run if "--verify" in words else f"runs/air{number}"
            words = [out if word == "runs/air" else word for word in words]
            words += small_settings(WORLD | settings if "demo" in words else settings)
            assert execute(words, {}) == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.slow
def test_the_page_on_data(folder, capsys):
    """An array of one's own is read to the end; what is not on this disk is refused.

    Downloads are left out: `test_fetch` has them from a local server.
    """
    rng = np.random.default_rng(0)
    np.save(folder / "smoke.npy", rng.normal(size=(160, 1, 12, 16)).astype(np.float32))
    assert execute(["s2kd", "data", "describe", "smoke.npy", "--json"], {}) == 0
    (folder / "recipe.json").write_text(capsys.readouterr().out)
    for words in commands("docs/data.md"):
        if "fetch" in words:
            continue
        local = {"smoke.npy", "recipe.json", "FAST/recipe.json"} & set(words)
        if words[0] == "python" or local:
            assert execute(words, SMALL) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
        else:
            refused(words, {}, capsys)


@pytest.mark.slow
def test_the_page_on_own_teachers(folder, capsys):
    """Labelled by a callable of one's own, and learned from."""
    for words in commands("docs/bring_your_own.md"):
        if "RECIPE" not in words:
            changes = SMALL | {"stride": 60, "test_stride": 60}
            assert execute(words, changes) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
    assert (folder / "runs" / "labelled" / "report.html").exists()


@pytest.mark.slow
def test_the_page_on_distilling(folder, capsys):
    """A plan, a search and a comparison of its recipe; the README's test learns from a capture."""
    for words in commands("docs/distill.md"):
        if "capture.zarr" in words:
            continue
        words = ["seeds=[42]" if word.startswith("seeds=") else word for word in words]  # shorter
        changes = SMALL | {"stride": 60, "test_stride": 60}
        assert execute(words, changes) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
        assert (folder / "runs/fast/answer.json").exists() == ("--plan" not in words)
    assert (folder / "runs/seeds/report.html").exists()
