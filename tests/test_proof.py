"""The proof's work list, its harness and its tables: what a wrong program would get wrong."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
import road
from msgspec.structs import replace

from s2kd import pipeline
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.evaluation.events import event_series
from s2kd.evaluation.results import (
    read_results,
    read_scores,
    save_search,
    select,
    write_scores,
)
from s2kd.evaluation.rows import rows as nested_rows
from s2kd.evaluation.significance import Comparison
from s2kd.paper import (
    harness,
    proof_figures,
    proof_page,
    rare_tables,
    reproduce,
    tables,
)
from s2kd.paper.experiment import difference, experiment, together
from s2kd.paper.published import PUBLISHED
from s2kd.paper.studies import ABLATION, CONTROLS, FIRST, FULL_GRID, PATIENT, TAUGHT, studies, units

LONGER = {"student_training"}
PLUME = {"height": 16, "width": 16, "members": 3, "frames": 12, "spin_up_frames": 2}
STUDENTS = (Part(name="unet", params={"width": 4}), Part(name="resnet", params={"preset": "tiny"}))


def made(*, seeds=(42, 43), recipe=None):
    recipe = replace(recipe or road.tiny(), narrator=Part(name="rules"))
    return studies(recipe, data="taxi_sf", preset="small", students=STUDENTS, seeds=seeds)


# --- what is to be done --------------------------------------------------------------------------


def test_controls_differ_from_the_experiment_in_one_field():
    main, *others = made()
    assert [study.variant for study in others] == [*CONTROLS, PATIENT]
    free = {"methods", "students"}
    for study in others:
        one, other = main.recipe.to_dict(), study.recipe.to_dict()
        differ = {key for key in one if one[key] != other[key]} - free
        assert len(differ) == 1
        assert differ <= ({"narrator", "text"} if study.variant in CONTROLS else LONGER)
    own, longer = main.recipe.student_training, others[-1].recipe.student_training
    assert longer == replace(own, epochs=3 * own.epochs)


def test_a_teacher_on_the_full_grid_is_a_study_that_differs_in_it_alone():
    teacher = replace(road.tiny().teacher, backbone=Part(name="resnet", params={"width": 8}))
    change = {"teacher": teacher, "teacher_training": replace(road.tiny().teacher_training, lr=0.1)}
    about = {"data": "taxi_sf", "preset": "small", "students": STUDENTS, "seeds": (42, 43)}
    main, *_, other = studies(road.tiny(), **about, full_grid=change)
    assert other.variant == FULL_GRID
    one, two = main.recipe.to_dict(), other.recipe.to_dict()
    differ = {key for key in one if one[key] != two[key]} - {"methods", "students"}
    assert differ == {"teacher", "teacher_training"}
    assert other.recipe.teacher == teacher
    todo = [u for u in units([main, other], tables=["table2"]) if u.study is other]
    assert {u.student for u in todo if u.role == "student"} == {"unet"}
    assert {u.method for u in todo if u.role == "student"} == set(TAUGHT)
    assert {u.method for u in todo if u.role == "teacher"} == {"text", "no_text"}


def test_teachers_come_first_and_a_cut_list_is_a_table_already():
    listed = units(made())
    names = [unit.name for unit in listed]
    assert len(set(names)) == len(names)
    for place, unit in enumerate(listed):
        assert all(need.name in names[:place] for need in unit.needs)
    first = [u for u in listed if u.level <= 1 and u.seed == 42 and u.role == "student"]
    assert {u.method for u in first} >= set(FIRST)
    # the first seed's comparison is whole before the second seed begins, and before any control
    whole = max(listed.index(u) for u in first)
    assert all(listed.index(u) > whole for u in listed if u.level > 1 or (u.seed == 43))


def test_only_what_a_table_needs_is_trained():
    ablation = {u.method for u in units(made(), tables=["table4"]) if u.role == "student"}
    assert ablation == {"baseline", "spectral", "semantic", "s2kd"}
    maps = units(made(), tables=["fig5"])
    assert {u.student for u in maps if u.role == "student"} == {"unet"}
    assert {u.study.variant for u in maps} == {"rules"}
    longer = [u for u in units(made(), tables=["table2"]) if u.study.variant == PATIENT]
    assert {u.method for u in longer} == {"baseline", "output", "s2kd_plus", "text", "no_text"}
    with pytest.raises(S2KDError, match="no table or figure 'tabel1'; did you mean 'table1'"):
        units(made(), tables=["tabel1"])


def test_results_are_the_same_from_a_relative_folder(tmp_path, monkeypatch):
    """A result holds files by their name alone, or it could not be compared with another's."""
    file = tmp_path / "data" / "ncep_air_sig995_6h_2013_2014.nc"
    file.parent.mkdir()
    file.touch()
    monkeypatch.chdir(tmp_path)
    found = reproduce.sources_in("data", preset="small", asked=["ncep_air"])
    assert found["ncep_air"].dataset.params["path"] == str(file)


