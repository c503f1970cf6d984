"""Narratives without a model: from a file, none at all, or those of another window."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Int

from s2kd.core.files import digest
from s2kd.core.types import Past, S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.store import FILE_NAME

KEYS = (["window"], ["split", "index"], ["time"])
"""The columns that identify a window; the first of these that a file has is used."""


@narrators.register("none")
class Silent(Narrator):
    """An empty text for every window: the teacher then reads only its null token."""

    reads_future = False

    def __init__(self) -> None:
        self.version = "none-1"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One empty text per past."""
        return [""] * len(pasts)


@narrators.register("shuffled")
class Shuffled(Narrator):
    """Every window reads the narrative of another: separates what text means from what it costs.

    Narratives are stored under the name and version of the narrator `of`, so that an expensive
    narrator is not run twice.
    """

    def __init__(self, *, of: str = "rules", params: dict | None = None, seed: int = 0) -> None:
        if of == "shuffled":
            raise S2KDError("shuffled: of='shuffled' would shuffle itself; name another narrator")
        self._source, self.source_name = narrators.build(of, **(params or {})), of
        self.reads_future = self.source.reads_future
        self.version = f"shuffled-1 seed={seed} of {of} {self.source.version}"
        self._seed = seed

    @property
    def source(self) -> Narrator:
        """The narrator `of`."""
        return self._source

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """The texts of `of`, not yet rearranged."""
        return self.source.narrate(pasts)

    def rearrange(self, narratives: list) -> list:
        """Narrative i replaced by another: the same seeded derangement for the same length."""
        return [narratives[number] for number in derangement(len(narratives), seed=self._seed)]


def derangement(count: int, *, seed: int) -> Int[np.ndarray, " count"]:
    """A random permutation without fixed points; a single element stays.

    Sattolo's algorithm (1986): uniform over the permutations that are one cycle.
    """
    order, rng = np.arange(count), np.random.default_rng(seed)
    for last in range(count - 1, 0, -1):
        swap = rng.integers(last)
        order[[last, swap]] = order[[swap, last]]
    return order


@narrators.register("recorded")
class Recorded(Narrator):
    """The texts of a JSON-lines, Parquet or CSV file, or of the store of a run's folder.

    The file has a column `text` and one of the `KEYS`: `window` (`Past.digest`), `split` and
    `index` (from 0), or `time` (of the first frame: a timestamp in UTC, or ISO 8601). `narrator`
    and `version` select one narrator where the columns of these names hold several. Of rows with
    the same key the last wins. A file without a column `reads_future` needs the setting.
    """

    def __init__(
        self,
        *,
        path: str | Path,
        narrator: str = "",
        version: str = "",
        reads_future: bool | None = None,
    ) -> None:
        self.path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        table = read_table(self.path)
        for column, value in (("narrator", narrator), ("version", version)):
            if value:
                table = table[table[column] == value]
        sources = sorted(set(zip(table["narrator"], table["version"], strict=True)))
        if len(sources) != 1:
            names = "; ".join(f"narrator={n!r} version={v!r}" for n, v in sources) or "none"
            raise S2KDError(
                f"{self.path}: recorded needs the narratives of exactly one narrator and version, "
                f"found {names}; choose with narrator= and version="
            )
        if "reads_future" not in table and reads_future is None:
            raise S2KDError(
                f"{self.path}: does not say whether its narratives were written with the future "
                "in sight; add a column reads_future, or set "
                "--set narrator.params.reads_future=false"
            )
        declared = "reads_future" in table and bool(table["reads_future"].any())
        self.reads_future = declared or bool(reads_future)
        self._columns = key_columns(table)
        self._by_key = dict(zip(keys_of(table, self._columns), table["text"], strict=True))
        self._by_digest = dict(self._by_key) if self._columns == ["window"] else {}
        content = sorted([str(key), text] for key, text in self._by_key.items())
        author = " ".join(filter(None, sources[0]))
        self.version = f"recorded-1 {digest(content)}" + (f" of {author}" if author else "")

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """The text of each past; S2KDError where some have none."""
        digests = [past.digest for past in pasts]
        self._require(sum(name not in self._by_digest for name in digests), len(digests))
        return [self._by_digest[name] for name in digests]

    def match(self, windows: WindowDataset, digests: Sequence[str], numbers: Sequence[int]) -> None:
        """Find the text of every window by the columns that the file has."""
        keys: list[Any] = list(digests)
        if self._columns == ["time"]:
            keys = [moment(windows.dataset.times[start]) for start in windows.starts[list(numbers)]]
            shared = [key for key, count in Counter(keys).items() if count > 1]
            if shared:
                raise S2KDError(
                    f"{self.path}: {len(shared)} start times belong to several windows of "
                    f"{windows.split} (the first: {shared[0]}); give split and index instead"
                )
        elif self._columns == ["split", "index"]:
            keys = [(windows.split, number) for number in numbers]
        self._require(sum(key not in self._by_key for key in keys), len(keys))
        self._by_digest |= {
            name: self._by_key[key] for name, key in zip(digests, keys, strict=True)
        }

    def _require(self, missing: int, total: int) -> None:
        if missing:
            raise S2KDError(
                f"{self.path}: {missing} of {total} windows have no narrative here (it holds "
                f"{len(self._by_key)}); narrate them with the same dataset, past and channels"
            )


