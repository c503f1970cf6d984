"""The road in one process: what it writes, what it does again, and what it refuses to mix."""

import json

import numpy as np
import pytest
import road
import torch
from msgspec import structs
from safetensors.torch import load_file, save_file
from worlds import world

from s2kd import pipeline
from s2kd.core.files import file_digest, sealed, write_json
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.deploy.forecaster import Forecaster
from s2kd.evaluation.results import each_model, settings_of
from s2kd.models.checkpoint import load_teacher
from s2kd.pipeline.recipes import BASELINE, s2kd
from s2kd.pipeline.scores import references


def test_the_road_leaves_every_file_that_is_promised(done):
    promised = [
        "recipe.json",
        "narratives.jsonl",
        "scores.json",
        "report.html",
        *(f"states/{split}.safetensors" for split in ("train", "val", "test")),
        *(f"{model}/{name}" for model in road.MODELS for name in _MODEL_FILES),
        *(f"targets/{kind}-seed42/key.json" for kind in ("text", "no_text")),
    ]
    assert [name for name in promised if not (done / name).is_file()] == []
    assert list((done / "figures").glob("*.png"))


_MODEL_FILES = ("model.safetensors", "model.json", "log.jsonl")


def test_nothing_of_the_work_in_progress_stays(done):
    left = [p.name for p in done.rglob("*") if p.suffix in (".pt", ".part")]
    assert left == []
    assert list(done.rglob("training.json")) == []


def test_the_recipe_is_saved_resolved(done):
    assert pipeline.load_recipe(done) == road.tiny()


def test_a_second_run_does_nothing(mine):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in _kept(mine)}
    assert road.walk(road.tiny(), mine) == []
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in _kept(mine)} == before


def _kept(out):
    """All but the recipe, which says what was asked for last, and the lock."""
    return [p for p in out.rglob("*") if p.is_file() and p.name not in ("recipe.json", ".lock")]


def test_a_further_seed_trains_its_own_models_alone(mine):
    before = road.weights(mine)
    stages = road.walk(structs.replace(road.tiny(), seeds=(42, 7)), mine, until="evaluate")
    trained = [stage for stage in stages if stage.startswith("train ")]
    assert trained == [f"train {m.split('/')[1].replace('42', '7')}" for m in road.MODELS]
    after = road.weights(mine)
    assert {name: after[name] for name in before} == before
    for name, old in before.items():
        assert after[name.replace("42", "7")] != old, f"{name}: two seeds gave the same weights"
    rows = json.loads((mine / "scores.json").read_text())
    assert [row["seed"] for row in rows] == [None, None, *[42] * 6, *[7] * 6]


def test_a_further_method_trains_its_student_alone(mine):
    recipe = road.tiny()
    recipe = structs.replace(recipe, methods=(*recipe.methods, s2kd(beta=0.0, name="semantic")))
    stages = road.walk(recipe, mine, until="evaluate")
    assert [stage for stage in stages if not stage.startswith("score ")] == [
        "train unet-semantic-seed42"
    ]
    assert [s for s in stages if s.startswith("score ")] == ["score unet-semantic-seed42 on test"]


def test_a_further_student_trains_alone(mine):
    recipe = road.tiny()
    more = Part(name="simvp", params=road.TEACHER.backbone.params)
    stages = road.walk(
        structs.replace(recipe, students=(*recipe.students, more)), mine, until="distil"
    )
    trained = [stage for stage in stages if stage.startswith("train ")]
    assert trained == [f"train simvp-{m.name}-seed42" for m in recipe.methods]
    assert not any(stage.startswith("targets") for stage in stages)


def test_another_setting_in_a_used_folder_is_refused_by_name(mine):
    before = road.content(mine)
    changed = road.tiny().with_settings(["student_training.lr=0.5", "past=4"])
    with pytest.raises(S2KDError, match=r"past, student_training"):
        pipeline.open_run(changed, mine)
    assert road.content(mine) == before


def test_changed_settings_of_a_method_train_it_again(mine):
    before = road.weights(mine)
    stages = road.walk(
        road.tiny().with_settings(["methods.s2kd.weight=0.25"]), mine, until="distil"
    )
    assert [s for s in stages if s.startswith("train ")] == ["train unet-s2kd-seed42"]
    after = road.weights(mine)
    name = "students/unet-s2kd-seed42/model.safetensors"
    assert [path for path in before if after[path] != before[path]] == [name]
    kept = set(after) - set(before)
    assert kept == {"before/unet-s2kd-seed42-1/model.safetensors"}
    assert after[kept.pop()] == before[name]


@pytest.mark.parametrize("model", ["students/unet-s2kd-seed42", "teachers/text-seed42"])
def test_a_deleted_model_comes_back_bit_for_bit(mine, model):
    before = road.weights(mine)
    for path in (mine / model).iterdir():
        path.unlink()
    stages = road.walk(road.tiny(), mine)
    assert stages == [f"train {model.split('/')[1]}"], "the same weights need no new targets"
    assert road.weights(mine) == before


