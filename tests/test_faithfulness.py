import json
import re
from dataclasses import replace

import numpy as np
import pytest
import road
from hypothesis import given, settings
from hypothesis import strategies as st

from s2kd import pipeline
from s2kd.core.types import GridSpec, Past, S2KDError, Statistics
from s2kd.data import datasets
from s2kd.data.statistics import QUANTILES, statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import Reader, sentences
from s2kd.narration.faithfulness import Faithfulness, verdicts, verify, verify_windows
from s2kd.narration.narrators import narrators
from s2kd.narration.store import read_narratives
from s2kd.pipeline import narrating as narration

HEIGHT, WIDTH, STEPS = 24, 36, 8


def blob(row, column, size=3.0):
    rows, columns = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))


def past_of(frames, channels, units, domain, **rest):
    count = len(channels)
    grid = GridSpec(
        channels=channels, units=units, height=HEIGHT, width=WIDTH, step_seconds=21600.0
    )
    known = Statistics(
        mean=(0.0,) * count,
        std=(1.0,) * count,
        minimum=(-2.0,) * count,
        maximum=(2.0,) * count,
        quantiles={q: (4 * q - 2,) * count for q in QUANTILES},
    )
    frames = np.asarray(frames, dtype=np.float32)
    return Past(frames=frames, grid=grid, domain=domain, statistics=known, **rest)


@pytest.fixture(scope="module")
def weather():
    """A warm blob crosses the north from west to east and grows; heights fall in the south-west."""
    warm = [1.2 * (1 + 0.1 * t) * blob(4, 6 + 3.4 * t) + 0.03 * t for t in range(STEPS)]
    low = [-(0.3 + 0.22 * t) * blob(20, 5, 4.0) for t in range(STEPS)]
    frames = np.stack([np.stack(warm), np.stack(low)], 1)
    return past_of(frames, ("t850", "z500"), ("K", "m"), "weather", season="winter")


@pytest.fixture(scope="module")
def traffic():
    """Arrivals grow in the centre, departures shrink in the west."""
    arrive = [0.5 + (0.5 + 0.2 * t) * blob(12, 18) for t in range(STEPS)]
    leave = [0.5 + (1.9 - 0.2 * t) * blob(12, 5) for t in range(STEPS)]
    frames = np.stack([np.stack(arrive), np.stack(leave)], 1)
    return past_of(frames, ("inflow", "outflow"), ("1", "1"), "traffic", part_of_day="morning")


@pytest.fixture(scope="module")
def fire():
    """A hot column from the bottom leans to the right and rises."""
    rows, columns = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    centre = 10 + (HEIGHT - 1 - rows) * 0.9
    hot = [
        (2.5 + 0.05 * t) * (np.abs(columns - centre) < 2.5) * (rows > 12 - t) for t in range(STEPS)
    ]
    return past_of(np.stack(hot)[:, None], ("temperature",), ("degC",), "fire")


