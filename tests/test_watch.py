"""A run that is watched: what its files say, at work, torn or ended; nothing is written."""

import io
import json
import os
import urllib.error
import urllib.request

import pytest
import road
from msgspec import structs
from rich.console import Console
from test_answer import answer

from s2kd.cli import main
from s2kd.cli.watch import served
from s2kd.core.files import write_json
from s2kd.evaluation.progress import curve_text, progress_table, read_progress

optuna = pytest.importorskip("optuna")
TrialState = optuna.trial.TrialState


def log(folder, values, *, torn="", finished=False, hints=0):
    folder.mkdir(parents=True)
    records = [{"epoch": e, "val": value, "hint": e < hints} for e, value in enumerate(values)]
    lines = [json.dumps(record) for record in records]
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines) + torn)
    if finished:
        (folder / "model.json").write_text("{}")


@pytest.fixture
def searching(tmp_path):
    """A search: a finished teacher, a pruned candidate, one at work, one in the plan alone."""
    out = tmp_path / "run"
    epochs = structs.replace(road.QUICK, epochs=9)
    recipe = structs.replace(road.tiny(), name="waves", student_training=epochs)
    write_json(out / "recipe.json", {"recipe": recipe.to_dict()})
    students = [{"name": f"unet-{size}", "excess": excess}
                for size, excess in (("small", ""), ("large", ""), ("paper", "9 ms"))]  # fmt: skip
    write_json(out / "search/plan.json", {"plan": {"students": students, "methods": ["s2kd"]}})
    journal = out / "search" / "journal.log"
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    storage = optuna.storages.JournalStorage(backend)
    for name in ("of less time", "of more time"):
        study = optuna.create_study(study_name=name, storage=storage)
        trial = study.ask()
        trial.set_user_attr("design", "unet-small s2kd")
        study.tell(trial, state=TrialState.FAIL if "less" in name else TrialState.PRUNED)
    study.ask().set_user_attr("design", "unet-large my-own")
    with journal.open("a") as file:
        file.write('{"op_code":8,"wor')
    trials = out / "search" / "trials"
    log(out / "teachers" / "text-seed3", [0.9, 0.3], finished=True)
    log(trials / "unet-small-s2kd-0123456789-seed3", [0.8, 0.5, 0.6])
    log(trials / "unet-large-my-own-abcdef0123-seed3", [0.7, 0.4], torn='{"epoch": 2, "val"')
    (out / "distill.log").write_text("first\nteacher: 2 of 2\n")
    return out


def contents(out):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in [out, *out.rglob("*")]}


def rows(out):
    return [line[:4] for line in progress_table(read_progress(out)).lines]


def test_a_search_at_work_is_what_its_files_say(searching):
    before = contents(searching)
    progress = read_progress(searching)
    assert (progress.name, progress.message, progress.ended) == ("waves", "teacher: 2 of 2", False)
    assert rows(searching) == [
        ("teacher", f"2 of {road.tiny().teacher_training.epochs}", "0.3000", "finished"),
        ("▸ U-Net large (my-own)", "2 of 9", "0.4000", "running"),
        ("U-Net small (S²-KD)", "3 of 9", "0.5000", "pruned"),
        ("U-Net large (S²-KD)", "0 of 9", "–", "waiting"),
    ]
    assert contents(searching) == before


def test_what_is_planned_waits(searching):
    (searching / "search" / "journal.log").unlink()
    plan = json.loads((searching / "search/plan.json").read_text())
    plan["plan"]["methods"] = ["s2kd", "baseline"]
    write_json(searching / "search/plan.json", plan)
    waiting = [line for line in rows(searching) if line[3] == "waiting"]
    assert [line[0] for line in waiting] == [
        f"U-Net {size} ({method})"
        for method in ("S²-KD", "no distillation")
        for size in ("small", "large")
        if (size, method) != ("small", "S²-KD")
    ]


def test_a_comparison_has_its_seeds(tmp_path):
    write_json(tmp_path / "recipe.json", {"recipe": road.tiny().to_dict()})
    for seed, value in ((1, 0.2), (2, 0.1)):
        folder = tmp_path / "students" / f"unet-s2kd-seed{seed}"
        log(folder, [0.01, value], finished=seed == 1, hints=1)  # a hint's error is no forecast's
    assert [(line[0], *line[2:]) for line in rows(tmp_path)] == [
        ("▸ U-Net (S²-KD), seed 2", "0.1000", "running"),
        ("U-Net (S²-KD), seed 1", "0.2000", "finished"),
    ]


def test_a_run_has_ended_when_its_report_is_of_all_its_files(searching):
    report = searching / "report.html"
    report.write_text("the report")
    newest = max(mtime for mtime, _ in contents(searching).values())
    os.utime(report, ns=(newest + 1, newest + 1))
    assert read_progress(searching).ended
    history = searching / "search/trials/unet-small-s2kd-0123456789-seed3/log.jsonl"
    os.utime(history, ns=(newest + 10**9,) * 2)
    assert not read_progress(searching).ended


def get(address):
    with urllib.request.urlopen(address) as answered:
        return answered.read().decode()


def test_the_page_renews_itself_until_it_is_the_report(searching, tmp_path):
    before = contents(searching)
    with served(searching, 0) as address:
        page = get(address)
        assert address.startswith("http://127.0.0.1:")
        assert '<meta http-equiv="refresh"' in page
        assert '<td data-label="Validation MSE">0.4000</td>' in page
        assert page.count("data:image/png") == 3  # teacher and two students
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{address}recipe.json")
        assert contents(searching) == before
        (searching / "report.html").write_text("the report")
        assert get(address) == "the report"
    with served(tmp_path / "none", 0) as address:
        assert "Waiting for a run" in get(address)


def watched(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["watch", *map(str, arguments)])
    shown = capsys.readouterr()
    return stopped.value.code or 0, shown.out, shown.err


def test_watch_prints_once_waits_for_no_ended_run_and_refuses_no_run(searching, capsys):
    status, shown, _ = watched(capsys, searching, "--once")
    assert (status, "0.4000" in shown, "pruned" in shown) == (0, True, True)
    write_json(searching / "answer.json", answer().to_dict())
    (searching / "report.html").write_text("the report")
    status, shown, _ = watched(capsys, searching)
    assert status == 0
    assert "75 % of the gap" in " ".join(shown.split())
    assert str(searching / "report.html") in shown.replace("\n", "")
    status, _, error = watched(capsys, searching / "search", "--once")
    assert status == 2
    assert "recipe.json" in error


def test_a_curve_is_logarithmic_and_ends_with_its_last_value():
    assert curve_text([100.0, 10.0, 1.0]) == "█▅▁"
    assert curve_text([1.0] * 3) == "▁▁▁"
    assert curve_text([]) == ""
    falling = curve_text([2.0**-n for n in range(200)])
    assert (falling[0], falling[-1], len(falling)) == ("█", "▁", 16)


def test_the_table_fits_a_terminal(searching):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(progress_table(read_progress(searching)))
    text = console.export_text()
    assert "…" not in text
    assert "█" in text
