"""The `openai` narrator against a local server that behaves, and one that does not."""

import base64
import io
import json
import logging
import multiprocessing
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from chat_server import KINDS, MODEL, ChatServer, at_random, words_for

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Narrator, Streaming, narrators
from s2kd.narration.narrators.prompts import prompt
from s2kd.narration.narrators.requests import retry_after
from s2kd.narration.store import narrate_windows, read_narratives

pytest.importorskip("openai")
pytest.importorskip("PIL")

SECRET = "sk-this-is-a-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def made(count):
    """A dataset of `count` training windows that are all different."""
    frames = np.random.default_rng(0).standard_normal((count + 19, 1, 4, 4)).astype("f4")
    grid = GridSpec(channels=("a",), units=("1",), height=4, width=4, step_seconds=3600.0)
    cuts = {
        "train": (0, count + 5),
        "val": (count + 5, count + 12),
        "test": (count + 12, count + 19),
    }
    return Dataset(
        name="made",
        domain="generic",
        grid=grid,
        frames=frames,
        times=np.datetime64("2001-01-01", "ns") + np.arange(len(frames)) * np.timedelta64(1, "h"),
        splits={k: (Stretch(first=a, stop=b),) for k, (a, b) in cuts.items()},
    )


def windows_of(count):
    dataset = made(count)
    return WindowDataset(dataset, "train", past=4, lead=2), statistics(dataset)


def narrator(server, **more):
    settings = {"size": 48, "labels": False, "backoff": 0.005, "timeout": 5.0} | more
    return narrators.build("openai", model="tiny-vl", url=server.url, **settings)


def told(server, count, store, **more):
    windows, known = windows_of(count)
    return narrate_windows(windows, narrator(server, **more), known, store, name="openai")


def test_what_is_asked_and_what_is_kept(tmp_path):
    windows, known = windows_of(6)
    with ChatServer() as server:
        made = narrator(server, detail="low", max_tokens=77)
        assert isinstance(made, Narrator)
        assert isinstance(made, Streaming)
        texts = narrate_windows(windows, made, known, tmp_path / "n.jsonl", name="openai")
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny-vl", 77, 0.0)
    image, words = body["messages"][0]["content"]
    past = windows.past_of(0, known)
    assert words == {"type": "text", "text": prompt(past)}
    assert image["image_url"]["detail"] == "low"
    from PIL import Image

    first = base64.b64decode(image["image_url"]["url"].partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(first)))
    sheets = [made.sheets(windows.past_of(i, known)) for i in range(6)]
    assert any(np.array_equal(found, sheet) for sheet in sheets)
    lines = read_narratives(tmp_path / "n.jsonl")
    assert sorted(line.index for line in lines) == list(range(6))
    assert len(set(texts)) == 6
    assert {line.model for line in lines} == {MODEL}
    assert {line.narrator for line in lines} == {"openai"}
    assert not any(line.reads_future for line in lines)
    assert [line.text for line in sorted(lines, key=lambda line: line.index)] == texts


def test_words_belong_to_their_own_window(tmp_path):
    import hashlib

    from s2kd.narration.narrators.render import png

    windows, known = windows_of(30)
    with ChatServer(at_random(3)) as server:
        made = narrator(server)
        texts = narrate_windows(windows, made, known, tmp_path / "n.jsonl", name="openai")
        pasts = [windows.past_of(i, known) for i in range(30)]
        assert made.narrate(pasts) == texts
    keys = [hashlib.sha256(png(made.sheets(past))).hexdigest()[:12] for past in pasts]
    assert texts == [words_for(key) for key in keys]


