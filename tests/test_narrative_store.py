"""The store of narratives, and narratives that come from a file."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Answer, Narrator, narrators
from s2kd.narration.store import (
    Narrative,
    blank_narratives,
    complete,
    narrate_windows,
    open_store,
    read_narratives,
    shard_numbers,
)


class Counting(Narrator):
    """Describes the frames in words with bytes of several lengths; counts its calls."""

    reads_future = False

    def __init__(self, version="1", stop_after=None):
        self.version, self.stop_after, self.count, self.batches = version, stop_after, 0, []

    def narrate(self, pasts):
        if self.stop_after is not None and self.count >= self.stop_after:
            raise KeyboardInterrupt
        self.count += len(pasts)
        self.batches.append(len(pasts))
        return [f"{self.version}: é {past.frames.sum():.6f} ≥ “{past.context}”\n" for past in pasts]


@pytest.fixture(scope="module")
def dataset():
    frames = np.random.default_rng(0).standard_normal((60, 1, 6, 8)).astype("f4")
    grid = GridSpec(channels=("a",), units=("1",), height=6, width=8, step_seconds=3600.0)
    cuts = {"train": (0, 30), "val": (30, 40), "test": (40, 60)}
    return Dataset(
        name="noise",
        domain="generic",
        grid=grid,
        frames=frames,
        times=np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(1, "h"),
        splits={k: (Stretch(first=a, stop=b),) for k, (a, b) in cuts.items()},
    )


@pytest.fixture(scope="module")
def windows(dataset):
    return WindowDataset(dataset, "train", past=4, lead=2)


@pytest.fixture(scope="module")
def train_stats(dataset):
    return statistics(dataset)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "run" / "narratives.jsonl"


@pytest.fixture
def narrate(windows, train_stats, store):
    """Narrates the training windows into the store."""

    def call(narrator=None, windows=windows, stats=train_stats, store=store, **settings):
        settings = {"name": "counting"} | settings
        return narrate_windows(windows, narrator or Counting(), stats, store, **settings)

    return call


def test_narratives_are_stored_in_order_and_written_once(narrate, windows, train_stats, store):
    progress, first = [], Counting()
    texts = narrate(first, batch=8, progress=lambda *p: progress.append(p))
    assert texts == Counting().narrate([windows.past_of(i, train_stats) for i in range(25)])
    assert first.batches == [8, 8, 8, 1]
    assert progress == [(8, 25), (16, 25), (24, 25), (25, 25)]
    again = Counting()
    assert narrate(again) == texts
    assert again.count == 0
    lines = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
    assert [line["index"] for line in lines] == list(range(25))
    window = windows.past_of(3, train_stats).digest
    assert lines[3] == {
        "window": window, "split": "train", "index": 3, "narrator": "counting", "version": "1",
        "reads_future": False, "text": texts[3], "given": lines[0]["given"],
        "digest": lines[3]["digest"],
    }  # fmt: skip


def test_a_narrative_is_stored_under_everything_it_depends_on(
    narrate, dataset, windows, train_stats, store
):
    texts = narrate()
    rainy = WindowDataset(replace(dataset, context=(("rain",),) * 60), "train", past=4, lead=2)
    val = WindowDataset(dataset, "val", past=4, lead=2)
    narrate(Counting("2"))
    narrate(name="other")
    narrate(windows=val)
    narrate(stats=replace(train_stats, mean=(9.0,)))
    assert all("rain" in text for text in narrate(windows=rainy))
    assert len(read_narratives(store)) == 5 * len(windows) + len(val)
    again = Counting()
    assert narrate(again) == texts
    assert again.count == 0


def test_equal_windows_are_narrated_once(narrate, dataset):
    still = replace(dataset, frames=np.ones_like(dataset.frames))
    narrator = Counting()
    assert len(narrate(narrator, windows=WindowDataset(still, "train", past=4, lead=2))) == 25
    assert narrator.count == 1


def test_torn_at_any_byte_of_the_last_lines_the_store_is_completed(narrate, dataset, store):
    val = WindowDataset(dataset, "val", past=4, lead=2)
    texts = narrate(windows=val, batch=2)
    content = store.read_bytes()
    lines = content.splitlines(keepends=True)
    for length in range(len(content) - len(lines[-1]) - len(lines[-2]) - 1, len(content)):
        store.write_bytes(content[:length])
        again = Counting()
        assert narrate(again, windows=val, batch=2) == texts
        assert again.count == len(lines) - content[:length].count(b"\n")
        assert store.read_bytes() == content
    store.write_bytes(b"".join(lines[:-1]) + b'{"window": "' + b"x" * 5000)
    assert narrate(windows=val) == texts
    assert store.read_bytes() == content


def test_interrupted_and_resumed_equals_never_interrupted(narrate, store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        narrate(Counting(stop_after=12), batch=6)
    assert len(read_narratives(store)) == 12
    rest = Counting()
    narrate(rest, batch=6)
    assert rest.count == 25 - 12
    narrate(store=tmp_path / "other.jsonl")
    assert store.read_bytes() == (tmp_path / "other.jsonl").read_bytes()


@pytest.mark.parametrize("bad", [b"not json", b'{"window": "a"}', b"[1]", b"", b"\xff\xfe"])
def test_a_bad_line_is_named(bad, narrate, store):
    narrate()
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join([*lines[:3], bad + b"\n", *lines[3:]]))
    with pytest.raises(S2KDError, match=r"narratives\.jsonl, line 4: not a narrative"):
        narrate()
    fields = json.loads(lines[0])
    store.write_text(json.dumps({**fields, "text": 3}) + "\n", encoding="utf-8")
    with pytest.raises(S2KDError, match="line 1: not a narrative"):
        read_narratives(store)


def test_old_lines_are_read_and_the_last_line_of_a_key_wins(narrate, store):
    texts = narrate()
    line = read_narratives(store)[4]
    old = {"window": line.window, "split": "train", "index": 4, "narrator": "counting"}
    old |= {"version": "1", "reads_future": False, "text": "better", "given": line.given}
    with store.open("a", encoding="utf-8") as file:  # as earlier releases wrote it, then `cat`
        file.write(json.dumps({**old, "note": "asked again"}) + "\n")
    again = Counting()
    assert narrate(again) == [*texts[:4], "better", *texts[5:]]
    assert again.count == 0


HOLD = """
import sys
from pathlib import Path
from s2kd.narration.store import open_store
with open_store(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_is_refused_until_the_first_dies(narrate, store):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(S2KDError, match="another process is adding narratives"):
            narrate()
        holder.kill()
        holder.wait()
    texts = narrate()
    with open_store(store):  # a complete store can be read meanwhile
        assert narrate() == texts


def test_a_full_disk_is_an_error_and_leaves_complete_lines(store, monkeypatch):
    """A limit on the size of files stands in for a full disk: a write stops half way."""
    resource = pytest.importorskip("resource")
    fields = {"window": "w", "split": "train", "narrator": "n", "version": "1"}
    narratives = [
        Narrative(index=i, reads_future=False, text="x" * 50, **fields)  # 215 bytes
        for i in range(12)
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with open_store(store) as opened:
            # Python renames a module that was cut short into place
            monkeypatch.setattr(sys, "dont_write_bytecode", True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1900, hard))
            opened.add(narratives[:4])
            opened.add(narratives[4:8])
            with pytest.raises(S2KDError, match="could not be written"):
                opened.add(narratives[8:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.read_bytes().endswith(b"\n")
    assert read_narratives(store) == narratives[:8]
    with open_store(store) as opened:
        opened.add(narratives[8:])
    assert read_narratives(store) == narratives


def test_a_folder_that_cannot_be_written_is_named(narrate, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(S2KDError, match=r"file/narratives\.jsonl: cannot be opened"):
        narrate(store=tmp_path / "file" / "narratives.jsonl")


def test_a_narrator_must_return_one_text_per_window(narrate, store):
    class Short(Counting):
        def narrate(self, pasts):
            return ["one"]

    with pytest.raises(S2KDError, match="returned 1 texts for 25 windows"):
        narrate(Short())
    assert read_narratives(store) == []


# --- narrators that stream -----------------------------------------------------------------------


class Streams(Counting):
    """Yields narratives one by one and backwards; stops after a number of them."""

    def __init__(self, stop_after=None, silent=()):
        super().__init__()
        self.limit, self.silent = stop_after, silent

    def stream(self, pasts):
        for number, past in reversed(list(pasts)):
            if self.count == self.limit:
                raise KeyboardInterrupt
            if number not in self.silent:
                (text,) = self.narrate([past])
                yield Answer(number=number, text=text, model="m")


def test_streamed_answers_belong_to_their_windows(narrate, store, tmp_path):
    texts = narrate(Streams())
    assert texts == narrate(store=tmp_path / "plain.jsonl")
    lines = read_narratives(store)
    assert {line.model for line in lines} == {"m"}
    assert [line.index for line in lines] == list(range(24, -1, -1))


def test_an_interrupted_stream_is_continued(narrate, store):
    with pytest.raises(KeyboardInterrupt):
        narrate(Streams(stop_after=11))
    assert len(read_narratives(store)) == 11
    rest = Streams()
    narrate(rest)
    assert rest.count == 14


def test_windows_that_a_stream_omits_are_counted(narrate, store):
    with pytest.raises(S2KDError, match="'counting' gave no text for 2 of 25 windows"):
        narrate(Streams(silent=(3, 5)))
    assert len(read_narratives(store)) == 23


# --- shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_shards_joined_by_cat_are_complete(count, windows, train_stats, narrate, store, tmp_path):
    texts, joined = narrate(), tmp_path / "joined.jsonl"
    blanks = blank_narratives(windows, Counting(), train_stats, name="counting")
    positions = [shard_numbers(blanks, (number, count)) for number in range(1, count + 1)]
    assert sorted(i for shard in positions for i in shard) == list(range(25))
    for number, shard in enumerate(positions):
        part = tmp_path / f"part{number}.jsonl"
        complete(part, [blanks[i] for i in shard], windows, Counting(), train_stats)
        if shard:
            with joined.open("ab") as file:
                file.write(part.read_bytes())
    again = Counting()
    assert narrate(again, store=joined) == texts
    assert again.count == 0


# --- narratives from files -----------------------------------------------------------------------


def test_shuffled_rearranges_the_stored_texts_of_its_source(narrate, store):
    texts = narrate(narrators.build("rules"), name="rules")
    before = store.read_bytes()
    shuffled = narrators.build("shuffled", of="rules", seed=1)
    assert narrate(shuffled, name="shuffled") == shuffled.rearrange(texts) != texts
    assert store.read_bytes() == before


def test_recorded_reads_the_store_of_a_run(dataset, windows, train_stats, narrate, store, tmp_path):
    texts = narrate()
    recorded = narrators.build("recorded", path=str(store.parent))
    assert recorded.reads_future is False
    assert "of counting 1" in recorded.version
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(lines[0].replace("é".encode(), b"e") + b"".join(reversed(lines)))
    recorded = narrators.build("recorded", path=store)
    copy = tmp_path / "copy.jsonl"
    assert narrate(recorded, store=copy, name="recorded") == texts
    val = WindowDataset(dataset, "val", past=4, lead=2)
    with pytest.raises(S2KDError, match="5 of 5 windows have no narrative here"):
        narrate(recorded, windows=val, store=copy, name="recorded")
    with pytest.raises(S2KDError, match="1 of 2 windows"):
        recorded.narrate([windows.past_of(0, train_stats), val.past_of(0, train_stats)])
    store.write_text(store.read_text("utf-8").replace("é", "è"), encoding="utf-8")
    assert narrators.build("recorded", path=store).version != recorded.version


def test_recorded_needs_one_narrator_and_keeps_its_mark(narrate, windows, train_stats, store):
    narrate(Counting("1"))
    oracle = Counting("2")
    oracle.reads_future = True
    texts = narrate(oracle)
    with pytest.raises(S2KDError, match="version='1'; narrator='counting' version='2'"):
        narrators.build("recorded", path=store)
    assert not narrators.build("recorded", path=store, version="1").reads_future
    second = narrators.build("recorded", path=store, version="2")
    assert second.narrate([windows.past_of(7, train_stats)]) == [texts[7]]
    assert second.reads_future
    with pytest.raises(S2KDError, match="found none"):
        narrators.build("recorded", path=store, narrator="nobody")


WRITERS = {
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "csv": lambda table, path: table.to_csv(path, index=False),
    "parquet": lambda table, path: table.to_parquet(path),
}


@pytest.mark.parametrize("kind", sorted(WRITERS))
@pytest.mark.parametrize("column", ["index", "window", "timestamp", "zone", "string"])
def test_texts_of_a_file_find_their_windows(column, kind, windows, train_stats, narrate, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    if column == "timestamp" and kind == "jsonl":
        pytest.skip("JSON has no timestamps")
    texts = [f"{number}" if number == 7 else f"window {number}" for number in range(25)]
    times = windows.dataset.times[windows.starts]
    later = times + np.timedelta64(2, "h")
    columns = {
        "index": {"split": ["train"] * 25, "index": list(range(25))},
        "window": {"window": [windows.past_of(i, train_stats).digest for i in range(25)]},
        "timestamp": {"time": times},
        "zone": {"time": [f"{np.datetime_as_string(t, unit='s')}+02:00" for t in later]},
        "string": {"time": [str(np.datetime_as_string(t, unit="h")) for t in times]},
    }[column]
    table = pd.DataFrame({"text": texts, **columns}).sample(frac=1, random_state=0)
    WRITERS[kind](table, path := tmp_path / f"table.{kind}")
    recorded = narrators.build("recorded", path=path, reads_future=False)
    assert recorded.reads_future is False
    assert narrate(recorded, store=tmp_path / "n.jsonl", name="recorded") == texts


def test_the_file_or_the_user_declares_whether_the_future_was_read(tmp_path):
    table = pd.DataFrame({"split": ["train"] * 2, "index": [0, 1], "text": ["a", "b"]})
    table.to_csv(path := tmp_path / "n.csv", index=False)
    with pytest.raises(S2KDError, match="does not say whether its narratives were written with"):
        narrators.build("recorded", path=path)
    assert narrators.build("recorded", path=path, reads_future=True).reads_future is True
    table.assign(reads_future=[False, True]).to_csv(path, index=False)
    # a declaration of the file cannot be overruled
    assert narrators.build("recorded", path=path, reads_future=False).reads_future is True


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.xlsx", "", r"narratives are read from \.jsonl, \.csv, \.parquet, \.pq files"),
        ("n.csv", None, "no such file"),
        ("n.jsonl", '{"text": "a", "wind', "not readable as jsonl"),
        ("n.parquet", "PAR1 not really", "not readable as parquet"),
        ("n.csv", "text,index\na,0", "needs a column text and one of window, split with index"),
        ("n.jsonl", '{"text": null, "window": "x"}', "column text has no value in row 0"),
        ("n.jsonl", '{"text": 1, "window": "x"}', "column text must hold strings"),
    ],
)
def test_unusable_files_are_named(name, content, message, tmp_path):
    if name == "n.parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(S2KDError, match=message):
        narrators.build("recorded", path=path)


def test_start_times_of_several_windows_are_refused(dataset, narrate, tmp_path):
    twice = replace(
        dataset,
        times=np.concatenate([dataset.times[:15]] * 4),
        splits={**dataset.splits, "train": (Stretch(first=0, stop=15), Stretch(first=15, stop=30))},
    )
    table = pd.DataFrame({"text": "a", "time": twice.times[:15]})
    table.to_csv(path := tmp_path / "n.csv", index=False)
    recorded = narrators.build("recorded", path=path, reads_future=False)
    windows = WindowDataset(twice, "train", past=4, lead=2)
    with pytest.raises(S2KDError, match="10 start times belong to several windows"):
        narrate(recorded, windows=windows, store=tmp_path / "n.jsonl", name="recorded")