def test_a_changed_teacher_makes_its_targets_and_pupils_stale(mine):
    folder = mine / "teachers/text-seed42"
    before, targets = road.weights(mine), road.content(mine / "targets")
    changed = {k: v * 1.5 for k, v in load_file(folder / "model.safetensors").items()}
    save_file(changed, folder / "model.safetensors")
    metadata = json.loads((folder / "model.json").read_text())
    metadata["weights"] = file_digest(folder / "model.safetensors")
    write_json(folder / "model.json", sealed(metadata))
    stages = road.walk(road.tiny(), mine, until="evaluate")
    assert stages == [
        "targets text-seed42",
        "train unet-s2kd-seed42",
        "score teacher-text-seed42 on test",
        "score unet-s2kd-seed42 on test",
    ]
    assert (
        road.weights(mine)["students/unet-s2kd-seed42/model.safetensors"]
        != before["students/unet-s2kd-seed42/model.safetensors"]
    )
    now = road.content(mine / "targets")
    assert now["text-seed42/latent.npy"] != targets["text-seed42/latent.npy"]
    assert now["no_text-seed42/latent.npy"] == targets["no_text-seed42/latent.npy"]


def test_a_student_holds_its_backbone_and_normaliser_and_no_more(done):
    names = [
        frozenset(load_file(done / model / "model.safetensors"))
        for model in road.MODELS
        if model.startswith("students")
    ]
    assert {name.split(".")[0] for name in names[0]} == {"backbone", "normaliser"}
    assert len(set(names)) == 1, "a method has left something in its student"


def test_targets_are_what_the_teacher_says(done):
    for kind in ("text", "no_text"):
        folder = done / "targets" / f"{kind}-seed42"
        run = pipeline.open_run(road.tiny(), done)
        teacher, _ = load_teacher(done / "teachers" / f"{kind}-seed42")
        windows = run.windows("train")
        number = torch.tensor([0, 17, len(windows) - 1])
        window = windows.gather(number)
        tokens = run.states("train").tokens(number) if kind == "text" else None
        with torch.no_grad():
            output = teacher(window.past, tokens)
        stored = np.load(folder / "latent.npy")
        assert stored.shape[0] == len(windows)
        np.testing.assert_allclose(stored[number], output.latent.numpy(), atol=2e-3, rtol=2e-3)
        stored = np.load(folder / "forecast.npy")[number]
        forecast = teacher.normaliser.decoded(output.future, window.past).numpy()
        np.testing.assert_allclose(stored, forecast, atol=2e-3, rtol=2e-3)


def test_the_words_matter_to_the_teacher_that_reads(done):
    run = pipeline.open_run(road.tiny(), done)
    teacher, _ = load_teacher(done / "teachers/text-seed42")
    window = run.windows("test").gather(torch.tensor([0]))
    with torch.no_grad():
        forecasts = [
            teacher(window.past, run.states("test").tokens(torch.tensor([number]))).future
            for number in (0, 9)
        ]
    assert not torch.equal(*forecasts)


# --- scores --------------------------------------------------------------------------------------