@pytest.mark.parametrize("kind", sorted({*KINDS, "hang", "dribble"}))
def test_one_bad_answer_is_asked_again(kind, tmp_path):
    with ChatServer(lambda number, key: kind if number == 2 else "ok") as server:
        limit = 0.4 if kind in ("hang", "dribble") else 5.0
        texts = told(server, 3, tmp_path / "n.jsonl", timeout=limit, concurrent=1)
    assert len(set(texts)) == 3
    assert all(text.endswith("eastward.") for text in texts)
    assert server.requests == 4
    assert server.given == {"ok": 3, kind: 1}


def test_an_answer_cut_at_the_limit_keeps_its_whole_sentences(tmp_path):
    with ChatServer(lambda number, key: "long") as server:
        texts = told(server, 2, tmp_path / "n.jsonl")
    assert all(text.endswith("It moves eastward.") for text in texts)
    assert server.requests == 2


def test_a_storm_of_429_passes_and_all_wait(tmp_path):
    """The first 20 requests are sent away for 0.3 s: none comes sooner than asked."""
    moments = []

    def behave(number, key):
        moments.append(time.monotonic())
        return "429" if moments[-1] < moments[0] + 0.25 else "ok"

    with ChatServer(behave, retry_after="0.3") as server:
        texts = told(server, 40, tmp_path / "n.jsonl", concurrent=8)
    assert len(set(texts)) == 40
    late = [moment - moments[0] for moment in moments[server.given["429"] :]]
    assert server.given["429"] <= 8 + 1
    assert min(late) > 0.28
    assert server.given["ok"] == 40


def test_when_one_is_told_to_wait_the_others_do(tmp_path):
    """The first of many is sent away for 1.5 s: nothing new is asked for meanwhile."""
    moments = []

    def behave(number, key):
        moments.append(time.monotonic())
        return "429" if number == 1 else "ok"

    with ChatServer(behave, retry_after="1.5") as server:
        told(server, 12, tmp_path / "n.jsonl", concurrent=2)
    since = [moment - moments[0] for moment in moments]
    assert len(since) == 13
    assert not [moment for moment in since if 0.7 < moment < 1.45]
    assert sum(moment > 1.45 for moment in since) > 6


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after-ms": "300", "retry-after": "9"}, 0.3),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_can_be_a_date():
    assert retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) == (
        pytest.approx(60, abs=2)
    )


def test_no_more_are_under_way_than_allowed(tmp_path):
    with ChatServer(slow=0.2) as server:
        told(server, 9, tmp_path / "n.jsonl", concurrent=3)
    assert server.most_under_way == 3


def test_everything_at_once_and_every_window_is_told_once(tmp_path):
    with ChatServer(at_random(0, share=0.4)) as server:
        texts = told(server, 150, tmp_path / "n.jsonl")
    assert len(texts) == len(set(texts)) == 150
    assert len((tmp_path / "n.jsonl").read_text().splitlines()) == 150
    assert server.told.total() == 150, "no good answer was asked for twice"
    assert len(server.given) > 15, "the premise: it misbehaved in all ways"


def test_a_budget_ends_the_work_and_the_rest_goes_on_later(tmp_path):
    store = tmp_path / "n.jsonl"
    with ChatServer() as server:
        with pytest.raises(S2KDError, match=r"budget of 12 requests is spent.*goes on"):
            told(server, 30, store, max_requests=12)
        assert server.requests == 12
        assert len(read_narratives(store)) == 12
        told(server, 30, store, max_requests=18)  # just enough
        assert server.requests == 30
    assert len(read_narratives(store)) == 30


def test_a_budget_counts_what_fails_too(tmp_path):
    with (
        ChatServer(lambda number, key: "500") as server,
        pytest.raises(S2KDError, match="budget of 5 requests"),
    ):
        told(server, 30, tmp_path / "n.jsonl", max_requests=5)
    assert server.requests == 5


