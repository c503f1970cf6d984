"""Narratives made elsewhere, read from a file and matched to windows by content."""

from collections.abc import Sequence
from pathlib import Path

from s2kd.files import digest
from s2kd.narrators import narrators
from s2kd.narrators.store import read_narratives
from s2kd.types import Past, S2KDError


@narrators.register("recorded")
class Recorded:
    """The texts of a `narratives.jsonl`, one a window, found by `Past.digest`.

    Where the file holds several narrators or versions, `narrator` and `version` choose one.
    Narratives whose maker had read the future keep that mark.
    """

    def __init__(self, *, path: str | Path, narrator: str = "", version: str = "") -> None:
        self.path = Path(path)
        kept = [
            line
            for line in read_narratives(self.path)
            if narrator in ("", line.narrator) and version in ("", line.version)
        ]
        makers = sorted({(line.narrator, line.version) for line in kept})
        if len(makers) != 1:
            among = "; ".join(f"narrator={n!r} version={v!r}" for n, v in makers) or "none"
            raise S2KDError(
                f"{self.path}: recorded needs the narratives of exactly one narrator and version, "
                f"found {among}; choose with narrator= and version="
            )
        self._texts = {line.window: line.text for line in kept}
        self.reads_future = any(line.reads_future for line in kept)
        name, of = makers[0]
        self.version = f"recorded-1 {digest(sorted(self._texts.items()))} of {name} {of}"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """The text of each past; windows without one are an S2KDError that counts them."""
        digests = [past.digest for past in pasts]
        self.require(digests)
        return [self._texts[digest] for digest in digests]

    def require(self, windows: Sequence[str]) -> None:
        """Refuse a list of windows (by digest) of which some have no narrative."""
        missing = sum(window not in self._texts for window in windows)
        if missing:
            raise S2KDError(
                f"{self.path}: {missing} of {len(windows)} windows have no narrative here "
                f"(it holds {len(self._texts)}); narrate them with the same dataset, past and "
                "channels"
            )