FIELDS = {
    "data", "preset", "backbone", "role", "method", "narrator", "reads_future", "seed", "split",
    "mse", "mae", "ssim", "window_mse", "hits", "recipe", "versions", "hardware", "fingerprint",
    "parameters",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(done):
    return json.loads((done / "scores.json").read_text())


def test_every_row_says_what_was_scored_on_what(done, rows):
    recipe = road.tiny()
    scores = pipeline.read_scores(done)["test"]
    assert FIELDS - set(scores.variables) == set()
    assert scores["model"].values.tolist()[-1] == "unet-s2kd-seed42"
    for row, model in zip(rows, each_model(scores), strict=True):
        assert (row["data"], row["preset"], row["split"]) == ("blobs", "tiny", "test")
        assert json.loads(model["recipe"].item()) == json.loads(json.dumps(recipe.to_dict()))
        assert row["fingerprint"] == world("blobs", **recipe.dataset.params).fingerprint
        assert row["reads_future"] is False
        versions = json.loads(model["versions"].item())
        assert {"s2kd", "torch", "numpy", "python"} <= set(versions)
        assert row["mse"] == pytest.approx(model["mse"].item(), rel=1e-5)
    about = [(row["role"], row["method"], row["narrator"]) for row in rows]
    assert about == [
        ("reference", "persistence", "none"),
        ("reference", "climatology", "none"),
        ("teacher", "teacher", "rules"),
        ("teacher", "teacher-no-text", "none"),
        ("student", "baseline", "none"),
        ("student", "output", "none"),
        ("student", "fitnet", "none"),
        ("student", "s2kd", "rules"),
    ]


def test_scores_kept_from_an_earlier_recipe_say_the_present_one(mine):
    recipe = road.tiny()
    training = structs.replace(recipe.teacher_training, epochs=99)
    changed = structs.replace(recipe, name="later", teacher_training=training)
    before = pipeline.read_scores(mine)["test"]
    (scores,) = pipeline.score_models(pipeline.Run(recipe=changed, out=mine), list(references()))
    assert set(scores["preset"].values) == {"later"}
    for model in each_model(scores):
        assert settings_of(model)["teacher_training"]["epochs"] == 99
    assert (scores["mse"].values == before["mse"].sel(model=scores["model"]).values).all()


@pytest.mark.parametrize("model", ["students/unet-s2kd-seed42", "teachers/text-seed42"])
def test_a_model_is_not_scored_on_data_that_have_changed_since(mine, model):
    metadata = json.loads((mine / model / "model.json").read_text())
    metadata["fingerprint"] = "before"
    write_json(mine / model / "model.json", sealed(metadata))
    kept = (mine / "scores.json").read_bytes()
    run = pipeline.open_run(road.tiny(), mine)
    with pytest.raises(S2KDError, match=rf"{model}: was trained on other data .*before.* 'blobs'"):
        pipeline.evaluate(run)
    assert (mine / "scores.json").read_bytes() == kept


def _test_windows(recipe, split="test"):
    dataset = world(recipe.dataset.name, **recipe.dataset.params)
    windows = WindowDataset(dataset, split, past=recipe.past, lead=recipe.lead)
    clips = np.stack([dataset.frames[s : s + recipe.past + recipe.lead] for s in windows.starts])
    train = np.concatenate([dataset.frames[s.first : s.stop] for s in dataset.splits["train"]])
    std = train.astype(np.float64).std((0, 2, 3))
    return clips[:, : recipe.past], clips[:, recipe.past :], std


def test_scores_agree_with_numpy_on_the_forecasters_frames(done, rows):
    past, future, std = _test_windows(road.tiny())
    for row in rows:
        if row["role"] == "student":
            forecaster = Forecaster.load(done, student=f"unet-{row['method']}-seed42")
            made = forecaster.predict(past)
        elif row["method"] == "persistence":
            made = np.repeat(past[:, -1:], future.shape[1], 1)
        else:
            continue
        error = (made.astype(np.float64) - future) / std[:, None, None]
        assert row["mse"] == pytest.approx(np.mean(error**2), rel=1e-4)
        assert row["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-4)


def test_the_validation_error_chooses_the_student_that_forecasts(done):
    cards = {
        path.parent.name: json.loads(path.read_text())["validation"]
        for path in done.glob("students/*/model.json")
    }
    best = min(cards, key=cards.get)
    assert Forecaster.load(done).metadata["method"] == best.split("-")[1]


def test_unseen_test_splits_are_scored_apart(tmp_path):
    recipe = structs.replace(
        road.tiny(),
        dataset=Part(name="plume", params=_PLUME),
        methods=(BASELINE,),
        student_training=structs.replace(road.QUICK, epochs=1),
        stride=4,
        test_stride=4,
    )
    road.walk(recipe, tmp_path / "run", until="evaluate")
    rows = json.loads((tmp_path / "run/scores.json").read_text())
    names = ["persistence", "climatology", "baseline"]
    dataset = world("plume", **_PLUME)
    splits = [split for split in dataset.splits if split.startswith("test")]
    assert len(splits) > 1
    assert [(r["split"], r["method"]) for r in rows] == [(s, n) for s in splits for n in names]
    errors = {row["split"]: row["mse"] for row in rows if row["method"] == "persistence"}
    assert len(set(errors.values())) == len(splits)
    assert not (tmp_path / "run/teachers").exists(), "no method asked for a teacher"


_PLUME = {"members": 3, "frames": 12, "spin_up_frames": 4, "height": 16, "width": 32}


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(S2KDError, match="not empty and holds no recipe"):
        pipeline.open_run(road.tiny(), tmp_path)
    assert road.content(tmp_path) == {"letter.txt": b"mine"}


def test_a_folder_in_which_nothing_was_done_takes_another_recipe(tmp_path):
    pipeline.open_run(road.tiny(), tmp_path / "run")
    changed = road.tiny().with_settings(["past=4"])
    pipeline.open_run(changed, tmp_path / "run")
    assert pipeline.load_recipe(tmp_path / "run") == changed


@pytest.mark.parametrize("text", ["[]", '{"recipe": 3}', "{", '{"recipe": {"name": "x"}}'])
def test_a_recipe_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(S2KDError, match="recipe"):
        pipeline.open_run(road.tiny(), tmp_path)
    with pytest.raises(S2KDError, match="recipe"):
        pipeline.load_recipe(tmp_path)
    assert (tmp_path / "recipe.json").read_text() == text
