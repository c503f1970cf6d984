import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Told, exchange, narrators
from s2kd.narration.narrators.store import (
    Narrative,
    completed,
    narrate_windows,
    opened,
    read_narratives,
    shard_of,
    wanted_of,
)


class Counting:
    """Says what it sees, in words with bytes of several lengths; counts its calls."""

    reads_future = False

    def __init__(self, version="1", stop_after=None):
        self.version, self.stop_after, self.told, self.batches = version, stop_after, 0, []

    def narrate(self, pasts):
        if self.stop_after is not None and self.told >= self.stop_after:
            raise KeyboardInterrupt
        self.told += len(pasts)
        self.batches.append(len(pasts))
        return [f"{self.version}: é {past.frames.sum():.6f} ≥ “{past.context}”\n" for past in pasts]


@pytest.fixture(scope="module")
def dataset():
    frames = np.random.default_rng(0).standard_normal((60, 1, 6, 8)).astype("f4")
    grid = GridSpec(channels=("a",), units=("1",), height=6, width=8, step_seconds=3600.0)
    cuts = {"train": (0, 30), "val": (30, 40), "test": (40, 60)}
    return Dataset(
        name="made",
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
def known(dataset):
    return statistics(dataset)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "run" / "narratives.jsonl"


def test_narratives_are_kept_in_order_and_made_once(windows, known, store):
    seen = []
    first = Counting()
    texts = narrate_windows(
        windows, first, known, store, name="counting", batch=8, progress=lambda *p: seen.append(p)
    )
    assert texts == Counting().narrate([windows.past_of(i, known) for i in range(len(windows))])
    assert first.batches == [8, 8, 8, 1]
    assert seen == [(8, 25), (16, 25), (24, 25), (25, 25)]
    again = Counting()
    assert narrate_windows(windows, again, known, store, name="counting") == texts
    assert again.told == 0
    lines = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
    assert [line["index"] for line in lines] == list(range(25))
    assert (
        lines[3].items()
        >= {
            "window": windows.past_of(3, known).digest,
            "split": "train",
            "narrator": "counting",
            "version": "1",
            "reads_future": False,
            "text": texts[3],
        }.items()
    )


def test_splits_narrators_and_versions_share_a_file(dataset, windows, known, store):
    val = WindowDataset(dataset, "val", past=4, lead=2)
    texts = narrate_windows(windows, Counting(), known, store, name="counting")
    newer = Counting("2")
    assert narrate_windows(windows, newer, known, store, name="counting") != texts
    assert newer.told == len(windows)
    narrate_windows(val, Counting(), known, store, name="counting")
    narrate_windows(windows, Counting(), known, store, name="other")
    again = Counting()
    assert narrate_windows(windows, again, known, store, name="counting") == texts
    assert again.told == 0
    assert len(read_narratives(store)) == 3 * len(windows) + len(val)


def test_other_statistics_make_other_narratives(windows, known, store):
    narrate_windows(windows, Counting(), known, store, name="counting")
    again = Counting()
    narrate_windows(windows, again, replace(known, mean=(9.0,)), store, name="counting")
    assert again.told == len(windows)


def test_other_context_makes_other_narratives(dataset, windows, known, store):
    told = replace(dataset, context=(("rain",),) * 60)
    narrate_windows(windows, Counting(), known, store, name="counting")
    rainy = WindowDataset(told, "train", past=4, lead=2)
    texts = narrate_windows(rainy, Counting(), known, store, name="counting")
    assert all("rain" in text for text in texts)


def test_torn_at_every_byte_of_the_last_lines_it_is_made_whole(dataset, known, store):
    windows = WindowDataset(dataset, "val", past=4, lead=2)
    whole = narrate_windows(windows, Counting(), known, store, name="counting", batch=2)
    content = store.read_bytes()
    lines = content.splitlines(keepends=True)
    for length in range(len(content) - len(lines[-1]) - len(lines[-2]) - 1, len(content)):
        store.write_bytes(content[:length])
        again = Counting()
        assert narrate_windows(windows, again, known, store, name="counting", batch=2) == whole
        assert again.told == len(lines) - content[:length].count(b"\n")
        assert store.read_bytes() == content


def test_interrupted_and_resumed_equals_never_interrupted(windows, known, store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        narrate_windows(windows, Counting(stop_after=12), known, store, name="counting", batch=6)
    assert len(read_narratives(store)) == 12
    rest = Counting()
    narrate_windows(windows, rest, known, store, name="counting", batch=6)
    assert rest.told == len(windows) - 12
    narrate_windows(windows, Counting(), known, tmp_path / "other.jsonl", name="counting")
    assert store.read_bytes() == (tmp_path / "other.jsonl").read_bytes()


@pytest.mark.parametrize("bad", [b"not json", b'{"window": "a"}', b"[1]", b"3", b"", b"\xff\xfe"])
def test_a_bad_line_is_named(bad, windows, known, store):
    narrate_windows(windows, Counting(), known, store, name="counting")
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join([*lines[:3], bad + b"\n", *lines[3:]]))
    with pytest.raises(S2KDError, match=r"narratives\.jsonl, line 4: not a narrative"):
        narrate_windows(windows, Counting(), known, store, name="counting")


def test_a_field_of_the_wrong_type_is_refused(windows, known, store):
    narrate_windows(windows, Counting(), known, store, name="counting")
    plain = json.loads(store.read_text(encoding="utf-8").splitlines()[0])
    store.write_text(json.dumps({**plain, "text": 3}) + "\n", encoding="utf-8")
    with pytest.raises(S2KDError, match="line 1: not a narrative"):
        read_narratives(store)


def test_a_second_writer_is_refused(windows, known, store):
    with opened(store), pytest.raises(S2KDError, match="another process is adding narratives"):
        narrate_windows(windows, Counting(), known, store, name="counting")
    narrate_windows(windows, Counting(), known, store, name="counting")
    with opened(store):  # what is all there can be read meanwhile
        narrate_windows(windows, Counting(), known, store, name="counting")


HOLD = """
import sys
from pathlib import Path
from s2kd.narration.narrators.store import opened
with opened(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_refused_until_the_first_dies(windows, known, store):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(S2KDError, match="another process"):
            narrate_windows(windows, Counting(), known, store, name="counting")
        holder.kill()
        holder.wait()
    assert narrate_windows(windows, Counting(), known, store, name="counting")


def test_a_torn_line_longer_than_what_follows_leaves_nothing_behind(windows, known, store):
    whole = narrate_windows(windows, Counting(), known, store, name="counting")
    content = store.read_bytes()
    kept = content[: content.rindex(b"\n", 0, -1) + 1]
    store.write_bytes(kept + b'{"window": "' + b"x" * 5000)
    assert narrate_windows(windows, Counting(), known, store, name="counting") == whole
    assert store.read_bytes() == content


def test_a_full_disk_is_an_error_and_leaves_whole_lines(store):
    """A limit on the size of files stands in for the disk's end: a write stops half way."""
    resource = pytest.importorskip("resource")
    line = {"window": "w", "split": "train", "narrator": "n", "version": "1"}
    many = [
        Narrative(index=i, reads_future=False, text="x" * 50, **line)  # 175 bytes
        for i in range(12)
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with opened(store) as kept:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
            kept.add(many[:4])
            kept.add(many[4:8])
            with pytest.raises(S2KDError, match="could not be written"):
                kept.add(many[8:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.read_bytes().endswith(b"\n")
    assert read_narratives(store) == many[:8]
    with opened(store) as kept:
        kept.add(many[8:])
    assert read_narratives(store) == many


def test_a_place_that_cannot_be_written_is_named(windows, known, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(S2KDError, match=r"file/narratives\.jsonl: cannot be opened"):
        narrate_windows(
            windows, Counting(), known, tmp_path / "file" / "narratives.jsonl", name="counting"
        )


def test_a_narrator_must_give_one_text_a_window(windows, known, store):
    class Short(Counting):
        def narrate(self, pasts):
            return ["one"]

    with pytest.raises(S2KDError, match="gave 1 texts for 25 windows"):
        narrate_windows(windows, Short(), known, store, name="short")
    assert read_narratives(store) == []


def test_windows_that_are_alike_are_narrated_once(dataset, known, store):
    still = replace(dataset, frames=np.ones_like(dataset.frames))
    windows = WindowDataset(still, "train", past=4, lead=2)
    narrator = Counting()
    assert len(narrate_windows(windows, narrator, known, store, name="counting")) == 25
    assert narrator.told == 1


def test_shuffled_reads_what_the_other_wrote_and_hands_it_round(windows, known, store):
    rules = narrators.build("rules")
    texts = narrate_windows(windows, rules, known, store, name="rules")
    before = store.read_bytes()
    shuffled = narrators.build("shuffled", of="rules", seed=1)
    got = narrate_windows(windows, shuffled, known, store, name="shuffled")
    assert store.read_bytes() == before
    assert got == shuffled.rearrange(texts)
    assert sorted(got) == sorted(texts)
    assert got != texts


def test_recorded_gives_every_window_its_own_words(dataset, windows, known, store, tmp_path):
    texts = narrate_windows(windows, Counting(), known, store, name="counting")
    recorded = narrators.build("recorded", path=str(store))
    assert recorded.reads_future is False
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join(reversed(lines)))
    recorded = narrators.build("recorded", path=store)
    ours = tmp_path / "ours.jsonl"
    assert narrate_windows(windows, recorded, known, ours, name="recorded") == texts
    val = WindowDataset(dataset, "val", past=4, lead=2)
    with pytest.raises(S2KDError, match="5 of 5 windows have no narrative here"):
        narrate_windows(val, recorded, known, ours, name="recorded")
    with pytest.raises(S2KDError, match="1 of 2 windows"):
        recorded.narrate([windows.past_of(0, known), val.past_of(0, known)])


def test_recorded_versions_follow_the_words(windows, known, store):
    narrate_windows(windows, Counting(), known, store, name="counting")
    first = narrators.build("recorded", path=store).version
    store.write_text(store.read_text("utf-8").replace("é", "è"), encoding="utf-8")
    assert narrators.build("recorded", path=store).version != first


def test_recorded_wants_one_maker(windows, known, store, tmp_path):
    narrate_windows(windows, Counting("1"), known, store, name="counting")
    texts = narrate_windows(windows, Counting("2"), known, store, name="counting")
    with pytest.raises(S2KDError, match="version='1'; narrator='counting' version='2'"):
        narrators.build("recorded", path=store)
    second = narrators.build("recorded", path=store, version="2")
    assert second.narrate([windows.past_of(7, known)]) == [texts[7]]
    with pytest.raises(S2KDError, match="found none"):
        narrators.build("recorded", path=store, narrator="nobody")
    with pytest.raises(S2KDError, match="no such file"):
        narrators.build("recorded", path=tmp_path / "nothing.jsonl")


def test_recorded_keeps_the_mark_of_one_who_read_the_future(windows, known, store):
    oracle = Counting()
    oracle.reads_future = True
    narrate_windows(windows, oracle, known, store, name="oracle")
    assert all(line.reads_future for line in read_narratives(store))
    assert narrators.build("recorded", path=store).reads_future is True


# narrators that stream


class Streams(Counting):
    """Gives narratives one by one and backwards, some twice; stops where it is told to."""

    def __init__(self, stop_after=None, silent=()):
        super().__init__()
        self.left, self.silent = stop_after, silent

    def stream(self, pasts):
        for number, past in reversed(list(pasts)):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = None if self.left is None else self.left - 1
            if number not in self.silent:
                (text,) = self.narrate([past])
                yield Told(number=number, text=text, model="m")
                yield Told(number=number, text="again", model="m")


def test_what_streams_is_kept_in_its_place(windows, known, store):
    texts = narrate_windows(windows, Streams(), known, store, name="counting", batch=4)
    plain = store.parent / "plain.jsonl"
    assert texts == narrate_windows(windows, Counting(), known, plain, name="counting")
    lines = read_narratives(store)
    assert len(lines) == 25
    assert {line.model for line in lines} == {"m"}
    assert [line.index for line in lines] == list(range(24, -1, -1))


def test_what_came_before_a_stream_broke_off_is_kept(windows, known, store):
    with pytest.raises(KeyboardInterrupt):
        narrate_windows(windows, Streams(stop_after=11), known, store, name="counting", batch=64)
    assert len(read_narratives(store)) == 11
    rest = Streams()
    narrate_windows(windows, rest, known, store, name="counting")
    assert rest.told == 14


def test_a_stream_that_leaves_windows_out_is_told_of(windows, known, store):
    with pytest.raises(S2KDError, match="'counting' gave no text for 2 of 25 windows"):
        narrate_windows(windows, Streams(silent=(3, 5)), known, store, name="counting")
    assert len(read_narratives(store)) == 23


def test_old_lines_without_the_newer_fields_are_read(windows, known, store):
    texts = narrate_windows(windows, Counting(), known, store, name="counting")
    plain = [json.loads(line) for line in store.read_text("utf-8").splitlines()]
    assert not {"model", "note"} & set(plain[0])
    assert [replace(line).note for line in read_narratives(store)] == [""] * len(texts)


def test_a_later_line_stands_in_for_an_earlier_one(windows, known, store):
    texts = narrate_windows(windows, Counting(), known, store, name="counting")
    line = read_narratives(store)[4]
    with opened(store) as kept:
        kept.add([replace(line, text="better", note="asked again")])
    again = Counting()
    assert narrate_windows(windows, again, known, store, name="counting") == [
        *texts[:4],
        "better",
        *texts[5:],
    ]
    assert again.told == 0


# shards and merging


def shards(windows, known, folder, count, make=Counting):
    """One store a shard, as `count` machines would fill them."""
    stores = []
    for number in range(1, count + 1):
        path = folder / f"part{number}" / "narratives.jsonl"
        wanted = wanted_of(windows, make(), known, name="counting")
        mine = [wanted[place] for place in shard_of(wanted, (number, count))]
        if mine:
            completed(path, mine, windows, make(), known)
            stores.append(path)
    return stores


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_shards_make_a_whole(count, windows, known, store, tmp_path):
    parts = shards(windows, known, tmp_path, count)
    whole = narrate_windows(windows, Counting(), known, store, name="counting")
    out = tmp_path / "merged.jsonl"
    merged = exchange.merge(parts, out)
    assert (merged.narratives, merged.added, merged.conflicts) == (25, 25, 0)
    assert sum(len(read_narratives(part)) for part in parts) == 25
    again = Counting()
    assert narrate_windows(windows, again, known, out, name="counting") == whole
    assert again.told == 0
    assert exchange.merge([*parts, *parts], out).added == 0
    assert len(read_narratives(out)) == 25


def test_windows_that_are_alike_are_of_one_shard(dataset, known, tmp_path):
    still = replace(dataset, frames=np.ones_like(dataset.frames))
    windows = WindowDataset(still, "train", past=4, lead=2)
    (part,) = shards(windows, known, tmp_path, 3)
    assert len(read_narratives(part)) == 1


def test_conflicts_are_refused_or_settled(windows, known, tmp_path):
    class Other(Counting):
        def narrate(self, pasts):
            return [f"other {text}" for text in super().narrate(pasts)]

    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = narrate_windows(windows, Counting(), known, one, name="counting")
    last = narrate_windows(windows, Other(), known, two, name="counting")
    out = tmp_path / "out.jsonl"
    with pytest.raises(S2KDError, match=r"25 windows have two texts.*one\.jsonl and in .*two\.js"):
        exchange.merge([one, two], out)
    assert not out.exists()
    for keep, expected in (("first", first), ("last", last), ("first", last)):
        merged = exchange.merge([one, two], out, keep=keep)
        assert merged.narratives == 25
        assert merged.conflicts >= 25
        assert narrate_windows(windows, Counting(), known, out, name="counting") == expected
    with pytest.raises(S2KDError, match="keep='best' must be first or last"):
        exchange.merge([one, two], out, keep="best")


def test_merging_cannot_lose_what_is_there(windows, known, store, tmp_path):
    narrate_windows(windows, Counting(), known, store, name="counting")
    with opened(store), pytest.raises(S2KDError, match="another process is adding"):
        exchange.merge([_copy(store, tmp_path / "copy.jsonl", 3)], store)
    with pytest.raises(S2KDError, match="is the store that is merged into"):
        exchange.merge([store], store)
    with pytest.raises(S2KDError, match="no such file"):
        exchange.merge([tmp_path / "nothing.jsonl"], store)
    assert len(read_narratives(store)) == 25


def _copy(store, to, lines):
    """Other narratives than those of `store`."""
    kept = [replace(line, version="other") for line in read_narratives(store)[:lines]]
    with opened(to) as made:
        made.add(kept)
    return to


# Parquet

TWO_HOURS = np.timedelta64(2, "h")


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def parquet(arrow, path, **columns):
    arrow[1].write_table(arrow[0].table(columns), path)
    return path


def test_parquet_there_and_back(windows, known, store, tmp_path, arrow):
    texts = narrate_windows(windows, Counting(), known, store, name="counting")
    line = read_narratives(store)[2]
    with opened(store) as kept:  # a line that was put right counts once
        kept.add([replace(line, text="better")])
    out = tmp_path / "all.parquet"
    assert exchange.export(store, out) == 25
    recorded = narrators.build("recorded", path=out)
    ours = tmp_path / "ours.jsonl"
    got = narrate_windows(windows, recorded, known, ours, name="recorded")
    assert got == [*texts[:2], "better", *texts[3:]]
    assert "counting" in recorded.version
    assert recorded.reads_future is False


@pytest.mark.parametrize("name", ["all.csv", "all", "all.parquet.gz"])
def test_narratives_are_written_as_what_their_name_says(store, tmp_path, name):
    with pytest.raises(S2KDError, match=rf"{name}: narratives are written as Parquet"):
        exchange.export(store, tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("kind", ["index", "text", "timestamp", "zone", "string"])
def test_narratives_made_elsewhere_find_their_windows(kind, windows, known, tmp_path, arrow):
    said = [f"window {number}" for number in range(25)]
    times = windows.dataset.times[windows.starts]
    order = np.random.default_rng(0).permutation(25)
    columns = {
        "index": {"split": ["train"] * 25, "index": list(range(25))},
        "text": {"window": [windows.past_of(i, known).digest for i in range(25)]},
        "timestamp": {"time": arrow[0].array(times)},
        "zone": {
            "time": [f"{np.datetime_as_string(t, unit='s')}+02:00" for t in times + TWO_HOURS]
        },
        "string": {"time": [str(np.datetime_as_string(t, unit="h")) for t in times]},
    }[kind]
    shuffled = {name: arrow[0].array(v).take(arrow[0].array(order)) for name, v in columns.items()}
    path = parquet(arrow, tmp_path / "made.parquet", text=[said[i] for i in order], **shuffled)
    recorded = narrators.build("recorded", path=path, reads_future=False)
    assert recorded.reads_future is False
    got = narrate_windows(windows, recorded, known, tmp_path / "n.jsonl", name="recorded")
    assert got == said


def test_a_parquet_file_says_who_read_the_future_or_the_user_does(tmp_path, arrow):
    columns = {"split": ["train"] * 2, "index": [0, 1], "text": ["a", "b"]}
    path = parquet(arrow, tmp_path / "n.parquet", **columns)
    with pytest.raises(S2KDError, match="does not say whether its narratives were made with the"):
        narrators.build("recorded", path=path)
    assert narrators.build("recorded", path=path, reads_future=True).reads_future is True
    parquet(arrow, path, reads_future=[False, True], **columns)
    assert narrators.build("recorded", path=path).reads_future is True
    # what the file admits cannot be talked away
    assert narrators.build("recorded", path=path, reads_future=False).reads_future is True


def test_parquet_files_that_cannot_be_used_are_named(windows, known, tmp_path, arrow):
    path = tmp_path / "n.parquet"
    with pytest.raises(S2KDError, match="no such file"):
        narrators.build("recorded", path=path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(S2KDError, match="not readable as Parquet"):
        narrators.build("recorded", path=path)
    parquet(arrow, path, text=["a"], index=[0])
    with pytest.raises(S2KDError, match="needs a column text and one of window, split with index"):
        narrators.build("recorded", path=path)
    parquet(arrow, path, text=["a", None], window=["x", "y"])
    with pytest.raises(S2KDError, match="column text has no value in row 1"):
        narrators.build("recorded", path=path)
    parquet(arrow, path, text=[1, 2], window=["x", "y"])
    with pytest.raises(S2KDError, match="column text must hold strings"):
        narrators.build("recorded", path=path)
    parquet(arrow, path, text=["a"], time=["1999-01-01"])
    recorded = narrators.build("recorded", path=path, reads_future=False)
    with pytest.raises(S2KDError, match="25 of 25 windows have no narrative here"):
        narrate_windows(windows, recorded, known, tmp_path / "n.jsonl", name="recorded")


def test_start_times_that_several_windows_share_are_refused(dataset, known, tmp_path, arrow):
    twice = replace(dataset, times=np.concatenate([dataset.times[:15]] * 4))
    twice = replace(
        twice,
        splits={**dataset.splits, "train": (Stretch(first=0, stop=15), Stretch(first=15, stop=30))},
    )
    windows = WindowDataset(twice, "train", past=4, lead=2)
    times = [str(t) for t in twice.times[:15]]
    path = parquet(arrow, tmp_path / "n.parquet", text=["a"] * 15, time=times)
    recorded = narrators.build("recorded", path=path, reads_future=False)
    with pytest.raises(S2KDError, match="10 start times are those of several windows"):
        narrate_windows(windows, recorded, known, tmp_path / "n.jsonl", name="recorded")