SAID = [
    # the words of a multimodal model, and what each of their claims is worth
    ("weather", "Temperatures are rising.", [True]),
    ("weather", "Overall, the temperature decreases over the sequence.", [False]),
    ("weather", "The temperature does not fall.", [True]),
    ("weather", "There is a warming trend; pressure heights are declining.", [True, True]),
    ("weather", "The temperature increases while the geopotential height drops.", [True, True]),
    ("weather", "Both the temperature and the geopotential height are falling.", [False, True]),
    ("weather", "Warmest temperatures lie in the upper right part of the map.", [True]),
    ("weather", "The highest temperatures are in the south-west corner.", [False]),
    ("weather", "The hottest area is in the northeastern quadrant.", [True]),
    ("weather", "It is hottest in the north of the domain.", [True]),
    ("weather", "It is hottest in the centre.", [False]),
    ("weather", "Heights are lowest in the southwest.", [True]),
    ("weather", "The minimum of the geopotential height sits in the bottom left.", [True]),
    ("weather", "The minimum height is located in the north-east.", [False]),
    ("weather", "The warm anomaly is moving eastward.", [True]),
    ("weather", "The temperature pattern drifts from west to east.", [True]),
    ("weather", "The temperature field propagates to the right.", [True]),
    ("weather", "The temperature maximum shifts towards the west.", [False]),
    ("weather", "The temperature patterns are moving from the east.", [False]),
    ("weather", "The temperature shows no clear motion.", [False]),
    ("weather", "The temperature pattern is stationary.", [False]),
    ("weather", "The temperature pattern is not moving.", [False]),
    ("weather", "In the north-east, the temperature rises.", [True]),
    ("weather", "In the north-east, the temperature falls.", [False]),
    ("weather", "The north-east is warming, and heights fall in the south-west.", [True, True]),
    ("weather", "The geopotential height fell most in the south-west.", [True]),
    ("weather", "The strongest warming is in the north-east.", [True]),
    ("weather", "The strongest warming is in the south-west.", [False]),
    ("weather", "Temperatures remain unchanged in the south-east.", [True]),
    ("weather", "The temperature hardly changes.", [False]),
    ("weather", "There is little change in the geopotential height.", [False]),
    ("weather", "Warm air lies in the upper right.", [True]),
    ("weather", "Warm air lies in the lower left.", [False]),
    ("weather", "Cold air is in the south-west.", [True]),
    ("weather", "It is winter.", [True]),
    ("weather", "It is summer.", [False]),
    ("weather", "The geopotential height decreases sharply.", [True, True]),
    ("weather", "The geopotential height decreases slightly.", [True, False]),
    ("weather", "A ridge in the south-west.", [False]),
    ("weather", "A trough deepens in the south-west of the domain.", [True]),
    # nothing that can be checked
    ("weather", "This is likely due to warm advection from the south.", [None]),
    ("weather", "Watch the western coast.", []),
    ("weather", "The temperature may fall later.", [None]),
    ("weather", "Rising motion is expected in the west.", [None]),
    ("weather", "The pattern is beautiful.", []),
    ("traffic", "Inflow is growing, while outflow shrinks.", [True, True]),
    ("traffic", "Inflow peaks in the centre of the city.", [True]),
    ("traffic", "The busiest area for arrivals is in the north-west.", [False]),
    ("traffic", "Departures are highest on the left side.", [True]),
    ("traffic", "More people arrive than leave.", []),
    ("traffic", "More arrive than leave in the centre.", [True]),
    ("traffic", "Outflow exceeds inflow in the east.", [False]),
    ("traffic", "The inflow drops in the middle.", [False]),
    ("traffic", "The centre of activity shifts eastward.", [False]),
    ("traffic", "The centre of activity stays in place.", [True]),
    ("traffic", "More people arrive than leave on the left.", [False]),
    ("traffic", "It is a bad evening rush hour.", []),
    ("traffic", "As the morning rush hour builds up, inflow rises.", [True, None, True]),
    ("fire", "The plume leans to the right.", [True]),
    ("fire", "The plume tilts towards the left.", [False]),
    ("fire", "The plume is upright.", [False]),
    ("fire", "The plume is tall.", [True]),
    ("fire", "The temperature is hottest at the bottom.", [True]),
    ("fire", "Temperatures are intensifying.", [True]),
    ("fire", "The fire is weakening.", [False]),
    ("fire", "No plume stands out.", [False]),
]


@pytest.mark.parametrize(("where", "text", "expected"), SAID, ids=[text for _, text, _ in SAID])
def test_what_a_model_might_say(where, text, expected, request):
    found = verdicts(text, request.getfixturevalue(where))
    assert [verdict for _, verdict in found] == expected, [claim for claim, _ in found]


def test_a_whole_narrative_is_counted(weather):
    text = (
        "A warm blob sits in the upper right. Temperatures are rising and the pattern moves "
        "eastward; heights are lowest in the north. This may be caused by advection. "
        "Watch the east."
    )
    found = verify([text], lambda number: weather).narratives[0]
    assert (found.supported, found.contradicted, found.unverifiable) == (3, 1, 2)
    assert found.score == pytest.approx(3 / 4)
    assert found.wrong == ("heights are lowest in the north",)


def test_nothing_said_has_no_score(weather):
    for text in ("", "What a lovely picture."):
        (found,) = verify([text], lambda number: weather).narratives
        assert found.score is None
    assert verify([], lambda number: weather).row["score"] is None
    assert Faithfulness().score is None


