"""The page to judge narratives by: right windows, right words, pictures inside, nothing fetched."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import road
import tiny_vlm
from hypothesis import given
from hypothesis import strategies as st

from s2kd import pipeline
from s2kd.cli import main
from s2kd.core.types import S2KDError
from s2kd.narration.sheet import Sheets, png
from s2kd.narration.store import read_narratives
from s2kd.pipeline import preview


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.json"
    path.write_text(json.dumps(road.tiny().to_dict()))
    return str(path)


def narrate(recipe, out, *more):
    main(["narrate", recipe, "--out", str(out), *more])


@pytest.fixture(scope="module")
def shown(recipe, tmp_path_factory):
    """A previewed run: its folder, opened again, and the page."""
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.raises(SystemExit) as end:
        narrate(recipe, out, "--preview", "5")
    assert not end.value.code
    run = pipeline.open_run(pipeline.load_recipe(out), out)
    return run, (out / "preview.html").read_text("utf-8")


class Whole(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(shown):
    _, page = shown
    reader = Whole()
    reader.feed(page)
    assert reader.open == []
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "link", "iframe"}
    assert not re.search(r"https?://|url\(|@import", page)
    sources = [attrs["src"] for tag, attrs in reader.seen if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_each_window_has_its_own_sheet_and_words_and_facts(shown):
    run, page = shown
    windows = run.windows("train")
    numbers = [int(n) for n in re.findall(r'<section id="window-(\d+)">', page)]
    assert numbers == preview.spread(len(windows), 5)
    cards = page.split("<section ")[1:]
    for number, card in zip(numbers, cards, strict=True):
        past = windows.past_of(number, run.train_stats)
        (picture,) = re.findall(r'base64,([^"]+)"', card)
        assert base64.b64decode(picture) == png(Sheets(size=preview.USUAL_SIZE)(past))
        (text,) = run.narrator.narrate([past])
        assert f"<blockquote>{text}</blockquote>" in card
        assert f"{past.frames[-1].max():.4g}, " in card
    assert len(set(cards)) == 5


def test_the_page_says_who_wrote_and_whether_they_saw_the_future(shown):
    run, page = shown
    for name, value in (
        ("narrator", "rules"),
        ("version", run.narrator.version),
        ("reads the future", "no"),
        ("dataset", f"blobs, 5 of {len(run.windows('train'))} windows of train"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page


def test_previewed_narratives_are_kept_and_narrating_goes_on_from_them(shown, recipe):
    run, _ = shown
    before = read_narratives(run.out / "narratives.jsonl")
    assert [line.index for line in before] == preview.spread(len(run.windows("train")), 5)
    with pytest.raises(SystemExit) as end:
        narrate("", run.out)
    assert not end.value.code
    after = read_narratives(run.out / "narratives.jsonl")
    assert after[:5] == before
    keys = [line.key for line in after]
    assert len(set(keys)) == len(keys)
    assert len([line for line in after if line.split == "train"]) == len(run.windows("train"))


def test_words_are_shown_as_they_are_and_never_as_markup(shown):
    run, _ = shown
    past = run.windows("train").past_of(0, run.train_stats)
    text = '<script>alert("x")</script> & a < b'
    page = preview.page({"narrator": "<b>"}, [0], [past], [b"x"], [text])
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; a &lt; b" in page
    assert "<h1>Narratives by &lt;b&gt;</h1>" in page
    assert "(no words)" in preview.page({"narrator": "none"}, [0], [past], [b"x"], [""])


def test_a_model_is_shown_with_the_sheets_that_it_saw(recipe, tmp_path):
    folder = tiny_vlm.llava(tmp_path / "llava")
    params = {"model": str(folder), "max_new_tokens": 4, "size": 240, "device": "cpu"}
    with pytest.raises(SystemExit) as end:
        narrate(
            recipe,
            tmp_path / "run",
            *("--preview", "2", "--set", "narrator.name=transformers"),
            *("--set", f"narrator.params={json.dumps(params)}"),
        )
    assert not end.value.code
    page = (tmp_path / "run" / "preview.html").read_text("utf-8")
    run = pipeline.open_run(pipeline.load_recipe(tmp_path / "run"), tmp_path / "run")
    past = run.windows("train").past_of(
        preview.spread(len(run.windows("train")), 2)[0], run.train_stats
    )
    assert base64.b64encode(png(Sheets(size=240)(past))).decode() in page
    assert "sheet-2 size=240 labels=True" in page
    kept = read_narratives(tmp_path / "run" / "narratives.jsonl")
    assert [line.narrator for line in kept] == ["transformers"] * 2


def test_a_number_of_windows_that_is_none_is_refused(shown):
    with pytest.raises(S2KDError, match="--preview -1: must be at least 1"):
        preview.write(shown[0], windows=-1)


@given(count=st.integers(1, 5000), wanted=st.integers(1, 60))
def test_windows_are_spread_evenly(count, wanted):
    numbers = preview.spread(count, wanted)
    assert len(numbers) == len(set(numbers)) == min(count, wanted)
    assert numbers[0] >= 0
    assert numbers[-1] < count
    gaps = np.diff([*numbers])
    if len(gaps):
        assert gaps.max() - gaps.min() <= 1
    assert abs(numbers[0] - (count - 1 - numbers[-1])) <= 1
