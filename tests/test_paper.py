"""Tables, figures and the page of results, from made-up scores."""

import json

import numpy as np
import pytest
import xarray as xr
from made_scores import RECIPE, model, results_of, some_models, teacher

from s2kd.core.types import S2KDError
from s2kd.evaluation.results import save_search
from s2kd.evaluation.significance import Estimate
from s2kd.paper import figures, page, tables
from s2kd.paper.experiment import experiment, experiments, full_grid_teacher, longer_training
from s2kd.paper.studies import ABLATION, FULL_GRID, LONG_TRAINING

WHERE = {"data": "ncep_air", "preset": "small"}


def main(models):
    return experiment(results_of(models), **WHERE)


def lines_of(table, student="U-Net"):
    return {line[1]: line for line in table.lines if line[0] == student}


def test_the_papers_claim_is_in_its_own_tables():
    shares = [tables.published(t)["share"]["unet"] for t in ("table1", "table2", "table3")]
    # (0.0831 - 0.0698) / (0.0831 - 0.0683), and so on
    assert [s["s2kd"] for s in shares] == pytest.approx([89.86, 95.60, 89.41], abs=0.01)
    assert [s["fitnet"] for s in shares] == pytest.approx([44.59, 30.77, 31.76], abs=0.01)
    assert tables.published("table2")["gain"]["unet", "semantic"] == pytest.approx(6.87, abs=0.01)
    assert ("unet", "review") not in tables.published("table1").index


def test_the_main_table_holds_gains_shares_verdicts_and_published_numbers():
    table = tables.main_table(main(some_models()), title="t", beside="table1")
    row = dict(zip(table.head[:11], lines_of(table)["S²-KD"], strict=False))
    assert row["MSE"].startswith("**0.9000 ±")
    assert row["gain over baseline %"].startswith("+10.0 [")
    assert row["gap closed %"].startswith("+83 [")  # 0.1 of 0.12
    assert row["verdict"] == "better"
    assert lines_of(table)["S²-KD"][11:] == ("+16", "+90", "5")
    assert "**" not in lines_of(table)["FitNet"][4]
    assert lines_of(table, "SimVP")["teacher (narratives)"][4].startswith("0.8800")
    assert "200 windows" in table.caption
    assert "seeds: 5" in table.caption
    assert len(table.markdown().splitlines()) == len(table.lines) + 6


@pytest.mark.parametrize(
    ("errors", "reached", "twice"),
    [
        ({"s2kd": 0.885, "fitnet": 0.97}, "yes", "yes"),
        ({"s2kd": 0.94, "fitnet": 0.95}, "no", "no"),
        ({"s2kd": 0.892}, "undecided", "yes"),
        ({"s2kd": 1.04, "fitnet": 1.2}, "no", "no"),  # -1 is more than twice -5, yet no gain
        ({"teacher_mse": 1.2}, "undecided", "yes"),  # no gap to share
    ],
)
def test_the_short_table_decides_both_claims_by_the_interval(errors, reached, twice):
    (line,) = tables.short_table([main(some_models(**errors))]).lines
    assert line[4:6] == (reached, twice)


def test_models_of_two_recipes_are_not_compared():
    models = some_models()
    assert main(models).table["seeds"].tolist() == [1, 5, 5, 5, 5]
    other = {"students": [{"name": "unet", "params": {"width": 16}}]}
    for change, message in (
        ({"recipe": RECIPE | {"teacher_training": {"epochs": 28}}}, "teacher_training.epochs=28"),
        ({"recipe": RECIPE | other}, "students.unet=.*'width': 16"),
        ({"fingerprint": "y"}, "fingerprint=y: not to be"),
    ):
        with pytest.raises(S2KDError, match=message):
            main([*models, model("s2kd", 0.9, 9, **change)])
    with pytest.raises(S2KDError, match="no results of taxi_sf"):
        experiment(results_of(models), data="taxi_sf", preset="small")


