"""Stored narratives: `narratives.jsonl`, append-only, where the last line of a key wins."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import msgspec

from s2kd.core.files import bytes_digest, digest, locked
from s2kd.core.types import Past, S2KDError, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import Claim
from s2kd.narration.narrators import Answer, Narrator

FILE_NAME = "narratives.jsonl"
MARK = b', "digest": "'
"""Before the digest of a line; within a text, its quotation marks would be escaped."""
Progress = Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True)
class Narrative:
    """One line of the store.

    `window` is `Past.digest`, `index` the number of the window within `split`. `given` is a hash
    of the narrator's remaining input (grid, training statistics, season, context), empty where
    the text was written elsewhere. `model` is the name that a server reports; `note` says why
    this line replaces an earlier line of its key. `claims` is None for a text without claims.
    """

    window: str
    split: str
    index: int
    narrator: str
    version: str
    reads_future: bool
    text: str
    given: str = ""
    model: str = ""
    note: str = ""
    claims: tuple[Claim, ...] | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the text depends on."""
        return self.window, self.given, self.narrator, self.version

    def encode(self) -> bytes:
        """One line of JSON; `model`, `note` and `claims` only where they are set.

        Its last field is a digest of the line without it.
        """
        fields = {k: v for k, v in asdict(self).items() if v or k not in ("model", "note")}
        if self.claims is None:
            del fields["claims"]
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
        return line[:-1] + MARK + bytes_digest(line).encode() + b'"}\n'


def read_narratives(path: Path) -> list[Narrative]:
    """All complete lines in order; an incomplete last line is ignored, a bad one an S2KDError."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise S2KDError(f"{path}: no such file") from None
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read ({error.strerror})") from None
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _parse(line: bytes, source: str) -> Narrative:
    try:
        start, mark, end = line.rpartition(MARK)  # lines of earlier versions have no digest
        if mark and end != bytes_digest(start + b"}").encode() + b'"}':
            raise ValueError("it was altered after it was written")
        return msgspec.json.decode(line, type=Narrative)
    except (msgspec.MsgspecError, ValueError) as error:
        raise S2KDError(
            f"{source}: not a narrative ({error}); remove the line to have it written again"
        ) from None


def read_texts(path: Path) -> dict[tuple[str, str, str, str], str]:
    """The latest text of every key; empty where there is no file."""
    return {line.key: line.text for line in read_narratives(path)} if path.exists() else {}


def read_latest(path: Path) -> dict[tuple[str, str, str, str], Narrative]:
    """The latest line of every key."""
    return {line.key: line for line in read_narratives(path)}


class Store:
    """A narratives file open for appending, by one process at a time; see `open_store`."""

    def __init__(self, path: Path) -> None:
        self.path, self.texts = path, read_texts(path)
        self._size = path.read_bytes().rfind(b"\n") + 1  # an incomplete last line is overwritten

    def add(self, narratives: Sequence[Narrative]) -> None:
        """Append lines and flush them to disk; after an error the file is as it was before."""
        block = b"".join(narrative.encode() for narrative in narratives)
        try:
            with self.path.open("r+b") as file:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, self._size)
            raise S2KDError(
                f"{self.path}: narratives could not be written ({error.strerror}); "
                "those written before are safe"
            ) from None
        self._size += len(block)
        self.texts |= {narrative.key: narrative.text for narrative in narratives}


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """The store at `path`, created if missing, locked against other writers."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise S2KDError(f"{path}: cannot be opened for writing ({error.strerror})") from None
    busy = S2KDError(
        f"{path}: another process is adding narratives; wait for it or use another folder"
    )
    with locked(path.with_suffix(".lock"), busy):
        yield Store(path)