def test_a_training_is_named_by_what_it_depends_on():
    def key(recipe, method="s2kd"):
        listed = units(made(recipe=recipe))
        return next(u.key for u in listed if u.method == method and u.role == "student")

    tiny = road.tiny()
    assert key(tiny) == key(replace(tiny, seeds=(1, 2)))
    assert key(tiny) != key(replace(tiny, past=4))
    assert key(tiny) != key(tiny, "fitnet")


# --- the harness ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """Table 4 of one seed, on blobs."""
    folder = tmp_path_factory.mktemp("proof")
    place = harness.Place(out=folder / "runs", results=folder / "results")
    todo = units(made(seeds=(42,)), tables=["table4"])
    outcome = harness.work(todo, place)
    return place, todo, outcome


def test_every_unit_leaves_its_result_and_is_done_once(worked):
    place, todo, outcome = worked
    assert (outcome.now, outcome.before, outcome.left) == (len(todo), 0, 0)
    rows = nested_rows(read_results(place.results))
    assert {row["method"] for row in rows if row["role"] == "student"} == {
        "baseline", "spectral", "semantic", "s2kd",
    }  # fmt: skip
    for row in rows:
        assert (row["data"], row["preset"], row["variant"]) == ("taxi_sf", "small", "rules")
        assert row["metrics"]["mse"] > 0
        assert row["versions"]
        assert row["fingerprint"]
        assert row["settings"]["dataset"]["name"] == "blobs"
        who = {"student": f"students/unet-{row['method']}", "teacher": "teachers/text"}
        if row["role"] in who:
            (card,) = place.out.glob(f"*/{who[row['role']]}-seed42/model.json")
            validation = json.loads(card.read_text())["validation"]
            assert row["validation"] == pytest.approx(validation, rel=1e-5)
    # labelled with the teacher, so that no two students do it side by side
    stores = {path.name for path in place.out.glob("*/targets/*")}
    assert {"text-seed42", "text-seed42-blends8"} <= stores
    weights = {p: p.stat().st_mtime_ns for p in place.out.rglob("*.safetensors")}
    again = harness.work(todo, place)
    assert (again.now, again.before, again.left) == (0, len(todo), 0)
    assert weights == {p: p.stat().st_mtime_ns for p in place.out.rglob("*.safetensors")}


def test_rare_events_are_told_of_every_method_and_lead(worked):
    """Against the counts of the result files, taken by hand."""
    place, _, _ = worked
    rows = nested_rows(read_results(place.results))
    (models,) = proof_page.experiments(rows)
    whole, by_lead = rare_tables.extremes_table(models), rare_tables.lead_table(models)
    methods = {"baseline", "+ spectral", "+ semantic", "S²-KD"}
    for table in (whole, by_lead):
        assert methods | {"teacher", "persistence", "climatology"} >= {
            row[1] for row in table.lines
        }
        assert methods <= {row[1] for row in table.lines}
    scores = rare_tables.counted(models.of("student", "s2kd"))
    channel, event = str(scores["channel"].values[0]), "above 95 %"
    at = {"channel": channel, "event": event}
    leads = range(1, scores.sizes["lead"] + 1)
    by_hand = [event_series(scores, **at, lead=lead)[0].sum(0) for lead in leads]
    hits, misses, alarms, _ = np.array(by_hand).T

    def line(table):
        return next(row for row in table.lines if row[:2] == (f"{channel} {event}", "S²-KD"))

    def values(cells):
        return [float(cell.split()[0]) for cell in cells]

    csi = hits / (hits + misses + alarms)
    assert values(line(by_lead)[2:]) == pytest.approx(csi, abs=6e-4)
    assert by_lead.head[2:] == tuple(f"CSI, lead {n + 1}" for n in range(len(hits)))
    hit, miss, alarm = hits.sum(), misses.sum(), alarms.sum()
    pod, far, bias = values(line(whole)[5:8])
    assert (pod, far) == pytest.approx((hit / (hit + miss), alarm / (hit + alarm)), abs=6e-3)
    assert bias == pytest.approx((hit + alarm) / (hit + miss), abs=6e-3)
    assert values([line(whole)[2]]) == pytest.approx([hit / (hit + miss + alarm)], abs=6e-4)


