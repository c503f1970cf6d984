"""Narratives on disk: `narratives.jsonl`, one a line, only ever added to, safe to interrupt."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from s2kd.core.files import digest
from s2kd.core.types import Past, S2KDError, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Narrator, Streaming, Told

Progress = Callable[[int, int], object]
OFTEN = 0.5
"""Seconds after which narratives that came one by one are written."""


@dataclass(frozen=True, kw_only=True)
class Narrative:
    """One line of the file: whose words on which window.

    `window` is `Past.digest`, `index` the window's number within `split`. `given` is a hash of
    all else that the narrator was handed (grid, training statistics, season, context); it is
    empty where the words were made elsewhere. `model` is what the maker's server called itself;
    `note` says why a later line stands in for an earlier one of the same key.
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

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the words depend on."""
        return self.window, self.given, self.narrator, self.version


def read_narratives(path: Path) -> list[Narrative]:
    """Every whole line of the file; a torn last line is left out, a bad one is an S2KDError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise S2KDError(f"{path}: no such file") from None
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read ({error.strerror})") from None
    return parsed(content, path)


def parsed(content: bytes, path: Path) -> list[Narrative]:
    """The narratives of whole lines; what follows the last line break is a torn line."""
    lines = content.split(b"\n")[:-1]
    return [_line(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _line(line: bytes, where: str) -> Narrative:
    wanted = Narrative.__annotations__
    try:
        plain = json.loads(line)
        known = {name: plain[name] for name in wanted if name in plain}
        for name, value in known.items():
            if type(value) is not wanted[name]:
                raise TypeError(f"{name} is {value!r}")
        return Narrative(**known)
    except (ValueError, TypeError) as error:
        raise S2KDError(
            f"{where}: not a narrative ({error}); remove the line to have it made again"
        ) from None


def line_of(one: Narrative) -> bytes:
    """A narrative as a line of the file; what is mostly empty is left out where it is."""
    plain = {k: v for k, v in asdict(one).items() if v or k not in ("model", "note")}
    return (json.dumps(plain, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


class Store:
    """A narratives file opened for adding; only one at a time can be. Made by `opened`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        content = file.read()
        self._size = content.rfind(b"\n") + 1
        self.texts = {line.key: line.text for line in parsed(content, path)}
        if self._size < len(content):
            file.truncate(self._size)

    def add(self, narratives: list[Narrative]) -> None:
        """Write lines and see them to the disk; on failure the file is as it was before."""
        block = b"".join(map(line_of, narratives))
        try:
            self._file.seek(self._size)
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # if this fails too, the torn line is dropped when next opened
                self._file.truncate(self._size)
            raise S2KDError(
                f"{self.path}: narratives could not be written ({error.strerror}); "
                "those written before are kept"
            ) from None
        self._size += len(block)
        self.texts.update((one.key, one.text) for one in narratives)


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The store at `path`, made if need be and locked against other writers until it is left."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
    except OSError as error:
        raise S2KDError(f"{path}: cannot be opened for writing ({error.strerror})") from None
    with file:
        _lock(file, path)
        yield Store(path, file)


def _lock(file: BinaryIO, path: Path) -> None:
    """Hold the file until it is closed; the system lets go if the process dies."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: then the user has to take care
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise S2KDError(
            f"{path}: another process is adding narratives; wait for it or use another folder"
        ) from None


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
    """The narrative of every window of the split, in order; what `store` lacks is made and kept.

    `numbers` asks for these windows only.
    `name` is the narrator's registered name. `progress(done, total)` is called after every batch
    that had to be made. Lines of other narrators and versions are left alone. A narrator's
    `rearrange` is applied to the complete list, never to what is stored.
    """
    wanted = wanted_of(windows, narrator, statistics, name=name, numbers=numbers)
    narratives = completed(store, wanted, windows, narrator, statistics, progress, batch)
    rearrange = getattr(narrator, "rearrange", None)
    return narratives if rearrange is None else rearrange(narratives)


def completed(
    store: Path,
    wanted: list[Narrative],
    windows: WindowDataset,
    narrator: Narrator,
    statistics: Statistics,
    progress: Progress | None = None,
    batch: int = 64,
) -> list[str]:
    """The stored texts of `wanted`, as `narrate_windows` has them, before any rearranging."""
    texts = {line.key: line.text for line in read_narratives(store)} if store.exists() else {}
    if any(one.key not in texts for one in wanted):
        with opened(store) as kept:
            _fill(kept, wanted, windows, narrator, statistics, progress, batch)
            texts = kept.texts
    return [texts[one.key] for one in wanted]


def wanted_of(
    windows: WindowDataset,
    narrator: Narrator,
    statistics: Statistics,
    *,
    name: str,
    numbers: Sequence[int] | None = None,
) -> list[Narrative]:
    """What a split's narratives are kept under, window by window, without their texts."""
    given = Given(statistics)
    keeper, version = getattr(narrator, "kept_as", (name, narrator.version))
    blank = Narrative(
        window="",
        split=windows.split,
        index=0,
        narrator=keeper,
        version=version,
        reads_future=narrator.reads_future,
        text="",
    )
    wanted = []
    for index in range(len(windows)) if numbers is None else numbers:
        past = windows.past_of(index, statistics)
        wanted.append(replace(blank, window=past.digest, index=index, given=given(past)))
    return wanted


def shard_of(wanted: Sequence[Narrative], shard: tuple[int, int]) -> list[int]:
    """The places in `wanted` that are shard i of n (from 1): windows alike lie in the same one."""
    number, count = shard
    return [
        place
        for place, one in enumerate(wanted)
        if int(digest([one.window, one.given])[:12], 16) % count == number - 1
    ]


def _fill(
    kept: Store,
    wanted: list[Narrative],
    windows: WindowDataset,
    narrator: Narrator,
    statistics: Statistics,
    progress: Progress | None,
    batch: int,
) -> None:
    """Make and add what is missing, as it comes; windows alike in every respect once."""
    missing = list({one.key: one for one in wanted if one.key not in kept.texts}.values())
    if hasattr(narrator, "match"):  # so that a narrator that knows windows by time finds them
        narrator.match(windows, [one.window for one in wanted], [one.index for one in wanted])
    if hasattr(narrator, "require"):  # so that a narrator that has not all the words says so now
        narrator.require([one.window for one in missing])
    done = len(wanted) - len(missing)
    pasts = ((n, windows.past_of(one.index, statistics)) for n, one in enumerate(missing))
    with closing(_blocks(narrator, missing, pasts, batch)) as blocks:
        for block in blocks:
            kept.add([replace(missing[t.number], text=t.text, model=t.model) for t in block])
            done += len(block)
            if progress is not None:
                progress(done, len(wanted))
    silent = sum(one.key not in kept.texts for one in missing)
    if silent:
        raise S2KDError(
            f"narrator {missing[0].narrator!r} gave no text for {silent} of {len(missing)} windows"
        )


def _blocks(
    narrator: Narrator, missing: list[Narrative], pasts: Iterator[tuple[int, Past]], batch: int
) -> Iterator[list[Told]]:
    """Narratives to be written together, of a narrator that streams or of one that does not."""
    if isinstance(narrator, Streaming):
        yield from _gathered(narrator.stream(pasts), batch)
        return
    while block := list(islice(pasts, batch)):
        said = narrator.narrate([past for _, past in block])
        if len(said) != len(block) or not all(isinstance(text, str) for text in said):
            raise S2KDError(
                f"narrator {missing[0].narrator!r} gave {len(said)} texts for {len(block)} windows;"
                " it must give one text a window"
            )
        yield [Told(number=n, text=text) for (n, _), text in zip(block, said, strict=True)]


def _gathered(stream: Iterator[Told], batch: int) -> Iterator[list[Told]]:
    """What comes one by one, together for `OFTEN` seconds; when the stream fails, the rest first.

    A window that was told before is not told again.
    """
    block: list[Told] = []
    told: set[int] = set()
    last = time.monotonic()
    with closing(stream):
        try:
            for one in stream:
                if one.number not in told:
                    told.add(one.number)
                    block.append(one)
                if len(block) >= batch or (block and time.monotonic() - last > OFTEN):
                    yield block
                    block, last = [], time.monotonic()
        except (Exception, KeyboardInterrupt):
            if block:
                yield block
            raise
    if block:
        yield block


class Given:
    """Hash of what a narrator is handed besides the frames, computed once for each setting."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = digest(asdict(statistics))
        self._known: dict[tuple, str] = {}

    def __call__(self, past: Past) -> str:
        """A short hash of grid, domain, statistics, season, part of the day and context."""
        setting = (id(past.grid), past.domain, past.season, past.part_of_day, past.context)
        if setting not in self._known:
            plain = [past.grid.to_dict(), self._statistics, *setting[1:]]
            self._known[setting] = digest(plain)
        return self._known[setting]
