"""The `openai` narrator against a local server that behaves, and one that does not."""

import base64
import hashlib
import io
import json
import logging
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from chat_server import KINDS, MODEL, ChatServer, at_random, words_for

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import Claim
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.narrators.openai import is_local
from s2kd.narration.prompts import prompt
from s2kd.narration.sheet import png
from s2kd.narration.store import narrate_windows, read_narratives

pytest.importorskip("openai")

SECRET = "sk-this-is-a-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def windows_of(count):
    """`count` training windows that are all different, and their statistics."""
    frames = np.random.default_rng(0).standard_normal((count + 19, 1, 4, 4)).astype("f4")
    grid = GridSpec(channels=("a",), units=("1",), height=4, width=4, step_seconds=3600.0)
    stops = {"train": (0, count + 5), "val": (count + 5, count + 12), "test": (count + 12,)}
    dataset = Dataset(
        name="noise",
        domain="generic",
        grid=grid,
        frames=frames,
        times=np.datetime64("2001-01-01", "ns") + np.arange(len(frames)) * np.timedelta64(1, "h"),
        splits={k: (Stretch(first=a, stop=(*b, count + 19)[0]),) for k, (a, *b) in stops.items()},
    )
    return WindowDataset(dataset, "train", past=4, lead=2), statistics(dataset)


def narrator_at(server, **settings):
    settings = {"size": 48, "labels": False, "timeout": 5.0} | settings
    return narrators.build("openai", model="tiny-vl", url=server.url, **settings)


def narrate(server, count, store, **settings):
    windows, train_stats = windows_of(count)
    narrator = narrator_at(server, **settings)
    return narrate_windows(windows, narrator, train_stats, store, name="openai")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "n.jsonl"


def test_the_request_and_the_stored_answer(store):
    windows, train_stats = windows_of(6)
    with ChatServer() as server:
        narrator = narrator_at(server, detail="low", max_tokens=77)
        assert isinstance(narrator, Narrator)
        texts = narrate_windows(windows, narrator, train_stats, store, name="openai")
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny-vl", 77, 0.0)
    assert "response_format" not in body
    image, question = body["messages"][0]["content"]
    assert question == {"type": "text", "text": prompt(windows.past_of(0, train_stats))}
    assert image["image_url"]["detail"] == "low"
    from PIL import Image

    content = base64.b64decode(image["image_url"]["url"].partition(",")[2])
    sheets = [narrator.sheets(windows.past_of(i, train_stats)) for i in range(6)]
    assert any(np.array_equal(np.asarray(Image.open(io.BytesIO(content))), s) for s in sheets)
    lines = sorted(read_narratives(store), key=lambda line: line.index)
    assert [line.text for line in lines] == texts
    assert len(set(texts)) == 6
    assert {(line.model, line.narrator, line.reads_future) for line in lines} == {
        (MODEL, "openai", False)
    }


def test_every_window_gets_its_own_answer_once_whatever_the_server_does(store):
    windows, train_stats = windows_of(40)
    with ChatServer(at_random(0, share=0.4)) as server:
        narrator = narrator_at(server)
        texts = narrate_windows(windows, narrator, train_stats, store, name="openai")
    pasts = [windows.past_of(i, train_stats) for i in range(40)]
    keys = [hashlib.sha256(png(narrator.sheets(past))).hexdigest()[:12] for past in pasts]
    assert texts == [words_for(key) for key in keys]
    assert len(read_narratives(store)) == 40
    assert server.answered.total() == 40, "no good answer was requested twice"
    assert len(server.kinds) > 10, "the premise: it misbehaved in many ways"


@pytest.mark.parametrize("kind", sorted({*KINDS, "hang"}))
def test_a_bad_answer_is_requested_again(kind, store):
    with ChatServer(lambda number, key: kind if number == 2 else "ok") as server:
        texts = narrate(server, 3, store, timeout=0.5 if kind == "hang" else 5.0, concurrent=1)
    assert len(set(texts)) == 3
    assert all(text.endswith("eastward.") for text in texts)
    assert server.kinds == {"ok": 3, kind: 1}


def test_an_answer_cut_at_the_limit_ends_with_a_sentence(store):
    with ChatServer(lambda number, key: "long") as server:
        texts = narrate(server, 2, store)
    assert all(text.endswith("It moves eastward.") for text in texts)
    assert server.requests == 2


def test_the_server_decides_how_long_to_wait(store):
    moments = []

    def behave(number, key):
        moments.append(time.monotonic())
        return "429" if number == 1 else "ok"

    with ChatServer(behave, retry_after="1.5") as server:
        narrate(server, 1, store)
    assert moments[1] - moments[0] > 1.4


