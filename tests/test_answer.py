"""The answer in units, by hand: errors, intervals, verdicts, shares, sentences, the frontier."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import road
import xarray as xr
from msgspec import structs

from s2kd import pipeline
from s2kd.core.errors import S2KDError
from s2kd.evaluation.answer import (
    TIME_OVER,
    Answer,
    Candidate,
    Cost,
    answer_of,
    frontier,
    frontier_candidates,
    headline,
    json_schema,
    lead_text,
    leaderboard,
    pareto_front,
    problems,
    unverified,
)
from s2kd.evaluation.results import describe_model, join_models

PATTERN = np.array([1.0, -1, 1, -1, 1, -1, 1, -1])
T_7 = 2.3646242510  # Student's 97.5 % quantile, 7 degrees of freedom


def model(role, backbone, method, errors, *, seed=1, parameters=0, validation=None):
    """Eight independent windows, their squared errors (K²) at lead 1; at lead 2 four times that."""
    squared = np.multiply.outer(errors, [1.0, 4.0])[..., None]
    scores = xr.Dataset(
        {
            "window_squared_error": (("window", "lead", "channel"), squared),
            "window_mse": ("window", squared.mean((1, 2)) / 100),
            "mse": squared.mean() / 100,
        },
        {"lead": [1, 2], "channel": ["t"], "unit": ("channel", ["K"])},
        {"windows": 8, "overlap": 1, "windows_per_time": 1, "step_seconds": 21_600.0},
    )
    return describe_model(
        scores, data="air", preset="small", split="test", role=role, backbone=backbone,
        method=method, seed=None if role == "reference" else seed, parameters=parameters,
        latency_ms=None if role == "reference" else 9.0, validation=validation,
    )  # fmt: skip


LEVELS = {"persistence": 4.0, "climatology": 6.0, "teacher": 1.0, "baseline": 2.0, "s2kd": 1.25}


def scored(**levels):
    """Windows scatter by half a level about it, so that every difference is clear."""
    levels = LEVELS | levels
    roles = {"persistence": "reference", "climatology": "reference", "teacher": "teacher"}
    return {
        "test": join_models(
            [
                model(
                    roles.get(name, "student"),
                    {"teacher": "simvp"}.get(name, name if name in roles else "unet"),
                    name,
                    level * (1 + PATTERN / 2),
                    parameters={"teacher": 1_200_000}.get(name, 0 if name in roles else 120_000),
                    validation=None if name in roles and name != "teacher" else level / 100,
                )
                for name, level in levels.items()
            ]
        )
    }


def candidate(label, latency, validation, method="s2kd", state="finished", **more):
    return Candidate(
        student=f"unet-{label}", settings={}, method=method, label=label, bytes=480_000,
        runtime="ONNX",
        latency_ms=latency, validation=validation, seconds=10.0, epochs=5, state=state,
        **({"parameters": 120_000} | more),
    )  # fmt: skip


CANDIDATES = (
    candidate("wide", 3.0, 0.011, parameters=900_000),
    candidate("small", 2.0, 0.0125),
    candidate("slow", 4.0, 0.0125, parameters=700_000),
    candidate("huge", 8.0, None, state="over_budget", reason="8 ms > 5 ms", parameters=10**7),
)
COSTS = {
    "unet s2kd": Cost(
        latency_ms=2.0, bytes=480_000, parameters=120_000, seconds=30.0, runtime="ONNX"
    ),
    "teacher": Cost(
        latency_ms=7.2, bytes=4_800_000, parameters=1_200_000, seconds=None, runtime="ONNX"
    ),
}


def answer(chosen="unet s2kd", search=None, **levels):
    return answer_of(
        scored(**levels), chosen=chosen, baseline="unet baseline", costs=COSTS,
        candidates=CANDIDATES, search=search or {},
    )  # fmt: skip


def test_errors_in_units_with_their_interval_by_hand():
    by_lead = answer().forecaster("unet s2kd").scores["test"].rmse["t"]
    for lead, scale in enumerate((1.0, 4.0)):
        squared = 1.25 * scale * (1 + PATTERN / 2)
        rmse = math.sqrt(1.25 * scale)
        half = T_7 * squared.std(ddof=1) / math.sqrt(8) / (2 * rmse)
        assert by_lead[lead].value == pytest.approx(rmse, rel=1e-6)
        assert by_lead[lead].low == pytest.approx(rmse - half, rel=1e-4)
        assert by_lead[lead].high == pytest.approx(rmse + half, rel=1e-4)


def test_the_share_of_the_gap_only_where_it_is_clear():
    share = answer().gap_closed_percent["test"]
    assert share.value == pytest.approx(75.0, rel=1e-5)
    assert share.low == pytest.approx(75.0, rel=1e-4)  # every window says the same
    assert answer(teacher=2.5).gap_closed_percent["test"].value is None
    assert answer(teacher=2.0).gap_closed_percent["test"].value is None
    assert answer(chosen="unet baseline").gap_closed_percent["test"].value is None


def test_the_headline_says_what_the_numbers_are():
    assert headline(answer()) == (
        "U-Net (S²-KD), 0.12\u202fM parameters, 2 ms, 10 times smaller and 3.6 times faster than "
        "its teacher: RMSE at 12 h: 2.24 K (no distillation 2.83, teacher 2.00, persistence 4.00, "
        "climatology 4.90); 75 % of the gap between no distillation and the teacher."
    )


def test_the_headline_says_where_there_is_nothing_to_close():
    assert "; the teacher is not clearly better than no distillation." in headline(
        answer(teacher=2)
    )


def test_networks_of_one_size_share_the_lowest_latency():
    scores = scored()["test"]
    times = np.where(scores["method"].values == "s2kd", 3.0, scores["latency_ms"].values)
    scores = scores.assign_coords(latency_ms=("model", times))
    made = answer_of(
        {"test": scores}, chosen="unet s2kd", baseline="unet baseline", costs={}, candidates=(),
        search={},
    )  # fmt: skip
    latency = {f.name: f.cost and f.cost.latency_ms for f in made.forecasters}
    assert latency == {
        "persistence": None, "climatology": None, "teacher": 9.0, "unet baseline": 3.0,
        "unet s2kd": 3.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "first"),
    [
        ({"s2kd": 5.0}, "It does not beat persistence. U-Net"),
        ({"s2kd": 7.0}, "It does not beat persistence. It does not beat climatology. U-Net"),
        ({"s2kd": 4.0}, "It does not beat persistence. U-Net"),
    ],
)
def test_a_reference_that_is_not_beaten_comes_first(levels, first):
    assert headline(answer(**levels)).startswith(first)


def test_the_remedy_depends_on_the_teacher():
    (persistence, remedy), *others = problems(answer(s2kd=5.0))
    assert (persistence, others) == ("It does not beat persistence.", [])
    assert remedy.startswith("Its teacher does: more --time")
    few = answer(s2kd=5.0, teacher=4.5, search={"windows": {"train": 77}})
    (problem,) = problems(few)
    assert "Nor does its teacher: it takes more training windows than the 77 here" in problem[1]
    assert "--teacher" in problem[1]
    assert problems(answer()) == []
    (chance,) = problems(answer(s2kd=4.0))  # as persistence, window by window
    assert chance[1].startswith("Its teacher does")


def test_verdicts_are_of_the_chosen_against_each_line():
    scores = {f.name: f.scores["test"] for f in answer().forecasters}
    assert {name: s.chosen_is for name, s in scores.items()} == {
        "persistence": "better", "climatology": "better", "teacher": "worse",
        "unet baseline": "better", "unet s2kd": "",
    }  # fmt: skip
    assert scores["teacher"].chosen_is_by_lead == {"t": ("worse", "worse")}
    # as good on average, better in half of the windows
    group = scored(baseline=1.25)["test"].copy(deep=True)
    place = group["method"].values.tolist().index("baseline")
    for name in ("window_mse", "window_squared_error"):
        group[name][place] = np.roll(group[name].sel(model="unet-s2kd-seed1").values, 1, axis=0)
    made = answer_of(
        {"test": group}, chosen="unet s2kd", baseline="unet baseline", costs={}, candidates=(),
        search={},
    )  # fmt: skip
    assert made.forecaster("unet baseline").scores["test"].chosen_is == "unclear"


def test_the_leaderboard_has_a_line_each_and_no_mark_of_significance():
    table = leaderboard(answer())
    lines = {line[0]: line for line in table.lines}
    assert list(lines) == [
        "climatology", "persistence", "teacher", "U-Net (no distillation)", "▸ U-Net (S²-KD)",
    ]  # fmt: skip
    assert lines["teacher"][1].startswith("2.00 [")
    assert lines["teacher"][2:] == ("0.025", "worse", "7.20", "4.80", "–")
    assert lines["▸ U-Net (S²-KD)"][2:] == ("0.031", "–", "2.00", "0.48", "30")
    assert lines["U-Net (no distillation)"][4:] == ("9.00", "0.48", "–")  # of the scores
    assert not any("*" in cell for line in table.lines for cell in line)


def test_the_frontier_leaves_out_what_is_slower_and_no_better():
    made = answer()
    assert [c.label for c in pareto_front(frontier_candidates(made))] == [
        "small",
        "wide",
        "teacher",
    ]
    table = frontier(made)
    rows = {line[0]: line for line in table.lines}
    small, wide, slow = (f"U-Net {size} (S²-KD)" for size in ("small", "wide", "slow"))
    assert list(rows) == [f"▸ {small}", wide, slow, "teacher"]  # by latency
    assert table.caption.endswith(f"Not tried: {made.candidates[-1].student}.")
    assert rows[f"▸ {small}"] == (
        f"▸ {small}", "2.00", "0.12\u202fM", "0.0125", "0.0312", "yes", "finished",
    )  # fmt: skip
    assert rows[wide][4] == "–"  # not read on test


def test_the_file_keeps_everything_and_refuses_what_does_not_fit():
    made = answer(search={"minutes": 20, "missing_months": ["Jan"]})
    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert Answer.from_dict(plain) == made
    assert headline(made) in repr(made)
    assert set(plain) == set(json_schema()["$defs"]["Answer"]["properties"])
    page = (Path(__file__).parent.parent / "docs/answer.md").read_text("utf-8")
    for struct in json_schema()["$defs"].values():
        assert [n for n in struct["properties"] if f"| `{n}` |" not in page] == []
    plain["forecasters"][0]["role"] = "oracle"
    with pytest.raises(S2KDError, match=r"answer.json: forecasters\[0\].role.*oracle"):
        Answer.from_dict(plain)
    assert "trained with 1" in unverified(made)[0]
    assert "Jan" in unverified(made)[1]


def test_a_student_that_was_not_scored_is_refused():
    with pytest.raises(S2KDError, match="'unet fitnet' was not scored"):
        answer(chosen="unet fitnet")


def test_lead_times_in_words():
    seconds = (20.0, 600.0, 3600.0, 86_400.0, 259_200.0)
    assert [lead_text(s) for s in seconds] == ["20 s", "10 min", "1 h", "24 h", "3 days"]


def test_of_a_finished_run():
    scores = pipeline.read_scores(road.finished())
    made = answer_of(
        scores, chosen="unet s2kd", baseline="unet baseline", costs={}, candidates=(), search={}
    )
    assert made.teacher == "teacher"
    for forecaster in made.forecasters:
        group = scores["test"].isel(model=(scores["test"]["method"] == forecaster.method).values)
        for channel, values in forecaster.scores["test"].rmse.items():
            expected = group["rmse_by_lead"].sel(channel=channel).values.ravel()
            np.testing.assert_allclose([v.value for v in values], expected, rtol=1e-5)


def test_a_baseline_that_had_less_time_gives_no_share_of_the_gap():
    made = answer()
    share = made.gap_closed_percent["test"].value
    assert f"{share:.0f} % of the gap" in headline(made)
    rows = [
        *made.candidates,
        candidate("plain", 2.0, 0.02, method="baseline", reason=TIME_OVER, parameters=120_000),
    ]
    cut = structs.replace(made, candidates=tuple(rows))
    assert "of the gap" not in headline(cut)
    assert "fewer epochs" in headline(cut)
    assert "no distillation trained for as many epochs" in unverified(cut)