def test_sentences_are_taken_apart():
    assert sentences("A rise of 3.5 K. Then – calm; it’s *over*!") == [
        "a rise of 3.5 k",
        "then - calm",
        "it's  over",
    ]


# the rule narrator, and another window's words


def windows_of(name, **params):
    dataset = datasets.build(name, **params)
    return WindowDataset(dataset, "train", past=8, lead=2, stride=4), statistics(dataset)


WORLDS = {
    "atmosphere": {"members": 3, "days": 25, "spin_up_days": 10, "height": 20, "width": 40},
    "plume": {},
    "blobs": {"size": 16, "runs": 8, "length": 40},
}


@pytest.fixture(scope="module", params=WORLDS)
def told(request):
    windows, known = windows_of(request.param, **WORLDS[request.param])
    pasts = [windows.past_of(i, known) for i in range(min(len(windows), 90))]
    return pasts, narrators.build("rules").narrate(pasts)


def test_the_rules_say_nothing_that_is_not_so(told):
    pasts, texts = told
    row = verify(texts, pasts.__getitem__).row
    assert row["score"] == 1.0
    assert row["supported"] > 0.97
    assert row["claims"] > 6 * len(texts)  # the premise: most of what is said is checked
    assert row["skill"] == 1.0


def test_another_windows_words_are_no_better_than_chance(told):
    pasts, texts = told
    row = verify(narrators.build("shuffled", seed=3).rearrange(texts), pasts.__getitem__).row
    assert row["score"] == pytest.approx(row["chance"], abs=0.08)
    assert row["score"] < 0.95
    assert abs(row["skill"]) < 0.25


def test_chance_does_not_depend_on_the_order(told):
    """Neighbours in time are alike; the chance level is measured among strangers."""
    pasts, texts = told
    one = verify(texts, pasts.__getitem__, seed=0).row["chance"]
    two = verify(texts, pasts.__getitem__, seed=1).row["chance"]
    assert one == pytest.approx(two, abs=0.08)


def test_opposite_words_are_contradicted(told):
    """Every trend and way turned round."""
    pasts, texts = told
    swap = {"rising": "falling", "warming": "cooling", "growing": "decaying", "east": "west"}
    swap |= {"north": "south", "left": "right", "rose": "fell", "upper": "lower", "up": "down"}
    swap |= {"warmed": "cooled", "heated": "cooled", "top": "bottom", "hottest": "coldest"}
    both = swap | {new: old for old, new in swap.items()}

    pattern = re.compile("|".join(sorted(both, key=len, reverse=True)))
    checked = 0
    for past, text in zip(pasts[::6], texts[::6], strict=True):
        opposite = pattern.sub(lambda m: both[m.group()], text)
        for claim, verdict in verdicts(opposite, past):
            if claim.kind == "motion" or (claim.kind == "trend" and claim.value):
                checked += 1
                assert verdict is False, (claim, opposite)
    assert checked


def test_every_window_of_a_split():
    windows, known = windows_of("blobs", size=16, runs=5, length=20)
    texts = narrators.build("rules").narrate(
        [windows.past_of(i, known) for i in range(len(windows))]
    )
    seen = []
    found = verify_windows(windows, texts, known, progress=lambda *p: seen.append(p))
    assert seen[-1] == (len(windows), len(windows))
    assert [one.score for one in found.narratives] == [1.0] * len(windows)
    false = ["The density is falling and rising.", *texts[1:]]
    found = verify_windows(windows, false, known)
    assert found.narratives[0].score < 1
    assert all(one.score == 1 for one in found.narratives[1:])


def field(seed, domain, channels, units):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((6, len(channels), 6, 9)).cumsum(0)
    smooth = noise + np.roll(noise, 1, -1) + np.roll(noise, 1, -2)
    grid = GridSpec(channels=channels, units=units, height=6, width=9, step_seconds=3600.0)
    count = len(channels)
    known = Statistics(
        mean=(1.0,) * count,
        std=(1.5,) * count,
        minimum=(-5.0,) * count,
        maximum=(5.0,) * count,
        quantiles={q: (8 * q - 4,) * count for q in QUANTILES},
    )
    return Past(
        frames=smooth.astype("f4"),
        grid=grid,
        domain=domain,
        statistics=known,
        season=[None, "winter", "summer"][seed % 3],
        part_of_day=[None, "morning", "night"][seed % 3],
        context=[(), ("rain",)][seed % 2],
    )


