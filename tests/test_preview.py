"""The review page: right windows, right narratives, images inside, nothing fetched."""

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
from s2kd.narration import preview
from s2kd.narration.sheet import Sheets, png
from s2kd.narration.store import read_narratives


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.json"
    path.write_text(json.dumps(road.tiny().to_dict()))
    return str(path)


def narrate(recipe, out, *options):
    with pytest.raises(SystemExit) as end:
        main(["narrate", recipe, "--out", str(out), *options])
    assert not end.value.code
    return pipeline.open_run(pipeline.load_recipe(out), out)


@pytest.fixture(scope="module")
def previewed(recipe, tmp_path_factory):
    """A previewed run and its page."""
    run = narrate(recipe, tmp_path_factory.mktemp("run") / "run", "--preview", "5")
    return run, (run.out / "preview.html").read_text("utf-8")


class Balanced(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_complete_and_fetches_nothing(previewed):
    _, page = previewed
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe"}
    assert not re.search(r"https?://|url\(|@import", page)
    sources = [attrs["src"] for tag, attrs in reader.tags if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_each_window_has_its_own_sheet_narrative_and_facts(previewed):
    run, page = previewed
    windows = run.windows("train")
    numbers = [int(n) for n in re.findall(r'<section id="window-(\d+)">', page)]
    assert numbers == preview.spread(len(windows), 5)
    sections = page.split("<section ")[1:]
    for number, section in zip(numbers, sections, strict=True):
        past = windows.past_of(number, run.train_stats)
        (image,) = re.findall(r'base64,([^"]+)"', section)
        assert base64.b64decode(image) == png(Sheets(size=preview.SHEET_SIZE)(past))
        (text,) = run.narrator.narrate([past])
        assert f"<blockquote>{text}</blockquote>" in section
        assert f"{past.frames[-1].max():.4g}, " in section
    assert len(set(sections)) == 5


def test_the_page_names_the_narrator_and_says_whether_it_reads_the_future(previewed):
    run, page = previewed
    for name, value in (
        ("narrator", "rules"),
        ("version", run.narrator.version),
        ("reads the future", "no"),
        ("dataset", f"blobs, 5 of {len(run.windows('train'))} windows of train"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page


def test_narrating_everything_continues_from_the_previewed_windows(previewed):
    run, _ = previewed
    before = read_narratives(run.out / "narratives.jsonl")
    assert [line.index for line in before] == preview.spread(len(run.windows("train")), 5)
    narrate("", run.out)
    after = read_narratives(run.out / "narratives.jsonl")
    assert after[:5] == before
    assert len({line.key for line in after}) == len(after)
    assert len([line for line in after if line.split == "train"]) == len(run.windows("train"))


def test_narratives_are_text_and_never_markup(previewed):
    run, _ = previewed
    past = run.windows("train").past_of(0, run.train_stats)
    text = '<script>alert("x")</script> & a < b'
    page = preview.page({"narrator": "<b>"}, [0], [past], [b"x"], [text])
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; a &lt; b" in page
    assert "<h1>Narratives by &lt;b&gt;</h1>" in page
    assert "(no words)" in preview.page({"narrator": "none"}, [0], [past], [b"x"], [""])


def test_a_model_is_previewed_with_the_sheets_that_it_read(recipe, tmp_path):
    folder = tiny_vlm.llava(tmp_path / "llava")
    params = {"model": str(folder), "max_new_tokens": 4, "size": 240, "device": "cpu"}
    run = narrate(
        recipe,
        tmp_path / "run",
        *("--preview", "2", "--set", "narrator.name=transformers"),
        *("--set", f"narrator.params={json.dumps(params)}"),
    )
    page = (run.out / "preview.html").read_text("utf-8")
    past = run.windows("train").past_of(
        preview.spread(len(run.windows("train")), 2)[0], run.train_stats
    )
    assert base64.b64encode(png(Sheets(size=240)(past))).decode() in page
    assert f"<dd>{Sheets(size=240).version}</dd>" in page


def test_a_count_below_one_is_refused(previewed):
    with pytest.raises(S2KDError, match="--preview -1: must be at least 1"):
        pipeline.preview_run(previewed[0], -1)


@given(total=st.integers(1, 5000), count=st.integers(1, 60))
def test_windows_are_spread_evenly(total, count):
    numbers = preview.spread(total, count)
    assert len(numbers) == len(set(numbers)) == min(total, count)
    assert 0 <= numbers[0] <= numbers[-1] < total
    gaps = np.diff(numbers)
    assert gaps.max(initial=0) - gaps.min(initial=total) <= 1
    assert abs(numbers[0] - (total - 1 - numbers[-1])) <= 1