def read_table(path: Path) -> Any:
    """The file as a pandas frame with columns `text`, `narrator`, `version` and a key."""
    import pandas as pd

    def jsonl(path: Path) -> pd.DataFrame:  # pd.read_json guesses types
        return pd.DataFrame(msgspec.json.Decoder().decode_lines(path.read_bytes()))

    strings = dict.fromkeys(("text", "window", "split", "time", "narrator", "version"), str)
    csv = partial(pd.read_csv, dtype=strings, keep_default_na=False)
    parquet = pd.read_parquet
    readers = {".jsonl": jsonl, ".csv": csv, ".parquet": parquet, ".pq": parquet}
    if path.suffix not in readers:
        raise S2KDError(f"{path}: narratives are read from {', '.join(readers)} files")
    try:
        table = readers[path.suffix](path)
    except FileNotFoundError:
        raise S2KDError(f"{path}: no such file") from None
    except ImportError:
        raise S2KDError(
            "Parquet needs the package pyarrow; install it: pip install 's2kd[parquet]'"
        ) from None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        reason = str(error).partition("\n")[0]
        raise S2KDError(f"{path}: not readable as {path.suffix[1:]} ({reason})") from None
    for column in ("text", *key_columns(table, path)):
        if table[column].isna().any():
            row = int(table[column].isna().to_numpy().argmax())
            raise S2KDError(f"{path}: column {column} has no value in row {row}")
    if not all(isinstance(text, str) for text in table["text"]):
        raise S2KDError(f"{path}: column text must hold strings")
    for column in ("narrator", "version"):
        table[column] = table[column].fillna("").astype(str) if column in table else ""
    return table


def key_columns(table: Any, path: Path = Path()) -> list[str]:
    """The columns that identify a window."""
    columns = next((names for names in KEYS if set(names) <= set(table.columns)), None)
    if columns is None or "text" not in table:
        raise S2KDError(
            f"{path}: needs a column text and one of window, split with index, or time; it has "
            f"{', '.join(map(str, table.columns)) or 'none'}"
        )
    return columns


def keys_of(table: Any, columns: list[str]) -> list[Any]:
    """The key of every row: a digest, a (split, number) pair, or a time as `moment` gives it."""
    values = [table[name].tolist() for name in columns]
    if columns == ["time"]:
        return [moment(time) for time in values[0]]
    return values[0] if len(columns) == 1 else list(zip(*values, strict=True))


def moment(time: Any) -> str:
    """A time of any calendar to the second, in UTC where it has a zone: `2001-01-31T06:00:00`."""
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, unit="s"))
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time.strip())
        except ValueError:  # a day that only another calendar has
            return time.strip().replace(" ", "T")[:19]
    if isinstance(time, datetime) and time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    return time.isoformat().partition(".")[0]