def test_a_window_that_is_never_told_does_not_stop_the_others(tmp_path):
    bad = []

    def behave(number, key):
        bad[:] = bad or [key]
        return "empty" if key == bad[0] else "ok"

    store = tmp_path / "n.jsonl"
    with ChatServer(behave) as server:
        with pytest.raises(
            S2KDError, match=r"no usable answer for 1 windows, each asked 3 times.*empty answer"
        ):
            told(server, 20, store, retries=2)
        assert len(read_narratives(store)) == 19
        assert server.requests == 19 + 3
        server.behave = lambda number, key: "ok"
        told(server, 20, store)
        assert server.requests == 19 + 3 + 1
    assert len(read_narratives(store)) == 20


def test_a_server_that_only_fails_is_given_up(tmp_path):
    with (
        ChatServer(lambda number, key: "503") as server,
        pytest.raises(S2KDError, match=r"no usable answer for 20 windows, .*status 503"),
    ):
        told(server, 100, tmp_path / "n.jsonl", retries=1)
    assert server.requests < 2 * (20 + 16) + 1


def test_no_server_at_all(tmp_path):
    with ChatServer() as server:
        pass
    with pytest.raises(S2KDError, match=r"gave no usable answer.*no connection"):
        told(server, 3, tmp_path / "n.jsonl", retries=1)
    assert read_narratives(tmp_path / "n.jsonl") == []


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422"])
def test_what_the_user_must_put_right_ends_the_work_at_once(status, tmp_path, caplog):
    with (
        caplog.at_level(logging.DEBUG),
        ChatServer(lambda number, key: status) as server,
        pytest.raises(S2KDError, match=f"refuses the request .status {status}: no: Bearer …") as e,
    ):
        told(server, 50, tmp_path / "n.jsonl", concurrent=2)
    assert server.requests <= 4
    assert SECRET not in str(e.value)


def test_an_empty_purse_is_no_storm(tmp_path):
    with (
        ChatServer(lambda number, key: "quota") as server,
        pytest.raises(S2KDError, match=r"refuses the request .status 429: quota"),
    ):
        told(server, 5, tmp_path / "n.jsonl", concurrent=1)
    assert server.requests == 1


def test_a_wait_of_a_day_ends_the_work(tmp_path):
    with (
        ChatServer(lambda number, key: "429", retry_after="86400") as server,
        pytest.raises(S2KDError, match="wants 86400 s of patience"),
    ):
        told(server, 5, tmp_path / "n.jsonl", concurrent=1)
    assert server.requests == 1


