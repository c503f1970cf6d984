"""Narratives from one place to another: stores of several machines into one, Parquet out and in."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from s2kd.core.files import write_whole
from s2kd.core.types import S2KDError
from s2kd.narration.narrators.store import Narrative, opened, read_narratives

NAME = "narratives.jsonl"
AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge did: narratives in all, new ones among them, keys that had two texts."""

    narratives: int
    added: int
    conflicts: int


def store_of(path: Path) -> Path:
    """A store, named itself or by the folder of its run."""
    return path / NAME if path.is_dir() else path


def latest(lines: Sequence[Narrative]) -> dict[tuple[str, str, str, str], Narrative]:
    """One narrative a key: a later line stands in for an earlier one."""
    return {line.key: line for line in lines}


def merge(paths: Sequence[Path], out: Path, *, keep: str = "") -> Merged:
    """Add to the store `out` what it lacks of the stores `paths`, whole or not at all.

    Two texts under one key are a conflict: an S2KDError that counts them, unless `keep` says
    which stays, of the first or of the last store that has one (`out` itself comes first).
    """
    if keep not in ("", "first", "last"):
        raise S2KDError(f"merge: keep={keep!r} must be first or last")
    sources = [store_of(path) for path in paths]
    for source in sources:
        if source.resolve() == out.resolve():
            raise S2KDError(f"{source}: is the store that is merged into; leave it out")
    read = [latest(read_narratives(source)) for source in sources]
    here = latest(read_narratives(out)) if out.exists() else {}
    chosen, came_from, conflicts = dict(here), dict.fromkeys(here, out), []
    for source, lines in zip(sources, read, strict=True):
        for key, line in lines.items():
            if key in chosen and chosen[key].text != line.text:
                conflicts.append((key, came_from[key], source))
            if key not in chosen or keep == "last":
                chosen[key], came_from[key] = line, source
    if conflicts and not keep:
        key, one, two = conflicts[0]
        raise S2KDError(
            f"merge: {len(conflicts)} windows have two texts by the same narrator (the first: "
            f"window {key[0]} in {one} and in {two}); say which stays with --keep first or "
            "--keep last"
        )
    new = [line for key, line in chosen.items() if here.get(key) != line]
    with opened(out) as store:
        for first in range(0, len(new), AT_ONCE):
            store.add(new[first : first + AT_ONCE])
    added = sum(key not in here for key in chosen)
    return Merged(narratives=len(chosen), added=added, conflicts=len(conflicts))


def export(path: Path, out: Path) -> int:
    """Write a store's narratives, one a key, to a Parquet file; how many there are.

    Raises S2KDError where `out` does not end in .parquet: by that it is known when it is read.
    """
    if out.suffix != ".parquet":
        raise S2KDError(f"{out}: narratives are written as Parquet; give a name with .parquet")
    arrow, parquet = _pyarrow()
    lines = list(latest(read_narratives(store_of(path))).values())
    columns = {
        field.name: arrow.array(
            [getattr(line, field.name) for line in lines],
            type={str: arrow.string(), int: arrow.int64(), bool: arrow.bool_()}[field.type],
        )
        for field in fields(Narrative)
    }
    table = arrow.table(columns)
    write_whole(out, lambda beside: parquet.write_table(table, beside))
    return len(lines)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise S2KDError(
            "Parquet needs the package pyarrow; install it: pip install 's2kd[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet


# --- narratives made elsewhere -------------------------------------------------------------------

WAYS = (("window",), ("split", "index"), ("time",))
"""The columns that say which window a text is of; the first of these that a file has is used."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts with what each belongs to: a window's digest, its split and number, or its start.

    `times` are ISO 8601 to the second, as `moment` gives them.
    """

    by: tuple[str, ...]
    keys: list[Any]
    texts: list[str]
    makers: list[tuple[str, str]]
    marks: list[bool] | None
    """Whether each was made with the future in sight; None where the file does not say."""


def read_parquet(path: Path) -> Table:
    """A Parquet file of narratives.

    Column `text`, and one of: `window` (`Past.digest`, as an export has it); `split` and `index`
    (the window's number in it, from 0); `time` (of the first frame of the window: a timestamp in
    UTC or an ISO 8601 string). `reads_future` (bool), `narrator` and `version` may be there.
    """
    _, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise S2KDError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise S2KDError(f"{path}: not readable as Parquet ({reason})") from None
    names = table.column_names
    by = next((way for way in WAYS if set(way) <= set(names)), None)
    if "text" not in names or by is None:
        raise S2KDError(
            f"{path}: needs a column text and one of window, split with index, or time; "
            f"it has {', '.join(names) or 'none'}"
        )
    columns = {name: table.column(name).to_pylist() for name in names}
    for name in (*by, "text"):
        if None in columns[name]:
            raise S2KDError(
                f"{path}: column {name} has no value in row {columns[name].index(None)}"
            )
    keys = [moment(t) for t in columns["time"]] if by == ("time",) else columns[by[0]]
    if len(by) == 2:
        keys = list(zip(*(columns[name] for name in by), strict=True))
    if not all(isinstance(text, str) for text in columns["text"]):
        raise S2KDError(f"{path}: column text must hold strings")
    marks = columns.get("reads_future")
    makers = zip(
        *(columns.get(name) or [""] * len(keys) for name in ("narrator", "version")), strict=True
    )
    return Table(
        by=by,
        keys=keys,
        texts=columns["text"],
        marks=None if marks is None else list(map(bool, marks)),
        makers=[(str(narrator or ""), str(version or "")) for narrator, version in makers],
    )


def moment(time: Any) -> str:
    """A time of any calendar to the second, in UTC where it has a zone: `2001-01-31T06:00:00`."""
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, unit="s"))
    if isinstance(time, str):
        text = time.strip().replace(" ", "T")
        try:
            time = datetime.fromisoformat(text)
        except ValueError:  # a day that only another calendar has
            return text[:19]
    if getattr(time, "tzinfo", None) is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    return time.isoformat().partition(".")[0]