SETTINGS = [
    ("weather", ("t2m", "t850", "z500"), ("K", "K", "m")),
    ("weather", ("u10", "v10", "relative_humidity"), ("m/s", "m/s", "%")),
    ("traffic", ("inflow", "outflow"), ("1", "1")),
    ("fire", ("temperature", "w", "u", "soot density"), ("degC", "m/s", "m/s", "mg/m3")),
    ("fire", ("hrr",), ("kW",)),
    ("generic", ("alpha", "beta_gamma"), ("1", "1")),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s[0]} {' '.join(s[1])}")
def test_the_rules_are_believed_whatever_they_see(setting):
    pasts = [field(seed, *setting) for seed in range(40)]
    texts = narrators.build("rules").narrate(pasts)
    for past, text in zip(pasts, texts, strict=True):
        wrong = [(c.kind, c.quote) for c, verdict in verdicts(text, past) if verdict is False]
        assert not wrong, text


@given(text=st.text(alphabet=st.sampled_from("arise fall north, no. hot-in; ") | st.characters()))
@settings(max_examples=60)
def test_any_text_can_be_read(text):
    past = field(1, *SETTINGS[0])
    Reader(past.grid, past.domain).claims(text)
    verdicts(text, past)


KNOWN = (
    "temperature height plume traffic rising falling steady most slightly moves eastward "
    "to the north-west in the centre no not hottest lowest front ridge trough of it and , "
    ". lately is very high quiet three waves warm air from west strongest westerly fire "
    "more arrive than leave winter tall leaning to the left"
)


@given(
    words=st.lists(
        st.sampled_from(KNOWN.split()),
        max_size=16,
    ),
    number=st.integers(0, len(SETTINGS) - 1),
)
@settings(max_examples=150)
def test_any_order_of_known_words_can_be_judged(words, number):
    past = field(2, *SETTINGS[number])
    for claim, verdict in verdicts(" ".join(words), past):
        assert verdict in (True, False, None)
        denied = replace(claim, denied=not claim.denied)
        assert denied != claim


def test_cells_that_do_not_exist_are_left_out(weather):
    mask = np.ones((HEIGHT, WIDTH), dtype=bool)
    mask[:, 24:] = False
    masked = replace(weather, grid=replace(weather.grid, mask=tuple(map(tuple, mask.tolist()))))
    text = "The temperature is warming in the east. It is hottest in the south-west."
    assert [verdict for _, verdict in verdicts(text, masked)] == [None, False]


# a run: verified, asked again, dropped


class Liar:
    """The rules' words, turned round for every third window; better ones when asked again."""

    reads_future, version, told = False, "liar-1", 0

    def __init__(self, cured=()):
        self.rules, self.cured, self.attempts = narrators.build("rules"), cured, []

    def narrate(self, pasts):
        return [
            self.one(past, text)
            for past, text in zip(pasts, self.rules.narrate(pasts), strict=True)
        ]

    def one(self, past, text):
        number = int(past.digest, 16) % 3
        if number == 0 and past.digest not in self.cured:
            return (
                "The density is falling sharply and rising sharply. Density patterns do not move."
            )
        return text

    def retry(self, attempt):
        self.attempts.append(attempt)
        found = Liar()
        found.one = lambda past, text: text if int(past.digest, 16) % 2 else "It falls. It rises."
        return found


@pytest.fixture
def run(tmp_path):
    """A run of which a third of the narratives lie."""
    opened = pipeline.open_run(road.tiny(), tmp_path / "run")
    opened.__dict__["narrator"] = Liar()
    return opened