def test_longer_training_and_a_teacher_on_the_full_grid_stand_apart():
    models = some_models()
    alone = main(models).table
    full_grid = RECIPE | {"teacher": {"width": 48}}
    for seed in range(5):
        models.append(model("baseline", 0.98, seed, variant=LONG_TRAINING))
        models.append(model("s2kd_plus", 0.9, seed, variant=LONG_TRAINING))
        models.append(teacher(0.8, seed, variant=FULL_GRID, recipe=full_grid))
        models.append(model("s2kd", 0.81, seed, variant=FULL_GRID, recipe=full_grid))
    results = results_of(models)
    one = experiment(results, **WHERE)
    assert one.table.equals(alone)
    longer = longer_training(results, one).table.set_index("method")
    assert longer.loc["s2kd_plus", "gain_percent"] == pytest.approx(100 * 0.08 / 0.98, rel=1e-3)
    grid = full_grid_teacher(results, one)
    assert grid.table["method"].tolist() == ["persistence", "teacher", "baseline", "s2kd"]
    row = grid.table.set_index("method").loc["s2kd"]
    assert row["gap_closed_percent"] == pytest.approx(95, rel=1e-3)  # 0.19 of 0.2
    assert grid.name == "ncep_air, teacher on the full grid"
    gains = tables.gains_table([one, grid], title="t")
    assert gains.head[1:] == ("ncep_air", "ncep_air, teacher on the full grid")
    other = model("s2kd", 0.8, 9, variant=FULL_GRID, recipe=full_grid | {"past": 6})
    with pytest.raises(S2KDError, match="past=6"):
        full_grid_teacher(results_of([*models, other]), one)


def test_the_ablation_compares_the_seeds_that_all_rows_have():
    models = [m for m in some_models() if m["seed"].values[0] != 4]
    models += [model("s2kd", 9.0, 4), *(model(n, 0.95, 2) for n in ("spectral", "semantic"))]
    one = main(models)
    assert set(one.restricted(ABLATION).scores["seed"].values.tolist()) == {2}
    table = tables.ablation_table([one], title="t")
    assert [line[0] for line in table.lines] == ["+ spectral", "+ semantic", "S²-KD"]
    assert table.lines[2][1].startswith("+10.0 [")
    assert [line[2] for line in table.lines] == ["+5.5", "+6.9", "+12.9"]


def test_what_the_teacher_reads_is_compared_with_the_rule_narrators():
    models = some_models()
    for variant, seeds in (("empty", range(5)), (LONG_TRAINING, range(5)), ("recorder", range(2))):
        for seed in seeds:
            models += [
                teacher(0.93, seed, variant=variant),
                model("s2kd", 0.95, seed, variant=variant),
            ]
    results = results_of(models)
    table = tables.narrator_table(results, experiments(results), title="t")
    assert [line[0] for line in table.lines] == [
        "teacher: empty narratives",
        "teacher: recorded (recorder)",
        "student: empty narratives",
        "student: recorded (recorder)",
    ]
    assert table.lines[0][1].startswith("+5.7 [")  # 0.93 against 0.88
    assert table.lines[2][1].startswith("+5.6 [")  # 0.95 against 0.9


def with_spectra_and_events(models, hits):
    """100 of 1000 cells hot; the first method of `hits` that fits forecasts so many of them."""
    complete = []
    for scores in models:
        method = str(scores["method"].values[0])
        generator = np.random.default_rng(len(method))
        right = np.clip(hits.get(method, 60) + generator.integers(-2, 3, (1, 200, 4, 1, 1)), 0, 100)
        dims = ("model", "window", "lead", "channel", "event")
        more = {
            "hits": (dims, right),
            "false_alarms": (dims, 100 - right),
            "observed": (dims[1:], np.full((200, 4, 1, 1), 100)),
            "event_cells": (dims[3:], np.full((1, 1), 1000)),
            "log_spectral_distance_by_lead": (
                ("model", "lead", "channel"),
                np.full((1, 4, 1), 0.5),
            ),
            "high_frequency_ratio_by_lead": (("model", "lead", "channel"), np.full((1, 4, 1), 0.9)),
            "rollout_mse": (("model", "step"), np.arange(1.0, 17)[None]),
            "rollout_stable": (("model",), np.ones(1)),
        }
        coords = {"channel": ["air"], "event": ["above 95 %"], "lead": [1, 2, 3, 4]}
        extra = xr.Dataset(more, {**coords, "model": scores["model"]})
        complete.append(scores.assign(extra.data_vars).assign_attrs(cells=1000))
    return complete


