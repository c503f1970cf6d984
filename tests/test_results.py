"""Files of results: what is written comes back, and what differs is refused by name."""

import json

import numpy as np
import pytest
import road
import xarray as xr

from s2kd.core.errors import S2KDError
from s2kd.evaluation.results import (
    add_models,
    describe_model,
    one_recipe,
    read_results,
    read_scores,
    same_training,
    save_result,
    select,
)

RECIPE = {
    "dataset": {"name": "cf", "params": {"path": "/home/somebody/air.nc", "gap": 8}},
    "past": 4,
    "student_training": {"epochs": 14, "lr": 0.00123456789},
    "methods": [{"name": "s2kd", "teacher": "text", "weight": 1.0}],
    "students": [{"name": "unet", "params": {"width": 8}}],
}


def scores_of(mse=0.5, *, windows=6, observed=3, **fields):
    """The scores of one student, as `save_result` wants them."""
    dims = ("window", "lead", "channel", "event")
    counts = np.arange(windows * 2 * 3, dtype=np.int32).reshape(windows, 2, 1, 3)
    values = {
        "mse": ((), np.float32(mse)),
        "window_mse": ("window", np.full(windows, mse, np.float32)),
        "hits": (dims, counts),
        "observed": (dims, counts + observed),
    }
    coords = {"channel": ["air"], "event": ["above 90 %", "above 95 %", "above 99.5 %"]}
    defaults = {
        "data": "ncep_air", "preset": "small", "variant": "rules", "split": "test",
        "role": "student", "backbone": "unet", "method": "s2kd", "seed": 42, "narrator": "rules",
        "fingerprint": "x", "recipe": RECIPE, "versions": {"s2kd": "1"},
    }  # fmt: skip
    return describe_model(
        xr.Dataset(values, coords, {"windows": windows}), **{**defaults, **fields}
    )


def test_a_result_comes_back_without_folders_of_this_machine(tmp_path):
    path = save_result(tmp_path, scores_of())
    assert path == tmp_path / "ncep_air-small-test.nc"
    ((name, scores),) = read_results(tmp_path).items()
    assert name == "ncep_air-small-test"
    assert scores["model"].values.tolist() == ["rules/unet-s2kd-seed42"]
    assert scores["event"].values.tolist() == ["above 95 %", "above 99.5 %"]
    expected = scores_of().isel(event=[1, 2])
    xr.testing.assert_equal(scores.drop_vars("recipe"), expected.drop_vars("recipe"))
    assert json.loads(scores["recipe"].item())["dataset"]["params"]["path"] == "air.nc"
    assert b"somebody" not in path.read_bytes()
    path.write_text("{}")
    with pytest.raises(S2KDError, match="not readable as NetCDF"):
        read_results(tmp_path)


def test_models_are_added_replaced_and_selected_by_seed(tmp_path):
    for seed, mse in ((44, 0.4), (42, 0.2), (43, 0.3), (42, 0.1)):
        save_result(tmp_path, scores_of(mse, seed=seed))
    reference = scores_of(9.0, role="reference", backbone="persistence", seed=None)
    (path,) = {save_result(tmp_path, s) for s in (reference.assign(rollout_mse=("step", [1.0])),)}
    scores = read_scores(path)
    assert scores.sizes["model"] == 4
    students = select(scores, role="student")
    assert students["seed"].values.tolist() == [42, 43, 44]
    assert students["mse"].values == pytest.approx([0.1, 0.3, 0.4])
    assert scores["observed"].dims == ("window", "lead", "channel", "event")
    assert select(scores, role="teacher").sizes["model"] == 0


def test_models_of_other_windows_do_not_share_a_file(tmp_path):
    save_result(tmp_path, scores_of())
    for variant, name in ((scores_of(windows=7, seed=1), "windows"),
                        (scores_of(observed=4, seed=1), "observed")):  # fmt: skip
        with pytest.raises(S2KDError, match=rf"unet-s2kd-seed1 was scored on other .*{name}"):
            save_result(tmp_path, variant)


def _save_some(folder, seeds):
    for seed in seeds:
        save_result(folder, scores_of(seed=seed))


def test_processes_that_write_to_one_file_lose_nothing(tmp_path):
    workers = [road.forked(_save_some, tmp_path, part) for part in (range(3), range(3, 6))]
    for worker in workers:
        worker.join()
    (scores,) = read_results(tmp_path).values()
    assert sorted(scores["seed"].values.tolist()) == list(range(6))


def test_data_are_the_same_whatever_their_folder_is_called():
    def changed(**changes):
        return {**RECIPE, **changes}

    dataset = {"name": "cf", "params": {"path": "/data/elsewhere/air.nc", "gap": 8}}
    longer = {"name": "cf", "params": {"path": "/data/elsewhere/air.nc", "gap": 9}}
    method = {"name": "s2kd", "teacher": "text", "weight": 0.5}
    scores = scores_of()
    assert same_training(scores, changed(dataset=dataset), "1")
    assert same_training(scores, changed(seeds=[1], methods=[*RECIPE["methods"], method]), "1")
    assert not same_training(scores, changed(dataset=longer), "1")
    assert not same_training(scores, changed(methods=[method]), "1")
    assert not same_training(scores, changed(students=[{"name": "unet", "params": {}}]), "1")
    assert not same_training(scores, RECIPE, "2")


def test_models_of_two_recipes_are_not_compared(tmp_path):
    path = tmp_path / "scores.nc"
    add_models(path, scores_of())
    variant = {**RECIPE, "past": 6}
    add_models(path, scores_of(seed=43, recipe={**RECIPE, "seeds": [43]}))
    one_recipe(read_scores(path))
    add_models(path, scores_of(seed=44, recipe=variant))
    with pytest.raises(S2KDError, match=r"past=4, rules/unet-s2kd-seed44 with past=6: not to be"):
        one_recipe(read_scores(path))
    one_recipe(read_scores(path), free=["past"])
    add_models(path, scores_of(seed=44, fingerprint="y"))
    with pytest.raises(S2KDError, match="fingerprint=y"):
        one_recipe(read_scores(path))