def low(run, split, bar=0.5):
    rows = [json.loads(line) for line in (run.out / "faithfulness.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row["split"] == split]
    return [row for row in mine if row["score"] is not None and row["score"] < bar]


def test_a_run_is_verified_and_says_what_was_wrong(run):
    rows = narration.verify_run(run)
    assert [row["split"] for row in rows] == ["train", "val", "test"]
    for row in rows:
        assert row["supported"] + row["contradicted"] + row["unverifiable"] == pytest.approx(1)
        assert row["chance"] < row["score"] < 1
        assert (row["reads_future"], row["dropped"], row["empty"]) == (False, 0, 0)
    saved = json.loads((run.out / "faithfulness.json").read_text())
    assert saved == {"version": "faithfulness-1", "splits": rows}
    assert low(run, "train")
    assert any("density" in clause for row in low(run, "train") for clause in row["wrong"])
    head, cells = narration.table(rows)
    assert len(cells) == 3
    assert all(len(line) == len(head) for line in cells)
    assert "does not read the future" in narration.legend(rows)


def test_the_worst_are_dropped_and_their_windows_have_no_words(run):
    narration.verify_run(run)
    worst = {row["index"] for row in low(run, "train")}
    rows = narration.verify_run(run, drop_below=0.5)
    assert rows[0]["dropped"] > 0
    assert rows[0]["score_before"] < rows[0]["score"]
    assert f"train {rows[0]['score_before']:.2f}" in narration.legend(rows)
    assert rows[0]["empty"] == len(worst)  # windows that are alike share their narrative
    assert rows[0]["score"] > 0.95
    pipeline.narrate(run)
    states = run.states("train")
    silent = {i for i in range(len(states)) if states.lengths[states.index[i]] == 0}
    assert silent == worst
    # and it stays so
    again = narration.verify_run(run, drop_below=0.5)
    assert [row["dropped"] for row in again] == [0, 0, 0]
    assert again[0]["empty"] == len(worst)


def test_the_worst_are_asked_again_and_the_better_words_kept(run):
    before = narration.verify_run(run)
    worst = {row["index"] for row in low(run, "train")}
    rows = narration.verify_run(run, ask_again=2)
    assert run.narrator.attempts[:2] == [1, 2]
    assert rows[0]["asked_again"] > 0
    assert before[0]["score"] < rows[0]["score"] < 1
    better = worst - {row["index"] for row in low(run, "train")}
    assert better
    assert better != worst
    lines = read_narratives(run.out / "narratives.jsonl")
    notes = [line.note for line in lines if line.note]
    assert all(re.fullmatch(r"asked again: score 1\.00, was 0\.\d\d", note) for note in notes)
    # the earlier words are still there, above
    assert len(lines) == len({line.key for line in lines}) + len(notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop_below": 1.5}, r"--drop-below 1\.5: must be a score above 0"),
        ({"drop_below": 0.0}, "must be a score above 0"),
        ({"ask_again": -1}, "must not be negative"),
    ],
)
def test_settings_that_cannot_be_are_refused(run, settings, message):
    with pytest.raises(S2KDError, match=message):
        narration.verify_run(run, **settings)


def test_only_who_can_is_asked_again_or_dropped(run):
    run.__dict__["narrator"] = narrators.build("rules")
    with pytest.raises(S2KDError, match="'rules' always says the same"):
        narration.verify_run(run, ask_again=1)
    run.__dict__["narrator"] = narrators.build("shuffled")
    with pytest.raises(S2KDError, match="hands round the words of another"):
        narration.verify_run(run, drop_below=0.5)


def test_shards_of_a_run_are_joined_by_cat(tmp_path):
    parts = []
    for number in (1, 2):
        part = pipeline.open_run(road.tiny(), tmp_path / f"part{number}")
        narration.narrate_shard(part, narration.shard(f"{number}/2"))
        parts.append(part.out)
    whole = pipeline.open_run(road.tiny(), tmp_path / "whole")
    store = whole.out / "narratives.jsonl"
    store.parent.mkdir(exist_ok=True)
    store.write_bytes(b"".join((part / store.name).read_bytes() for part in parts))
    before = (whole.out / "narratives.jsonl").read_bytes()
    pipeline.narrate(whole)
    assert (whole.out / "narratives.jsonl").read_bytes() == before
    assert len(whole.states("train")) == len(whole.windows("train"))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_shards_that_cannot_be_are_refused(text):
    with pytest.raises(S2KDError, match="must be I/N with I from 1 to N"):
        narration.shard(text)
