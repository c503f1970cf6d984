"""Narratives made elsewhere, read from a file and matched to windows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from s2kd.core.files import digest
from s2kd.core.types import Past, S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.narration.narrators import narrators
from s2kd.narration.narrators.exchange import Table, moment, read_parquet, store_of
from s2kd.narration.narrators.store import read_narratives


@narrators.register("recorded")
class Recorded:
    """The texts of a `narratives.jsonl` (or a run's folder), or of a Parquet file.

    In the first, a window is found by `Past.digest`; in the second by that, by its split and
    number, or by the time of its first frame (`exchange.read_parquet` has the
    columns). Where the file holds several narrators or versions, `narrator` and `version` choose
    one. Narratives whose maker had read the future keep that mark; a Parquet file without it
    needs `reads_future` said here.
    """

    def __init__(
        self,
        *,
        path: str | Path,
        narrator: str = "",
        version: str = "",
        reads_future: bool | None = None,
    ) -> None:
        self.path = store_of(Path(path))
        parquet = self.path.suffix in (".parquet", ".pq")
        table = _chosen(
            read_parquet(self.path) if parquet else _stored(self.path), narrator, version
        )
        makers = sorted(set(table.makers))
        if len(makers) != 1:
            among = "; ".join(f"narrator={n!r} version={v!r}" for n, v in makers) or "none"
            raise S2KDError(
                f"{self.path}: recorded needs the narratives of exactly one narrator and version, "
                f"found {among}; choose with narrator= and version="
            )
        if table.marks is None and reads_future is None:
            raise S2KDError(
                f"{self.path}: does not say whether its narratives were made with the future in "
                "sight; add a column reads_future, or say so with "
                "--set narrator.params.reads_future=false"
            )
        self.reads_future = any(table.marks or ()) or bool(reads_future)
        self._table = table
        self._texts = (
            dict(zip(table.keys, table.texts, strict=True)) if table.by == ("window",) else {}
        )
        name, of = makers[0]
        content = sorted(map(list, zip(map(str, table.keys), table.texts, strict=True)))
        made_by = f" of {name} {of}" if name or of else ""
        self.version = f"recorded-1 {digest(content)}{made_by}"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """The text of each past; windows without one are an S2KDError that counts them."""
        digests = [past.digest for past in pasts]
        self.require(digests)
        return [self._texts[digest] for digest in digests]

    def match(self, windows: WindowDataset, digests: Sequence[str], numbers: Sequence[int]) -> None:
        """Told whose digests these are, find their texts by split and number or by time."""
        if self._table.by == ("window",):
            return
        if self._table.by == ("time",):
            keys = [moment(windows.dataset.times[start]) for start in windows.starts[list(numbers)]]
            twice = [key for key, count in Counter(keys).items() if count > 1]
            if twice:
                raise S2KDError(
                    f"{self.path}: {len(twice)} start times are those of several windows of "
                    f"{windows.split} (the first: {twice[0]}); give split and index instead"
                )
        else:
            keys = [(windows.split, number) for number in numbers]
        said = dict(zip(self._table.keys, self._table.texts, strict=True))
        self._texts |= {
            one: said[key] for one, key in zip(digests, keys, strict=True) if key in said
        }

    def require(self, windows: Sequence[str]) -> None:
        """Refuse a list of windows (by digest) of which some have no narrative."""
        missing = sum(window not in self._texts for window in windows)
        if missing:
            raise S2KDError(
                f"{self.path}: {missing} of {len(windows)} windows have no narrative here "
                f"(it holds {len(self._table.keys)}); narrate them with the same dataset, past and "
                "channels"
            )


def _stored(path: Path) -> Table:
    """A `narratives.jsonl` as a table."""
    lines = read_narratives(path)
    return Table(
        by=("window",),
        keys=[line.window for line in lines],
        texts=[line.text for line in lines],
        makers=[(line.narrator, line.version) for line in lines],
        marks=[line.reads_future for line in lines],
    )


def _chosen(table: Table, narrator: str, version: str) -> Table:
    """The rows of one maker."""
    kept = [
        place
        for place, (name, of) in enumerate(table.makers)
        if narrator in ("", name) and version in ("", of)
    ]
    return Table(
        by=table.by,
        keys=[table.keys[place] for place in kept],
        texts=[table.texts[place] for place in kept],
        makers=[table.makers[place] for place in kept],
        marks=None if table.marks is None else [table.marks[place] for place in kept],
    )
