"""Narrators: what puts a window's past into words. One file each.

Decorate the class with `@narrators.register("name")`; its settings are keyword-only. A narrator
is handed `Past` values, which hold no future, no date and no place.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from s2kd.core.registry import Registry
from s2kd.core.types import Past


@dataclass(frozen=True, kw_only=True)
class Told:
    """One narrative as it comes: of which window, and the model that its maker says wrote it."""

    number: int
    text: str
    model: str = ""


@runtime_checkable
class Narrator(Protocol):
    """Pasts to narratives, one text a window, in order.

    `version` names all that the words depend on besides the frames (rules, prompt, model id and
    revision); it is stored with every narrative. A narrator may also have
    `rearrange(narratives: list[str]) -> list[str]`, applied to all narratives of one split once
    they are complete (`shuffled` does); `kept_as`, the (name, version) that its words are stored
    under; `require(digests: Sequence[str])`, which refuses windows that it cannot narrate;
    `match(windows: WindowDataset, digests, numbers)`, which is told of
    which windows of the split they are;
    `again(attempt: int) -> Narrator`, which gives other words for the same windows; and
    `stream(pasts: Iterable[tuple[int, Past]]) -> Iterator[Told]`, used in place of `narrate`,
    which takes windows as it can and gives narratives as they are ready, in any order.
    """

    reads_future: bool
    version: str

    def narrate(self, pasts: Sequence[Past]) -> list[str]: ...


@runtime_checkable
class Streaming(Protocol):
    """A narrator that has several windows under way at once."""

    def stream(self, pasts: Iterable[tuple[int, Past]]) -> Iterator[Told]: ...


narrators: Registry[Narrator] = Registry(
    "narrator", "s2kd.narration.narrators", group="s2kd.narrators"
)