def test_rare_events_spectra_and_roll_outs_are_those_of_the_scores():
    models = with_spectra_and_events(some_models(), {"baseline": 60, "s2kd": 70})
    one = main(models)
    table = tables.event_detail_table(one)
    lines = {line[1]: line for line in table.lines}
    csi = 70 / 130
    assert float(lines["S²-KD"][2]) == pytest.approx(csi, abs=0.02)
    assert lines["S²-KD"][3].startswith("+0.1")
    assert lines["S²-KD"][5:8] == pytest.approx(("0.70", "0.30", "1.00"))
    assert lines["baseline"][3] == ""
    short = tables.event_table([one], title="t")
    assert short.lines[0][0] == "ncep_air: air above 95 %"
    assert [r[1] for r in tables.spectra_table([one], title="t").lines] == ["0.50 / 0.90"] * 5
    assert tables.rollout_table([one], title="t").lines[0][1] == "4.000 / 16.000"


def searched(method, errors):
    trials = [
        {"number": n, "state": "complete", "values": {"lr": lr}, "validation": error}
        for n, (lr, error) in enumerate(errors.items())
    ] + [{"number": 9, "state": "fail", "values": {"lr": 0.5}, "validation": None}]
    return {
        "data": "netcdf", "preset": "ncep_air", "backbone": "unet", "method": method,
        "split": "val", "seeds": [42], "axes": ["lr"], "sampler": "grid", "trials": trials,
        "best": trials[0], "own": trials[0], "measure": "validation error",
        "recipe": {"student_training": {"epochs": 7}},
    }  # fmt: skip


def test_searches_of_one_axis_are_lines_of_one_table(tmp_path):
    save_search(tmp_path, searched("baseline", {0.001: 0.3, 0.002: 0.25}))
    save_search(tmp_path, searched("s2kd", {0.002: 0.2, 0.006: 0.15}))
    (table,) = page.search_contents(tmp_path)
    assert table.head == ("data", "student", "method", "0.001", "0.002", "0.006")
    assert table.lines == (
        ("ncep_air", "U-Net", "baseline", "0.3000", "**0.2500**", "–"),
        ("ncep_air", "U-Net", "S²-KD", "–", "0.2000", "**0.1500**"),
    )


def test_figure_4_puts_each_panels_points_on_its_own_labels_row():
    def point(value, low=None, high=None, seeds=5):
        return Estimate(value=value, low=low, high=high, windows=99, block=2, seeds=seeds)

    panels = {
        "first": {"c": point(-1.0, -2.0, 0.0)},
        "second": {"a": point(1.0, 0.5, 1.5), "b": point(2.0), "c": point(3.0, 2.0, 4.0, 1)},
    }
    first, second = figures.narrator_points(panels).axes
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["c", "a", "b"]
    points = [line for line in second.lines if line.get_marker() == "o"]
    assert [list(line.get_xydata()[0]) for line in points] == [[1.0, 1], [2.0, 2], [3.0, 0]]
    hollow = [line.get_markerfacecolor() == "white" for line in points]
    assert hollow == [False, False, True], "too few seeds"


def test_the_page_is_made_from_results_and_made_again_the_same(tmp_path):
    models = with_spectra_and_events(some_models(), {"s2kd": 70})
    models += with_spectra_and_events(some_models(split="test_unseen"), {})
    results = results_of(models)
    path = page.write(tmp_path / "docs" / "results.md", results, tmp_path)
    text = path.read_text()
    assert text.index("**In short**") < text.index("## Summary") < text.index("![")
    assert "S²-KD as published is clearly better than no distillation on 2 of 2 test" in text
    assert "{{" not in text
    for name in ("gap", "extremes"):
        assert (tmp_path / "docs" / "figures" / f"{name}.png").stat().st_size > 5000
    before = {p: p.read_bytes() for p in (tmp_path / "docs").rglob("*.*")}
    page.write(path, results, tmp_path)
    assert before == {p: p.read_bytes() for p in (tmp_path / "docs").rglob("*.*")}
    with pytest.raises(S2KDError, match="no results of students yet"):
        page.write(path, {}, tmp_path)


def test_tables_are_shown_by_name_and_kind_of_field(tmp_path, capsys):
    results = results_of([*some_models(), *some_models(data="taxi_sf")])
    page.show(results, ["table1"], tmp_path, as_json=True)
    (table,) = json.loads(capsys.readouterr().out)["table1"]
    assert table["title"] == "Table 1: ncep_air, small, test"
    with pytest.raises(S2KDError, match="holds no results for table3"):
        page.show(results, ["table3"], tmp_path, as_json=True)