def test_at_most_concurrent_requests_are_in_flight(store):
    with ChatServer(slow=0.2) as server:
        settings = {"model": "tiny-vl", "url": server.url, "size": 48, "labels": False}
        shuffled = narrators.build("shuffled", of="openai", params={**settings, "concurrent": 3})
        windows, train_stats = windows_of(9)
        texts = narrate_windows(windows, shuffled, train_stats, store, name="shuffled")
        straight = narrate(server, 9, store)
    assert server.most_in_flight == 3
    assert server.requests == 9
    assert sorted(texts) == sorted(straight)


def test_a_budget_ends_the_work_and_the_rest_continues_later(store):
    with ChatServer() as server:
        with pytest.raises(S2KDError, match=r"budget of 12 requests is spent.*continues"):
            narrate(server, 30, store, max_requests=12)
        assert server.requests == len(read_narratives(store)) == 12
        narrate(server, 30, store, max_requests=18)  # just enough
    assert server.requests == len(read_narratives(store)) == 30


def test_a_window_without_an_answer_does_not_stop_the_others(store):
    bad = []

    def behave(number, key):
        bad[:] = bad or [key]
        return "empty" if key == bad[0] else "ok"

    with ChatServer(behave) as server:
        with pytest.raises(S2KDError, match=r"no usable answer for 1 windows .*empty answer"):
            narrate(server, 20, store, retries=2)
        assert len(read_narratives(store)) == 19
        assert server.requests == 19 + 3
        server.behave = lambda number, key: "ok"
        narrate(server, 20, store)
    assert server.requests == 19 + 3 + 1
    assert len(read_narratives(store)) == 20


def test_a_server_that_only_fails_or_is_absent_is_given_up(store):
    with ChatServer(lambda number, key: "503") as server:
        with pytest.raises(S2KDError, match=r"no usable answer for 20 windows .*status 503"):
            narrate(server, 60, store, retries=1)
        assert server.requests < 2 * (20 + 16) + 1
    with pytest.raises(S2KDError, match=r"gave no usable answer.*no connection"):
        narrate(server, 3, store, retries=0)
    assert read_narratives(store) == []


@pytest.mark.parametrize("kind", ["400", "401", "404", "422", "quota"])
def test_a_lasting_refusal_ends_the_work(kind, store, caplog):
    status = "429" if kind == "quota" else kind
    with (
        caplog.at_level(logging.DEBUG),
        ChatServer(lambda number, key: kind) as server,
        pytest.raises(S2KDError, match=f"refuses the request .status {status}: no: Bearer …") as e,
    ):
        narrate(server, 50, store, concurrent=2, retries=1)
    assert server.requests <= 4
    assert SECRET not in str(e.value) + caplog.text