def test_a_teacher_that_another_study_has_already_is_copied_not_trained(worked, tmp_path):
    place = dataclasses.replace(worked[0], results=tmp_path)
    (source,) = place.out.glob("*-rules/teachers/text-seed42")
    (source / "mark").touch()
    (teacher,) = (
        unit
        for unit in units(made(seeds=(42,)), tables=["table2"])
        if unit.study.variant == PATIENT and unit.name.endswith("teacher text seed 42")
    )
    harness.work([teacher], place)
    copy = place.out / teacher.study.folder / "teachers" / "text-seed42"
    assert (copy / "mark").exists()
    assert (copy / "log.jsonl").read_text() == (source / "log.jsonl").read_text()
    run = pipeline.Run(recipe=teacher.study.recipe, out=copy.parent.parent)
    pipeline.copy_teacher(run, "text", 43, [source])  # not the one that is wanted
    assert not copy.with_name("text-seed43").exists()


RESULTS = "taxi_sf-small-test.nc"


def removed(path, method="s2kd"):
    """Take the students by this method out of a results file; they are returned."""
    scores = read_scores(path)
    write_scores(path, scores.isel(model=scores["method"].values != method))
    return select(scores, method=method)


def test_a_lost_result_is_written_again_without_training(worked):
    place, todo, _ = worked
    path = place.results / RESULTS
    before = removed(path)
    weights = {p: p.stat().st_mtime_ns for p in place.out.rglob("model.safetensors")}
    assert harness.work(todo, place).now == 1
    assert select(read_scores(path), method="s2kd")["mse"].identical(before["mse"])
    assert weights == {p: p.stat().st_mtime_ns for p in place.out.rglob("model.safetensors")}


def copied(place, tmp_path):
    """The result files alone, as another machine has them."""
    shutil.copytree(place.results, tmp_path / "results")
    return harness.Place(out=tmp_path / "runs", results=tmp_path / "results")


def test_result_files_from_elsewhere_are_done(worked, tmp_path):
    place, todo, _ = worked
    outcome = harness.work(todo, copied(place, tmp_path))
    assert (outcome.now, outcome.before, outcome.left) == (0, len(todo), 0)
    assert not (tmp_path / "runs").exists()


def test_another_machine_trains_what_lacks_and_the_teacher_that_it_wants(worked, tmp_path):
    place, todo, _ = worked
    other = copied(place, tmp_path)
    path = other.results / RESULTS
    before, kept = removed(path), read_scores(path)
    left = harness.to_do(todo, other)
    assert [(unit.role, unit.method) for unit in left] == [("teacher", "text"), ("student", "s2kd")]
    assert harness.work(todo, other).now == 2
    after = read_scores(path)
    assert select(after, method="s2kd")["mse"].values == pytest.approx(before["mse"].values)
    assert after.isel(model=after["method"].values != "s2kd").identical(kept)
    assert harness.work(todo, other).left == 0


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "of other data"},
        {"recipe": lambda recipe: recipe.update(past=recipe["past"] + 1)},
        {"recipe": lambda recipe: recipe["student_training"].update(lr=0.5)},
        {"versions": lambda versions: versions.update(s2kd="0.0.1")},
        {"recipe": lambda recipe: recipe["students"][0]["params"].update(width=5)},
        {"recipe": lambda recipe: [m.update(weight=0.5) for m in recipe["methods"]]},
        {"narrator_version": "rules-0"},
    ],
    ids=["data", "recipe", "training", "version", "student", "method", "words"],
)
def test_a_result_of_another_training_is_not_taken_for_this_one(worked, tmp_path, change):
    place, todo, _ = worked
    other = copied(place, tmp_path)
    (unit,) = (u for u in todo if u.method == "s2kd")
    assert harness.finished(unit, other)
    path = other.results / RESULTS
    scores = read_scores(path)
    number = scores["method"].values.tolist().index("s2kd")
    for name, value in change.items():
        texts = scores[name].values.astype(object)
        if callable(value):
            plain = json.loads(texts[number])
            value(plain)
            texts[number] = json.dumps(plain)
        else:
            texts[number] = value
        scores = scores.assign_coords({name: ("model", texts.astype(str))})
    write_scores(path, scores)
    assert not harness.finished(unit, other)
    assert [u.method for u in harness.to_do(todo, other)] == ["text", "s2kd"]