def test_the_key_is_sent_and_kept_nowhere_else(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-another")
    with caplog.at_level(logging.DEBUG), ChatServer(at_random(5)) as server:
        told(server, 8, tmp_path / "n.jsonl", key_variable="MY_KEY")
        made = narrator(server)
    assert set(server.keys) == {"Bearer sk-another"}
    kept = (tmp_path / "n.jsonl").read_text()
    assert "sk-another" not in kept + caplog.text + repr(vars(made)) + made.version


def test_a_server_of_ones_own_needs_no_key_but_openai_does(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer() as server:
        assert len(told(server, 2, tmp_path / "n.jsonl")) == 2
    windows, known = windows_of(2)
    lost = narrators.build("openai", model="gpt-x")
    with pytest.raises(S2KDError, match="needs a key in the environment variable OPENAI_API_KEY"):
        narrate_windows(windows, lost, known, tmp_path / "m.jsonl", name="openai")


def test_the_address_may_stand_in_the_environment(monkeypatch):
    made = narrators.build("openai", model="m")
    assert made.url == "https://api.openai.com/v1"
    before = made.version
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    assert made.url == "http://localhost:8000/v1"
    assert made.version == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "must begin with http"),
        ({"url": "http://me:pass@host/v1"}, "holds a user, a password or a query"),
        ({"url": "http://host/v1?key=1"}, "holds a user, a password or a query"),
        ({"key_variable": "sk-123"}, "must be the name of an environment variable"),
        ({"concurrent": 0}, "concurrent must be at least 1"),
        ({"retries": -1}, "must not be negative"),
        ({"timeout": 0.0}, "timeout must be positive"),
        ({"detail": "most"}, "must be low, high, auto or left out"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(S2KDError, match=message) as error:
        narrators.build("openai", model="m", **settings)
    assert "pass@" not in str(error.value)
    assert "sk-123" not in str(error.value)


def test_versions_follow_what_words_depend_on():
    def version(**settings):
        return narrators.build("openai", **({"model": "m"} | settings)).version

    different = [{}, {"model": "n"}, {"revision": "abc"}, {"size": 512}, {"detail": "low"}]
    different += [{"max_tokens": 9}, {"temperature": 0.5}, {"seed": 1}, {"channels": ["a"]}]
    assert len({version(**one) for one in different}) == len(different)
    same = [{"url": "http://a/v1"}, {"concurrent": 3}, {"timeout": 9.0}, {"max_requests": 5}]
    assert {version(**one) for one in same} == {version()}


def test_asked_again_it_is_asked_otherwise():
    windows, known = windows_of(1)
    with ChatServer() as server:
        made = narrator(server, seed=3)
        made.retry(2).narrate([windows.past_of(0, known)])
    assert (server.bodies[0]["seed"], server.bodies[0]["temperature"]) == (5, 0.7)


def test_shuffled_streams_too(tmp_path):
    windows, known = windows_of(12)
    with ChatServer(slow=0.2) as server:
        settings = {"model": "tiny-vl", "url": server.url, "size": 48, "labels": False}
        shuffled = narrators.build("shuffled", of="openai", params={**settings, "concurrent": 5})
        store = tmp_path / "n.jsonl"
        texts = narrate_windows(windows, shuffled, known, store, name="shuffled")
        assert server.most_under_way == 5
        plain = narrators.build("openai", **settings)
        straight = narrate_windows(windows, plain, known, store, name="openai")
    assert sorted(texts) == sorted(straight)
    assert server.requests == 12


def _narrate(url, store, count):
    """What a process does that is killed."""
    windows, known = windows_of(count)
    settings = {"size": 48, "labels": False, "backoff": 0.005, "concurrent": 8}
    made = narrators.build("openai", model="tiny-vl", url=url, **settings)
    narrate_windows(windows, made, known, Path(store), name="openai", batch=16)


@pytest.mark.slow
def test_killed_and_started_again_every_window_is_told_exactly_once(tmp_path):
    store, count = tmp_path / "n.jsonl", 300
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["s2kd.narration.store", "openai", "test_openai_narrator"])
    with ChatServer(at_random(7)) as server:
        kills = 0
        for until in (40, 110, 200):
            process = context.Process(target=_narrate, args=(server.url, str(store), count))
            process.start()
            while process.is_alive() and server.told.total() < until:
                time.sleep(0.005)
            process.kill()
            process.join()
            kills += process.exitcode == -9
        assert kills == 3, "the premise"
        before = len(read_narratives(store))
        assert 0 < before < count
        _narrate(server.url, str(store), count)
    lines = read_narratives(store)
    assert len(lines) == len({line.key for line in lines}) == count
    assert sorted(line.index for line in lines) == list(range(count))
    # what was lost is at most what was under way or not yet written at each of the kills
    assert server.told.total() <= count + 3 * (8 + 16)
    for line in store.read_bytes().splitlines():
        json.loads(line)


def test_other_windows_of_the_same_picture_are_not_mixed_up(tmp_path):
    """Frames that differ by less than a colour step make one picture, but two windows."""
    dataset = made(2)
    near = replace(dataset, frames=dataset.frames * np.float32(1 + 1e-6))
    with ChatServer() as server:
        for each in (dataset, near):
            windows = WindowDataset(each, "train", past=4, lead=2)
            narrate_windows(
                windows, narrator(server), statistics(dataset), tmp_path / "n.jsonl", name="openai"
            )
    assert len(read_narratives(tmp_path / "n.jsonl")) == 4