def test_the_key_is_sent_and_written_nowhere(store, caplog, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    with caplog.at_level(logging.DEBUG), ChatServer() as server:
        narrate(server, 8, store)
        narrator = narrator_at(server)
    assert set(server.keys) == {"Bearer sk-another"}
    assert "sk-another" not in store.read_text() + caplog.text + repr(vars(narrator))


def test_a_local_server_needs_no_key_but_openai_does(store, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer() as server:
        assert len(narrate(server, 2, store)) == 2
    windows, train_stats = windows_of(2)
    official = narrators.build("openai", model="gpt-x")
    with pytest.raises(S2KDError, match="needs a key in the environment variable OPENAI_API_KEY"):
        official.narrate([windows.past_of(0, train_stats)])


def test_the_address_may_come_from_the_environment(monkeypatch):
    narrator = narrators.build("openai", model="m")
    assert narrator.url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    assert narrator.url == "http://localhost:8000/v1"


def test_a_recipe_cannot_send_data_elsewhere_by_itself(monkeypatch):
    foreign = "http://collector.example/v1"
    windows, train_stats = windows_of(2)
    narrator = narrators.build("openai", model="m", url=foreign)
    with pytest.raises(S2KDError, match=r"not on this machine.*OPENAI_BASE_URL"):
        narrator.narrate([windows.past_of(0, train_stats)])
    monkeypatch.setenv("OPENAI_BASE_URL", foreign)  # trusted by the user, but not with the key
    with pytest.raises(S2KDError, match="unencrypted"):
        narrator.narrate([windows.past_of(0, train_stats)])


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://10.0.0.7/v1", False),
    ],
)
def test_which_addresses_are_of_this_machine(url, local):
    assert is_local(url) is local


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "must begin with http"),
        ({"url": "http://me:pass@host/v1"}, "holds a user, a password or a query"),
        ({"url": "http://host/v1?key=1"}, "holds a user, a password or a query"),
        ({"key_variable": "AWS_SECRET_ACCESS_KEY"}, "has no setting 'key_variable'"),
        ({"concurrent": 0}, "concurrent: wants int >= 1, got 0"),
        ({"retries": -1}, "retries: wants int >= 0, got -1"),
        ({"timeout": 0.0}, r"timeout: wants float > 0.0, got 0\.0"),
        ({"detail": "most"}, "detail: must be one of"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(S2KDError, match=message) as error:
        narrators.build("openai", model="m", **settings)
    assert "pass@" not in str(error.value)


def test_versions_follow_what_words_depend_on():
    def version(**settings):
        return narrators.build("openai", **({"model": "m"} | settings)).version

    different = [{}, {"model": "n"}, {"revision": "abc"}, {"size": 512}, {"detail": "low"}]
    different += [{"max_tokens": 9}, {"temperature": 0.5}, {"seed": 1}, {"channels": ["a"]}]
    different += [{"claims": True}]
    assert len({version(**settings) for settings in different}) == len(different)
    same = [{"url": "http://a/v1"}, {"concurrent": 3}, {"timeout": 9.0}, {"max_requests": 5}]
    assert {version(**settings) for settings in same} == {version()}


def test_a_retry_has_another_seed_and_temperature():
    windows, train_stats = windows_of(1)
    with ChatServer() as server:
        narrator_at(server, seed=3).retry(2).narrate([windows.past_of(0, train_stats)])
    assert (server.bodies[0]["seed"], server.bodies[0]["temperature"]) == (5, 0.7)


CLAIM = {"quantity": "trend", "value": "rising", "channel": "a"}


@pytest.mark.parametrize(
    ("items", "claims"),
    [
        ([CLAIM], (Claim(quantity="trend", value="rising", channel="a"),)),
        ([], ()),
        ([{**CLAIM, "value": "purple"}], None),
    ],
)
def test_a_form_gives_claims_beside_the_text(items, claims, store):
    text = "It rises. And so"
    with ChatServer(form=json.dumps({"text": text, "claims": items})) as server:
        texts = narrate(server, 1, store, claims=True)
    assert texts == ["It rises."]
    (line,) = read_narratives(store)
    assert line.claims == claims
    form = server.bodies[0]["response_format"]["json_schema"]
    assert form["strict"] is True
    assert set(form["schema"]["properties"]) == {"text", "claims"}
    assert "JSON" in server.bodies[0]["messages"][0]["content"][1]["text"]


def test_an_answer_outside_the_form_is_unusable(store):
    with (
        ChatServer(form="It rises.") as server,
        pytest.raises(S2KDError, match="an answer that is not the form"),
    ):
        narrate(server, 1, store, claims=True, retries=1)
    assert server.requests == 2


def test_a_question_without_a_picture_is_answered_in_the_form():
    with ChatServer(form='{"claims": []}') as server:
        narrator = narrator_at(server)
        assert narrator.ask("Which claims?", {"type": "object"}) == '{"claims": []}'
        assert server.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
        content = [{"type": "text", "text": "Which claims?"}]
        assert server.bodies[0]["messages"][0]["content"] == content
        server.behave = lambda number, key: "500"
        with pytest.raises(S2KDError, match=r"gave no usable answer .status 500"):
            narrator_at(server, retries=0).ask("Which claims?", {"type": "object"})


def _narrate(url, store, count):
    """The work of a process that is killed."""
    windows, train_stats = windows_of(count)
    settings = {"size": 48, "labels": False, "concurrent": 8}
    narrator = narrators.build("openai", model="tiny-vl", url=url, **settings)
    narrate_windows(windows, narrator, train_stats, Path(store), name="openai", batch=16)


@pytest.mark.slow
def test_killed_and_restarted_every_window_has_one_narrative(store):
    count, context = 200, multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["s2kd.narration.store", "openai", "test_openai_narrator"])
    with ChatServer() as server:
        for until in (40, 110):
            process = context.Process(target=_narrate, args=(server.url, str(store), count))
            process.start()
            while process.is_alive() and server.answered.total() < until:
                time.sleep(0.005)
            process.kill()
            process.join()
            assert process.exitcode == -9, "the premise"
        assert 0 < len(read_narratives(store)) < count
        _narrate(server.url, str(store), count)
    lines = read_narratives(store)
    assert sorted(line.index for line in lines) == list(range(count))
    # at most the requests in flight are lost at each kill
    assert server.answered.total() <= count + 2 * (8 + 16)