def test_recorded_words_are_told_apart_by_what_they_say_not_by_their_files_name(worked, tmp_path):
    """Every run calls its narratives `narratives.jsonl`."""
    place = worked[0]
    said = next(place.out.glob("*/narratives.jsonl")).read_text()
    for name, text in (("a", said), ("b", said.replace("the", "this"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "narratives.jsonl").write_text(text)

    def teacher(name):
        narratives = {"vlm": str(tmp_path / name / "narratives.jsonl")}
        about = {"data": "taxi_sf", "preset": "small", "students": STUDENTS, "seeds": (42,)}
        recipe = replace(road.tiny(), narrator=Part(name="rules"))
        every = units(studies(recipe, **about, narratives=narratives), tables=["fig4"])
        (unit,) = (u for u in every if u.study.variant == "vlm" and u.role == "teacher")
        return unit

    own = harness.Place(out=tmp_path / "runs", results=tmp_path / "results")
    assert harness.work([teacher("a")], own).now == 1
    other = dataclasses.replace(own, out=tmp_path / "elsewhere")
    assert harness.finished(teacher("a"), other)
    assert not harness.finished(teacher("b"), other)


def test_a_result_counts_where_every_test_split_has_one(tmp_path):
    """The fires are scored on splits of their own, too."""
    recipe = replace(road.tiny(), dataset=Part(name="plume", params=PLUME))
    (unit,) = (u for u in units(made(seeds=(42,), recipe=recipe)) if u.role == "reference")
    place = harness.Place(out=tmp_path / "runs", results=tmp_path / "results")
    assert harness.work([unit], place).now == 1
    other = dataclasses.replace(place, out=tmp_path / "elsewhere")
    assert harness.finished(unit, other)
    files = sorted(place.results.glob("*.nc"))
    assert len(files) > 1
    next(path for path in files if not path.stem.endswith("-test")).unlink()
    assert not harness.finished(unit, other)


def test_a_map_that_lacks_has_its_models_trained_again_and_results_stay(tmp_path):
    place = harness.Place(out=tmp_path / "runs", results=tmp_path / "results")
    some = made(seeds=(42,))
    assert reproduce.reproduce(some, ["fig5"], place).left == 0
    sample = reproduce.sample_path(place.results, "taxi_sf", "small")
    first = json.loads(sample.read_text())
    sample.unlink()
    kept = {path: path.read_bytes() for path in place.results.glob("*.nc")}
    other = dataclasses.replace(place, out=tmp_path / "elsewhere")
    assert reproduce.for_maps(some, ["table2"], other) == set()
    assert reproduce.reproduce(some, ["fig5"], other).now == 4  # three students and a teacher
    again = json.loads(sample.read_text())
    assert (
        again["forecasts"].keys() == first["forecasts"].keys() == {"baseline", "s2kd", "s2kd_plus"}
    )
    assert again["truth"] == first["truth"]
    assert kept == {path: path.read_bytes() for path in kept}
    assert reproduce.for_maps(some, ["fig5"], other) == set()


def test_no_time_no_work_and_a_training_cut_short_goes_on(tmp_path):
    todo = [u for u in units(made(seeds=(42,)), tables=["table4"]) if u.method == "baseline"]
    late = harness.Place(
        out=tmp_path / "runs", results=tmp_path / "results", deadline=time.time() - 1
    )
    assert harness.work(todo, late).left == len(todo)
    with pytest.raises(harness.OutOfTime):  # begun too late, it stops at its first step
        harness.do(todo[0], late)
    assert not list(late.results.rglob("*.nc"))
    assert harness.work(todo, dataclasses.replace(late, deadline=None)).now == len(todo)


@pytest.mark.slow
def test_side_by_side_gives_the_same_numbers(worked, tmp_path):
    place, todo, _ = worked
    other = harness.Place(out=tmp_path / "runs", results=tmp_path / "results")
    assert harness.work(todo, other, jobs=2).left == 0
    one, two = (read_scores(folder / RESULTS) for folder in (place.results, other.results))
    assert one["mse"].sel(model=two["model"]).values == pytest.approx(two["mse"].values, rel=1e-3)


def test_two_harnesses_do_not_share_a_folder(worked, tmp_path):
    place, todo, _ = worked
    left = dataclasses.replace(place, results=tmp_path)  # so that there is something to do
    held = pipeline.locked(place.out / todo[0].study.folder)
    with held, pytest.raises(S2KDError, match="another run is at work"):
        harness.work(todo, left)


# --- results -------------------------------------------------------------------------------------


def result(method, mse, seed, *, role="student", backbone="unet", variant="rules", noise=0.05):
    """A result as the harness writes it, its window errors about `mse`."""
    windows = np.random.default_rng(seed).lognormal(0, 0.3, 200)  # the same for every method
    own = np.random.default_rng([seed, len(method)]).normal(1, noise, 200)
    errors = windows * own
    errors *= mse / errors.mean()
    return {
        "data": "ncep_air", "preset": "small", "variant": variant, "split": "test",
        "backbone": backbone, "role": role, "method": method, "narrator": "rules",
        "reads_future": False, "seed": seed, "parameters": 1000, "latency_ms": 1.0,
        "metrics": {"mse": mse, "mae": mse**0.5 / 2, "ssim": 1 - mse},
        "scores": {
            "window_mse": errors.tolist(), "spectra": {}, "by_lead": {"air": {"mse": [mse] * 4}},
            "conventions": {"windows": 200, "past": 4, "lead": 4, "overlap": 2},
        },
        "versions": {}, "hardware": {"processor": "none", "device": "cpu"}, "fingerprint": "x",
        "settings": {"dataset": {"params": {"path": "/home/somebody/air.nc", "gap": 8}}},
    }  # fmt: skip


def some_rows(s2kd=0.9, fitnet=0.97, teacher=0.88, seeds=range(5)):
    found = [
        result("persistence", 2.0, 0, role="reference", backbone="persistence") | {"seed": None}
    ]
    for seed in seeds:
        found.append(result("teacher", teacher, seed, role="teacher", backbone="simvp"))
        for method, mse in (("baseline", 1.0), ("fitnet", fitnet), ("s2kd", s2kd)):
            found.append(result(method, mse, seed))
    return found


def test_results_of_two_recipes_are_not_compared():
    own = {"past": 4, "teacher_training": {"epochs": 14},
           "students": [{"name": "unet", "params": {"width": 8}}]}  # fmt: skip
    *rows, last = [row | {"settings": {**own, "seeds": [row["seed"]]}} for row in some_rows()]
    where = {"data": "ncep_air", "preset": "small"}
    assert len(experiment([*rows, last], **where).rows) == 5
    for change, said in (
        ({"teacher_training": {"epochs": 28}}, "epochs=14, .* with teacher_training.epochs=28"),
        ({"past": 6}, "with past=4, .* with past=6"),
        ({"students": [{"name": "unet", "params": {"width": 16}}]}, "students.unet=.*'width': 16"),
    ):
        with pytest.raises(S2KDError, match=said):
            experiment([*rows, last | {"settings": own | change}], **where)
    with pytest.raises(S2KDError, match=r"unet/s2kd with fingerprint=y: not to be"):
        experiment([*rows, last | {"fingerprint": "y"}], **where)


# --- tables --------------------------------------------------------------------------------------


def table_of(rows):
    models = experiment(rows, data="ncep_air", preset="small")
    return models, tables.main_table(models, title="t", published=PUBLISHED["table1"])


def test_the_table_says_gains_shares_and_what_was_published():
    _, table = table_of(some_rows())
    lines = {line[1]: line for line in table.lines if line[0] == "U-Net"}
    gain, share = lines["S²-KD"][7], lines["S²-KD"][9]
    assert gain.startswith("+10.0 [")
    assert share.startswith("+83 [")  # 0.1 of 0.12
    assert lines["FitNet"][9].startswith("+25 [")
    assert lines["S²-KD"][10:] == ("+16.0", "+90", "5")
    assert lines["S²-KD"][4].startswith("**0.9000")
    assert "**" not in lines["FitNet"][4]
    assert " 5 seeds," in table.caption
    assert " 1 seed," in table_of(some_rows(seeds=[3]))[1].caption
    assert "200 windows" in table.caption
    assert table.markdown().count("\n| ") == len(table.lines) + 2  # head and rule


def test_a_gain_that_chance_could_give_is_not_bold():
    _, table = table_of(some_rows(s2kd=0.9995, fitnet=1.0, seeds=range(3)))
    assert not any("**" in line[4] for line in table.lines)


def test_a_method_of_one_seed_does_not_make_another_bold():
    rows = [row for row in some_rows() if row["method"] != "fitnet"]
    # on seed 0 S²-KD (0.9) is far ahead of FitNet, over all seeds it is not to be told from it
    rows += [result("fitnet", 1.0 if seed == 0 else 0.88, seed) for seed in range(5)]
    _, table = table_of([*rows, result("review", 0.99, 0)])
    assert not any("**" in line[4] for line in table.lines)
    _, table = table_of([*some_rows(), result("review", 0.99, 0)])
    assert [line[1] for line in table.lines if "**" in line[4]] == ["S²-KD"]


@pytest.mark.parametrize(
    ("errors", "reached", "twice"),
    [
        ({"s2kd": 0.885, "fitnet": 0.97}, "yes", "yes"),
        ({"s2kd": 0.94, "fitnet": 0.95}, "no", "no"),
        ({"s2kd": 0.892}, "undecided", "yes"),
        ({"s2kd": 1.04, "fitnet": 1.2}, "no", "no"),  # -1 is more than twice -5, yet no gain
        ({"teacher": 1.2}, "undecided", "yes"),  # no gap to share
    ],
)
def test_the_short_table_decides_both_claims_by_the_interval(errors, reached, twice):
    models, _ = table_of(some_rows(**errors))
    (line,) = tables.short_table([models]).lines
    assert line[4:6] == (reached, twice)


def test_a_teacher_on_the_full_grid_stands_apart_beside_the_same_plain_student(tmp_path):
    rows = some_rows()
    _, table = table_of(rows)
    same = {"settings": {"past": 4, "teacher": {"width": 64}}}
    rows = [row | same for row in rows]
    for seed in range(5):
        about = {"role": "teacher", "backbone": "resnet", "variant": FULL_GRID}
        more = [result("teacher", 0.8, seed, **about)]
        more += [
            result(m, e, seed, variant=FULL_GRID) for m, e in (("fitnet", 0.97), ("s2kd", 0.81))
        ]
        rows += [row | {"settings": {"past": 4, "teacher": {"width": 48}}} for row in more]
    _models, again = table_of(rows)
    assert again == table
    assert tables.variants(rows, data="ncep_air", preset="small", split="test") == ["rules"]
    page = proof_page.write(tmp_path / "r.md", rows, tmp_path).read_text()
    (lines,) = [
        part.partition("\n\n*")[0] for part in page.split("\n\n**")
        if part.startswith("Table 1: ncep_air, small, test, teacher on the full grid**")
    ]  # fmt: skip
    assert [line.split(" | ")[1] for line in lines.splitlines() if "| U-Net" in line] == [
        "baseline", "FitNet", "S²-KD",
    ]  # fmt: skip
    other = rows[-1] | {"settings": {"past": 6, "teacher": {"width": 48}}}
    with pytest.raises(S2KDError, match="with past=6"):
        proof_page.write(tmp_path / "r.md", [*rows, other], tmp_path)


def test_longer_training_stands_apart_and_is_held_against_as_long_a_baseline(tmp_path):
    rows = some_rows() + [result("s2kd_plus", 0.95, seed) for seed in range(5)]
    models, _ = table_of(rows)
    for seed in range(5):
        rows.append(
            result("teacher", 0.88, seed, role="teacher", backbone="simvp", variant=PATIENT)
        )
        for method, mse in (("baseline", 0.98), ("s2kd_plus", 0.9)):
            rows.append(result(method, mse, seed, variant=PATIENT))
    assert table_of(rows)[0].rows == models.rows
    page = proof_page.write(tmp_path / "r.md", rows, tmp_path).read_text()
    assert page.index("**Table 1: ncep_air, small, test**") < page.index(
        "**Table 1: ncep_air, small, test, students trained 3 times as long**"
    )


def test_a_teacher_that_is_not_clearly_ahead_leaves_no_gap_to_share():
    rows = some_rows()
    for row in rows:
        if row["role"] == "teacher":
            # 5 % better with some seeds, worse with others
            own = (0.8, 1.1, 0.85, 1.05, 0.95)[row["seed"]]
            row |= result("teacher", own, row["seed"], role="teacher", backbone="simvp")
    _models, table = table_of(rows)
    assert {line[9] for line in table.lines if line[1] in ("FitNet", "S²-KD")} == {"no clear gap"}


def test_a_gain_that_is_lost_among_many_is_told_with_that():
    rows = some_rows(s2kd=0.9895)
    for seed, more in enumerate((0.006, -0.006, 0.01, -0.01, 0.0)):
        place = next(i for i, r in enumerate(rows) if (r["method"], r["seed"]) == ("s2kd", seed))
        rows[place] = result("s2kd", 0.9895 + more, seed)
    models, _ = table_of(rows)
    (found,) = [c for key, c in tables.main_comparisons(models).items() if key[1] == "s2kd"]
    assert found.excludes_zero
    assert found.survives
    for method in ("output", "review", "relational", "sdkd", "mixup", "output_plus"):
        for seed in range(5):
            rows.append(result(method, 0.99 + 0.01 * (seed % 3), seed))
    models, table = table_of(rows)
    (line,) = [line for line in table.lines if line[1] == "S²-KD"]
    assert float(line[8]) > 0.05


def test_references_stand_beside_every_seed():
    rows = some_rows()
    students, reference = (
        [row for row in rows if row["method"] == method] for method in ("s2kd", "persistence")
    )
    one, other = together(students, reference)
    assert [row["seed"] for row in one] == list(range(5))
    assert other == [reference[0]] * 5
    assert together(students, []) == ([], [])
    assert difference(students, reference).high < 0


def test_memory_longer_than_a_quarter_of_the_windows_leaves_no_bounds():
    rows = some_rows()
    for row in rows:
        if row["method"] == "s2kd":
            drift = np.repeat([0.5, 1.5], 100) * row["metrics"]["mse"]
            row["scores"] = {**row["scores"], "window_mse": drift.tolist()}
    models = experiment(rows, data="ncep_air", preset="small")
    found = difference(models.of("student", "s2kd"), models.of("student", "baseline"))
    assert (found.low, found.high, found.p_value) == (None, None, None)
    assert found.difference == pytest.approx(-0.1)
    assert "fewer than 4 blocks" in found.note


def test_rolled_out_errors_are_compared_over_their_last_block():
    rows = some_rows()
    for row in rows:
        far = 3 * np.array(row["scores"]["window_mse"])
        row["long_horizon"] = {"windows": 200, "steps": 16, "window_mse": far.tolist()}
    models = experiment(rows, data="ncep_air", preset="small")
    ours, base = (models.of("student", name) for name in ("s2kd", "baseline"))
    near, long = (difference(ours, base, long=which) for which in (False, True))
    assert long.difference == pytest.approx(3 * near.difference)
    assert long.block >= 5, "20 frames to a roll-out instead of 8"
    ours[0]["long_horizon"]["window_mse"][3] = None  # blew up
    assert difference(ours, base, long=True) is None
    ours[0]["long_horizon"] = {"windows": 0}
    assert difference(ours, base, long=True).seeds == 4


def test_the_table_of_what_teachers_read_has_a_line_for_each_and_none_for_longer_training():
    rows = some_rows()
    for variant, seeds in (("empty", range(2)), (PATIENT, range(5))):
        for seed in seeds:
            more = {"role": "teacher", "backbone": "simvp", "variant": variant}
            rows.append(result("teacher", 0.93, seed, **more))
            rows.append(result("s2kd", 0.95, seed, variant=variant))
    rows.append(result("teacher-no-text", 0.88, 0, role="teacher", backbone="simvp"))
    models = experiment(rows, data="ncep_air", preset="small")
    table = tables.narrator_table(rows, models, title="t")
    lines = {line[0]: line for line in table.lines}
    assert [(name, line[-1]) for name, line in lines.items()] == [
        ("no distillation", "–, 5"),
        ("FitNet (no semantic prior)", "–, 5"),
        ("text-free teacher", "1, –"),
        ("no words (empty text)", "2, 2"),
        ("the window's words (rules)", "5, 5"),
    ]
    empty = lines["no words (empty text)"]
    assert empty[1].startswith("0.9300")
    assert empty[2].startswith("+5.7 [")  # 0.93 against the reading teacher's 0.88
    assert empty[4].startswith("0.9500")
    assert empty[5].startswith("+5.6 [")  # 0.95 against S²-KD's 0.9
    assert lines["the window's words (rules)"][2] == ""
    points = tables.narrator_points(rows, models)
    assert list(points) == ["no distillation", "FitNet", "no words (empty text)"]
    worse = points["no words (empty text)"]
    assert worse.seeds == 1, "two are too few to be drawn"
    assert worse.low < worse.difference < worse.high
    assert worse.difference == pytest.approx(5.6, abs=0.3)


def test_errors_by_lead_are_multiples_of_the_baselines_of_the_same_seeds():
    rows = some_rows(s2kd=0.9, seeds=[1])
    rows += [result("baseline", 9.0, 2)]  # no other method has this seed
    models = experiment(rows, data="ncep_air", preset="small")
    (panel,) = proof_figures.error_by_lead({"ncep_air": models}).axes
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}

    def steps(label):
        return np.asarray(lines[label])

    assert steps("S²-KD") == pytest.approx(np.full(len(steps("S²-KD")), 0.9), rel=0.02)


def test_figure_4_puts_each_panels_points_on_its_own_labels_line():
    def point(difference, low, high, seeds=5):
        return Comparison(difference=difference, low=low, high=high, confidence=0.95, windows=99,
                          block=2, seeds=seeds, p_value=None)  # fmt: skip

    whole = {
        "a": point(1.0, 0.5, 1.5),
        "b": point(2.0, None, None),
        "c": point(3.0, 2.0, 4.0, seeds=1),
    }
    part = {"c": point(-1.0, -2.0, 0.0)}
    figure = proof_figures.narrator_points({"first": part, "second": whole})
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["a", "b", "c"]
    assert list(first.lines[0].get_xydata()[0]) == [-1.0, 2]
    assert [list(line.get_xydata()[0]) for line in second.lines if line.get_marker() == "o"] == [
        [1.0, 0], [2.0, 1], [3.0, 2],
    ]  # fmt: skip
    fills = [line.get_markerfacecolor() for line in second.lines if line.get_marker() == "o"]
    assert [fill == "white" for fill in fills] == [False, False, True], "hollow: too few seeds"


def test_the_ablation_compares_the_seeds_that_all_rows_have():
    rows = some_rows(s2kd=0.9) + [result(name, 0.95, 2) for name in ("spectral", "semantic")]
    rows = [row | {"metrics": {**row["metrics"], "mse": 9.0}}
            if (row["method"], row["seed"]) == ("s2kd", 4) else row for row in rows]  # fmt: skip
    models, _ = table_of(rows)
    shared = models.shared(ABLATION)
    assert {key[2]: [row["seed"] for row in found] for key, found in shared.rows.items()} == {
        "baseline": [2], "spectral": [2], "semantic": [2], "s2kd": [2],
    }  # fmt: skip
    assert shared.seeds == 1


def test_the_page_is_made_from_the_files_and_made_again_the_same(tmp_path):
    rows = some_rows()
    page = proof_page.write(tmp_path / "docs" / "results.md", rows, tmp_path / "results")
    text = page.read_text()
    assert "Table 1: ncep_air, small, test" in text
    assert text.index("**In short**") < text.index("![")
    for name in ("gap", "lead"):
        assert (tmp_path / "docs" / "figures" / f"{name}.png").stat().st_size > 5000
    before = {p: p.read_bytes() for p in (tmp_path / "docs").rglob("*.*")}
    proof_page.write(page, rows, tmp_path / "results")
    assert before == {p: p.read_bytes() for p in (tmp_path / "docs").rglob("*.*")}


def searched(**changes):
    """What a search of λ and β leaves: the recipe's own values and two better ones."""
    values = [(1.0, 0.5), (0.1, 0.5), (0.2, 0.25)]
    trials = [
        {"number": n, "state": "complete", "values": {"lambda": weight, "beta": beta},
         "validation": 0.22 - 0.01 * n}
        for n, (weight, beta) in enumerate(values)
    ]  # fmt: skip
    return {
        "data": "netcdf", "preset": "ncep_air", "backbone": "unet", "method": "s2kd",
        "split": "val", "seeds": [42], "axes": ["lambda", "beta"], "sampler": "grid",
        "trials": trials, "best": trials[2], "own": trials[0], "measure": "validation error",
        "recipe": {"dataset": {"params": {"path": "/home/somebody/air.nc"}},
                   "student_training": {"epochs": 7}}, **changes,
    }  # fmt: skip


def test_the_page_shows_every_search_and_its_choice(tmp_path):
    results, page = tmp_path / "results", tmp_path / "docs" / "results.md"
    rows = some_rows(seeds=[1])
    path = save_search(results, searched())
    assert "somebody" not in path.read_text()
    assert not read_results(results)  # a search is no result
    text = proof_page.write(page, rows, results).read_text()
    assert "Validation error of ncep_air, U-Net, S²-KD." in text
    assert (
        page.parent / "figures" / "search-ncep_air-unet-s2kd-grid-lambda-beta.png"
    ).stat().st_size > 5000
    path.write_text("[]")
    with pytest.raises(S2KDError, match="not what `s2kd sweep` writes"):
        proof_page.write(page, rows, results)


def test_searches_of_one_axis_are_lines_of_one_table_beside_the_surface(tmp_path):
    def rates(method, errors):
        trials = [
            {"number": n, "state": "complete", "values": {"lr": lr}, "validation": error}
            for n, (lr, error) in enumerate(errors.items())
        ] + [{"number": 9, "state": "fail", "values": {"lr": 0.5}, "validation": None}]
        best = min(trials[:-1], key=lambda one: one["validation"])
        own = next(one for one in trials if one["values"]["lr"] == 0.002)
        return searched(axes=["lr"], method=method, trials=trials, best=best, own=own)

    results = tmp_path / "results"
    found = (
        rates("baseline", {0.001: 0.3, 0.002: 0.25}),
        rates("s2kd", {0.002: 0.2, 0.006: 0.15}),
        rates("fitnet", {0.002: 0.2}) | {"seeds": [7]},
    )
    paths = {save_search(results, one) for one in (searched(), *found)}
    assert len(paths) == 4  # a search of one method over other axes does not take its place
    text = proof_page.write(tmp_path / "r.md", some_rows(seeds=[1]), results).read_text()
    start = text.index("**Validation error by learning rate**")
    assert text[start:].splitlines()[2:7] == [
        "| data | student | method | seeds | 0.001 | 0.002 | 0.006 | gain over baseline % "
        "| each at its best % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| ncep_air | U-Net | baseline | 42 | 0.3000 | **0.2500** | – |  |  |",
        "| ncep_air | U-Net | FitNet | 7 | – | **0.2000** | – |  |  |",  # of other seeds
        "| ncep_air | U-Net | S²-KD | 42 | – | 0.2000 | **0.1500** | +20.0 | +40.0 |",
    ]
    assert text.count("(figures/search-") == 1


def test_a_search_without_a_finished_trial_is_not_on_the_page(tmp_path):
    results = tmp_path / "results"
    save_search(results, searched(best=None, own=None))
    page = proof_page.write(tmp_path / "r.md", some_rows(seeds=[1]), results)
    assert "## Search" not in page.read_text()