def narrate_windows(
    windows: WindowDataset,
    narrator: Narrator,
    statistics: Statistics,
    store: Path,
    *,
    name: str,
    progress: Progress | None = None,
    batch: int = 64,
    numbers: Sequence[int] | None = None,
) -> list[str]:
    """The narrative of every window of a split, in order; missing ones are written and stored.

    `name` is the registered name of the narrator. `progress(done, total)` is called after every
    block of new narratives; `batch` is the windows per block of a narrator that does not stream.
    `numbers` selects windows.
    """
    blanks = blank_narratives(windows, narrator, statistics, name=name, numbers=numbers)
    texts = complete(store, blanks, windows, narrator, statistics, progress, batch)
    return narrator.rearrange(texts)


def blank_narratives(
    windows: WindowDataset,
    narrator: Narrator,
    statistics: Statistics,
    *,
    name: str,
    numbers: Sequence[int] | None = None,
) -> list[Narrative]:
    """The narratives of a split without their texts: what each is stored under."""
    source, stored_name = narrator.source, narrator.source_name or name
    training, hashes = digest(asdict(statistics)), {}

    def blank(index: int) -> Narrative:
        past = windows.past_of(index, statistics)
        setting = (past.domain, past.season, past.part_of_day, past.context)
        if setting not in hashes:
            hashes[setting] = digest([past.grid.to_dict(), training, *setting])
        return Narrative(
            window=past.digest,
            split=windows.split,
            index=index,
            narrator=stored_name,
            version=source.version,
            reads_future=source.reads_future,
            text="",
            given=hashes[setting],
        )

    return [blank(index) for index in (range(len(windows)) if numbers is None else numbers)]


def shard_numbers(blanks: Sequence[Narrative], shard: tuple[int, int]) -> list[int]:
    """The positions in `blanks` of shard i of n (from 1); equal windows share a shard."""
    number, count = shard
    hashes = (int(digest([blank.window, blank.given])[:12], 16) for blank in blanks)
    return [position for position, value in enumerate(hashes) if value % count == number - 1]


def complete(
    store: Path,
    blanks: Sequence[Narrative],
    windows: WindowDataset,
    narrator: Narrator,
    statistics: Statistics,
    progress: Progress | None = None,
    batch: int = 64,
) -> list[str]:
    """The stored texts of `blanks`, not rearranged; equal windows are narrated once."""
    texts = read_texts(store)
    if any(blank.key not in texts for blank in blanks):
        source = narrator.source
        with open_store(store) as opened:
            texts = opened.texts
            missing = list({b.key: b for b in blanks if b.key not in texts}.values())
            source.match(windows, [b.window for b in blanks], [b.index for b in blanks])
            pasts = ((n, windows.past_of(b.index, statistics)) for n, b in enumerate(missing))
            done = len(blanks) - len(missing)
            with closing(answers(source, pasts, batch)) as blocks:
                for block in blocks:
                    opened.add(
                        [
                            replace(missing[a.number], text=a.text, model=a.model, claims=a.claims)
                            for a in block
                        ]
                    )
                    done += len(block)
                    if progress is not None:
                        progress(done, len(blanks))
        if silent := sum(blank.key not in texts for blank in missing):
            raise S2KDError(
                f"narrator {missing[0].narrator!r} gave no text for {silent} of {len(missing)} "
                "windows"
            )
    return [texts[blank.key] for blank in blanks]


def answers(
    narrator: Narrator, pasts: Iterator[tuple[int, Past]], batch: int
) -> Iterator[list[Answer]]:
    """Answers to be written together: one of a stream, or a batch."""
    if (stream := narrator.stream(pasts)) is not None:
        with closing(stream):
            for answer in stream:
                yield [answer]
        return
    while block := list(islice(pasts, batch)):
        texts = narrator.narrate([past for _, past in block])
        if len(texts) != len(block):
            raise S2KDError(
                f"{type(narrator).__name__}.narrate returned {len(texts)} texts for {len(block)} "
                "windows; it must return one text per window"
            )
        yield [Answer(number=n, text=text) for (n, _), text in zip(block, texts, strict=True)]
