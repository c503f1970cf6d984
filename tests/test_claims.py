"""Claims as data: constructed windows with known answers, the form, scores, and a verified run."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import road
from worlds import world

from s2kd import pipeline
from s2kd.core.types import GridSpec, Past, S2KDError, Statistics
from s2kd.data.statistics import QUANTILES, statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import (
    Claim,
    check,
    claims_of,
    extract,
    form_prompt,
    parse,
    schema,
    verify,
)
from s2kd.narration.facts import scenes
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.quantities import QUANTITIES
from s2kd.narration.store import read_narratives
from s2kd.pipeline import verify as verifying

HEIGHT, WIDTH, STEPS = 24, 36, 8


def blob(row, column, size=3.0):
    rows, columns = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))


def make_past(frames, channels, units, domain, **setting):
    count, frames = len(channels), np.asarray(frames, dtype=np.float32)
    grid = GridSpec(
        channels=channels,
        units=units,
        height=frames.shape[2],
        width=frames.shape[3],
        step_seconds=21600.0,
    )
    train_stats = Statistics(
        mean=(0.0,) * count,
        std=(1.0,) * count,
        minimum=(-2.0,) * count,
        maximum=(2.0,) * count,
        quantiles={q: (4 * q - 2,) * count for q in QUANTILES},
    )
    return Past(frames=frames, grid=grid, domain=domain, statistics=train_stats, **setting)


@pytest.fixture(scope="module")
def pasts():
    """One past per domain whose facts are known by construction."""
    rows, columns, time = np.arange(HEIGHT)[:, None], np.arange(WIDTH), range(STEPS)
    # a warm blob crosses the north from west to east and grows; heights fall in the south-west
    warm = [1.2 * (1 + 0.1 * t) * blob(4, 6 + 3.4 * t) + 0.03 * t for t in time]
    low = [-(0.3 + 0.22 * t) * blob(20, 5, 4.0) for t in time]
    # arrivals grow in the centre, departures shrink in the west
    arrive = [0.5 + (0.5 + 0.2 * t) * blob(12, 18) for t in time]
    leave = [0.5 + (1.9 - 0.2 * t) * blob(12, 5) for t in time]
    # a hot column from the bottom leans to the right and rises
    centre = 10 + (HEIGHT - 1 - rows) * 0.9
    hot = [(2.5 + 0.05 * t) * (np.abs(columns - centre) < 2.5) * (rows > 12 - t) for t in time]
    return {
        "weather": make_past(np.stack([warm, low], 1), ("t850", "z500"), ("K", "m"), "weather"),
        "traffic": make_past(
            np.stack([arrive, leave], 1), ("inflow", "outflow"), ("1", "1"), "traffic"
        ),
        "fire": make_past(np.stack(hot)[:, None], ("temperature",), ("degC",), "fire"),
    }


CLAIMS = [
    ("weather", "trend", "t850", "rising", True),
    ("weather", "trend", "t850", "steady", False),
    ("weather", "trend", "z500", "falling", True),
    ("weather", "recent_trend", "t850", "falling", False),
    ("weather", "maximum", "t850", "north-east", True),
    ("weather", "maximum", "t850", "north", None),  # the next third
    ("weather", "maximum", "t850", "south-west", False),
    ("weather", "maximum", "t850", "nowhere", False),
    ("weather", "minimum", "z500", "south-west", True),
    ("weather", "largest_rise", "t850", "north-east", True),
    ("weather", "largest_fall", "z500", "south-west", True),
    ("weather", "largest_rise", "z500", "nowhere", True),
    ("weather", "movement", "t850", "eastward", True),
    ("weather", "movement", "t850", "north-eastward", None),  # 45° off
    ("weather", "movement", "t850", "westward", False),
    ("weather", "movement", "t850", "none", False),
    ("weather", "ridge", "t850", "south-west", False),
    ("weather", "trough", "z500", "south-west", True),
    ("weather", "level", "t850", "very low", False),
    ("weather", "trend", "q700", "rising", None),  # no such channel
    ("weather", "plume_tilt", "", "upright", None),  # no such quantity in the domain
    ("traffic", "trend", "inflow", "rising", True),
    ("traffic", "trend", "outflow", "falling", True),
    ("traffic", "maximum", "inflow", "centre", True),
    ("traffic", "shift", "inflow", "none", True),
    ("traffic", "shift", "inflow", "eastward", False),
    ("traffic", "gain", "", "centre", True),
    ("traffic", "loss", "", "north-east", False),
    ("fire", "plume_tilt", "", "to the right", True),
    ("fire", "plume_tilt", "", "to the left", False),
    ("fire", "plume_height", "", "tall", True),
    ("fire", "plume_height", "", "low", False),
    ("fire", "fire_heat", "", "growing", True),
    ("fire", "fire_heat", "", "decaying", False),
]


@pytest.mark.parametrize(("domain", "quantity", "channel", "value", "verdict"), CLAIMS)
def test_claims_about_constructed_windows(domain, quantity, channel, value, verdict, pasts):
    (scene,) = scenes([pasts[domain]])
    claim = Claim(quantity=quantity, channel=channel, value=value)
    assert check(claim, scene) is verdict


def test_numbers_near_a_limit_leave_the_next_class_open():
    level = QUANTITIES["level"]
    (scene,) = scenes([make_past(np.zeros((2, 1, 6, 6)), ("t",), ("K",), "weather")])
    verdicts = {
        anomaly: level.verdicts(scene, replace(scene.facts[0], anomaly=anomaly))
        for anomaly in (0.0, 0.19, 0.21, 0.3, 5.0)
    }
    assert [verdicts[x]["usual"] for x in (0.0, 0.19, 0.21, 0.3)] == [True, True, None, False]
    assert [verdicts[x]["high"] for x in (0.0, 0.19, 0.21, 5.0)] == [False, None, True, False]
    assert verdicts[0.21]["very high"] is False
    assert verdicts[5.0]["very high"] is True


def noise(seed, domain, channels):
    frames = np.random.default_rng(seed).standard_normal((6, len(channels), 6, 9)).cumsum(0)
    return make_past(frames + np.roll(frames, 1, -1), channels, ("K",) * len(channels), domain)


@pytest.mark.parametrize(
    ("domain", "channels"),
    [
        ("weather", ("t2m", "t850", "z500")),
        ("traffic", ("inflow", "outflow")),
        ("traffic", ("bikes",)),
        ("fire", ("temperature", "u")),
        ("fire", ("visibility_x", "w")),
        ("generic", ("alpha", "beta")),
    ],
)
def test_facts_support_exactly_one_value_of_every_quantity(domain, channels):
    for scene in scenes([noise(seed, domain, channels) for seed in range(30)]):
        claims = claims_of(scene)
        subjects = [(claim.quantity, claim.channel) for claim in claims]
        assert len(set(subjects)) == len(subjects)
        assert {c.channel for c in claims} - {""} == set(channels)
        for claim in claims:
            quantity = QUANTITIES[claim.quantity]
            assert check(claim, scene) is True
            assert set(quantity.verdicts(scene, scene.facts[0])) == set(quantity.values(domain))


# --- the form ------------------------------------------------------------------------------------


def accepts(form, item):
    """A slow, direct reading of the part of JSON Schema in use."""
    return any(
        set(item) == set(each["required"])
        and all(item[name] in each["properties"][name]["enum"] for name in item)
        for each in form["items"]["anyOf"]
    )


@pytest.mark.parametrize("domain", ["weather", "traffic", "fire", "generic"])
def test_the_form_accepts_what_can_be_parsed_and_nothing_else(domain):
    grid = noise(0, domain, ("a1", "b2")).grid
    labels, form = ("first", "second"), schema(domain, ("first", "second"))
    for name, quantity in QUANTITIES.items():
        for value in (*quantity.values(domain), "sideways"):
            for label in ("first", "third", ""):
                item = {"quantity": name, "channel": label, "value": value}
                if accepts(form, item):
                    (claim,) = parse([item], domain, grid, labels)
                    assert claim == Claim(
                        quantity=name, channel={"first": "a1", "": ""}[label], value=value
                    )
                else:
                    with pytest.raises(S2KDError, match="is no claim of the form"):
                        parse([item], domain, grid, labels)


def test_free_text_is_put_into_the_form_by_a_model(pasts):
    past, labels, questions = pasts["weather"], ("temperature", "height"), []

    def ask(prompt, form):
        questions.append(prompt)
        assert accepts(form["properties"]["claims"], items[0])
        return json.dumps({"claims": items})

    items = [{"quantity": "trend", "channel": "height", "value": "falling"}]
    text = "Heights drop, perhaps because of a storm."
    assert extract(text, past, labels, ask) == (
        Claim(quantity="trend", channel="z500", value="falling"),
    )
    assert questions == [form_prompt(text, "weather", labels)]
    assert text in questions[0]
    assert "- movement: direction in which patterns move" in questions[0]
    for answer in ("I cannot.", "[]", '{"claims": [{"quantity": "trend"}]}', '{"claims": ["up"]}'):
        assert extract(text, past, labels, lambda prompt, form, answer=answer: answer) is None


# --- scores --------------------------------------------------------------------------------------


def test_a_narrative_is_counted_claim_by_claim(pasts):
    claims = [
        Claim(quantity=quantity, channel=channel, value=value)
        for domain, quantity, channel, value, _ in CLAIMS
        if domain == "weather"
    ]
    expected = [verdict for domain, *_, verdict in CLAIMS if domain == "weather"]
    result = verify([claims, None, []], lambda number: pasts["weather"])
    first, unchecked, empty = result.narratives
    assert (first.supported, first.contradicted, first.unverifiable) == (
        expected.count(True),
        expected.count(False),
        expected.count(None),
    )
    assert first.score == pytest.approx(
        expected.count(True) / (expected.count(True) + expected.count(False))
    )
    assert first.wrong == tuple(c for c, v in zip(claims, expected, strict=True) if v is False)
    assert (unchecked.checked, unchecked.score) == (False, None)
    assert (empty.checked, empty.score) == (True, None)
    assert result.row["unchecked"] == 1
    assert result.row["claims"] == len(claims)
    assert verify([], lambda number: None).row["score"] is None


WORLDS = {
    "atmosphere": {"members": 3, "days": 25, "spin_up_days": 10, "height": 20, "width": 40},
    "plume": {},
    "blobs": {"size": 16, "runs": 8, "length": 40},
}


@pytest.fixture(scope="module", params=WORLDS)
def narrated(request):
    """Pasts of a simulated world and the claims of the rules narrator."""
    dataset = world(request.param, **WORLDS[request.param])
    windows, train_stats = (
        WindowDataset(dataset, "train", past=8, lead=2, stride=4),
        statistics(dataset),
    )
    pasts = [windows.past_of(i, train_stats) for i in range(min(len(windows), 90))]
    return pasts, narrators.build("rules").claims(pasts)


def test_the_rules_claim_only_what_holds(narrated):
    pasts, claims = narrated
    row = verify(claims, pasts.__getitem__).row
    assert (row["score"], row["skill"], row["supported"]) == (1.0, 1.0, 1.0)
    assert row["claims"] > 6 * len(claims)


def test_claims_of_another_window_score_by_chance_and_so_in_any_order(narrated):
    pasts, claims = narrated
    shuffled = narrators.build("shuffled", seed=3).rearrange(claims)
    row = verify(shuffled, pasts.__getitem__).row
    assert row["score"] == pytest.approx(row["chance"], abs=0.08)
    assert row["score"] < 0.95
    assert abs(row["skill"]) < 0.25
    again = verify(shuffled, pasts.__getitem__, seed=1).row["chance"]
    assert row["chance"] == pytest.approx(again, abs=0.08)


# --- a run: verified, asked again, dropped -------------------------------------------------------


class Liar(Narrator):
    """The rules, with opposite claims for every third window and better ones when asked again."""

    reads_future, version, varies = False, "liar-1", True

    def __init__(self, attempt=0):
        self.rules, self.attempt, self.attempts = narrators.build("rules"), attempt, []

    def narrate(self, pasts):
        return [f"{text} {self.attempt}" for text in self.rules.narrate(pasts)]

    def claims(self, pasts):
        return [
            self._false(past, claims)
            for past, claims in zip(pasts, self.rules.claims(pasts), strict=True)
        ]

    def retry(self, attempt):
        self.attempts.append(attempt)
        return Liar(attempt)

    def _false(self, past, claims):
        number = int(past.digest, 16)
        if number % 3 or (self.attempt and number % 2):
            return claims
        (scene,) = scenes([past])
        return tuple(
            replace(claim, value=value)
            for claim in claims
            for value in QUANTITIES[claim.quantity].values(scene.domain)
            if check(replace(claim, value=value), scene) is False
        )


@pytest.fixture
def run(tmp_path):
    """A run of which a third of the narratives are false."""
    opened = pipeline.open_run(road.tiny(), tmp_path / "run")
    opened.__dict__["narrator"] = Liar()
    return opened


def low_scores(run, split):
    lines = [json.loads(line) for line in (run.out / "faithfulness.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line["split"] == split and line["score"] is not None]
    return [line for line in scored if line["score"] < 0.5]


def test_a_run_is_verified_with_what_was_wrong(run):
    rows = verifying.verify_run(run)
    assert [row["split"] for row in rows] == ["train", "val", "test"]
    for row in rows:
        assert row["supported"] + row["contradicted"] + row["unverifiable"] == pytest.approx(1)
        assert 0 < row["score"] < 1
        assert (row["unchecked"], row["dropped"], row["empty"]) == (0, 0, 0)
    saved = json.loads((run.out / "faithfulness.json").read_text())
    assert saved == {"version": "claims-1", "splits": rows}
    worst = low_scores(run, "train")
    assert worst
    assert set(worst[0]["wrong"][0]) == {"quantity", "value", "channel"}
    head, cells = verifying.table(rows)
    assert [len(line) for line in cells] == [len(head)] * 3
    assert verifying.legend(rows).startswith("narrator: rules; reads the future: no")


def test_narratives_without_claims_are_unchecked(tmp_path):
    run = pipeline.open_run(road.tiny(), tmp_path / "run")

    class Free(Narrator):
        reads_future, version = False, "free-1"

        def narrate(self, pasts):
            return ["It rises."] * len(pasts)

    run.__dict__["narrator"] = Free()
    for row in verifying.verify_run(run, drop_below=0.5):
        assert (row["unchecked"], row["claims"]) == (row["narratives"], 0)
        assert (row["score"], row["dropped"], row["empty"]) == (None, 0, 0)
    # then a model fills in the claims of all but one text
    answers = iter(["no form"])
    filled = json.dumps(
        {"claims": [{"quantity": "trend", "channel": "density", "value": "steady"}]}
    )
    rows = verifying.verify_run(run, ask=lambda prompt, form: next(answers, filled))
    lines = {line.key: line.claims for line in read_narratives(run.out / "narratives.jsonl")}
    assert sum(claims is None for claims in lines.values()) == 1
    assert sum(row["claims"] for row in rows) == sum(
        row["narratives"] - row["unchecked"] for row in rows
    )
    assert rows[0]["score"] > 0.5
    verifying.verify_run(run, ask=lambda prompt, form: filled)  # asks for the last one only
    assert read_narratives(run.out / "narratives.jsonl")[-1].note == "claims filled in"


def test_the_worst_are_dropped_and_their_windows_have_no_words(run):
    verifying.verify_run(run)
    worst = {line["index"] for line in low_scores(run, "train")}
    rows = verifying.verify_run(run, drop_below=0.5)
    assert rows[0]["dropped"] > 0
    assert rows[0]["score_before"] < rows[0]["score"]
    assert rows[0]["empty"] == len(worst)  # equal windows share their narrative
    assert rows[0]["score"] == 1
    pipeline.narrate(run)
    states = run.states("train")
    assert worst == {i for i in range(len(states)) if states.lengths[states.index[i]] == 0}
    again = verifying.verify_run(run, drop_below=0.5)
    assert [row["dropped"] for row in again] == [0, 0, 0]
    assert again[0]["empty"] == len(worst)


def test_the_worst_are_asked_again_and_the_better_stored(run):
    before = verifying.verify_run(run)
    worst = {line["index"] for line in low_scores(run, "train")}
    rows = verifying.verify_run(run, ask_again=2)
    assert run.narrator.attempts[:2] == [1, 2]
    assert rows[0]["asked_again"] > 0
    assert before[0]["score"] < rows[0]["score"] < 1
    assert worst > {line["index"] for line in low_scores(run, "train")} > set()
    lines = read_narratives(run.out / "narratives.jsonl")
    better = [line for line in lines if line.note]
    assert all(re.fullmatch(r"asked again: score 1\.00, was 0\.\d\d", b.note) for b in better)
    assert all(line.claims for line in better)
    assert len(lines) == len({line.key for line in lines}) + len(better)  # old lines stay


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_below": 1.5}, r"--drop-below 1\.5: must be a score above 0"),
        ({"drop_below": 0.0}, "must be a score above 0"),
        ({"ask_again": -1}, "must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(run, settings, message):
    with pytest.raises(S2KDError, match=message):
        verifying.verify_run(run, **settings)


def test_only_some_narrators_are_asked_again_or_dropped(run):
    run.__dict__["narrator"] = narrators.build("rules")
    with pytest.raises(S2KDError, match="always gives the same text"):
        verifying.verify_run(run, ask_again=1)
    run.__dict__["narrator"] = narrators.build("shuffled")
    with pytest.raises(S2KDError, match="hands round the narratives of 'rules'"):
        verifying.verify_run(run, drop_below=0.5)
    rows = verifying.verify_run(run)
    assert all(row["score"] < 0.95 for row in rows)


def test_shards_of_a_run_are_joined_by_cat(tmp_path):
    parts = []
    for number in (1, 2):
        part = pipeline.open_run(road.tiny(), tmp_path / f"part{number}")
        pipeline.narrate_shard(part, pipeline.parse_shard(f"{number}/2"))
        parts.append(part.out)
    run = pipeline.open_run(road.tiny(), tmp_path / "joined")
    store = run.out / "narratives.jsonl"
    store.parent.mkdir(exist_ok=True)
    store.write_bytes(b"".join((part / store.name).read_bytes() for part in parts))
    before = store.read_bytes()
    pipeline.narrate(run)
    assert store.read_bytes() == before
    assert len(run.states("train")) == len(run.windows("train"))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_impossible_shards_are_refused(text):
    with pytest.raises(S2KDError, match="must be I/N with I from 1 to N"):
        pipeline.parse_shard(text)
