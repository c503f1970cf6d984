"""Narrators: what describes the past frames of a window in words.

Derive a class from `Narrator` and decorate it with `@narrators.register("name")`; its settings are
keyword-only. A narrator sees `Past` values, which hold no future, no date and no place.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2kd.core.types import Past
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import Claim
from s2kd.narration.registries import narrators as narrators

if TYPE_CHECKING:
    from s2kd.narration.sheet import Sheets


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The narrative of one window of a stream.

    `model` is the name that a server reports; `claims` is None where the text comes without any.
    """

    number: int
    text: str
    model: str = ""
    claims: tuple[Claim, ...] | None = None


class Narrator(ABC):
    """Pasts to narratives. All methods but `narrate` have a default that does nothing.

    Attributes:
        reads_future: whether the words may tell of more than the past frames.
        version: names everything but the frames that the text depends on (rules, prompt, model id
            and revision); it is stored with every narrative.
        sheets: draws the windows, for a narrator that reads sheets.
        varies: whether `retry` describes the same window in different words.
        source_name: the registered name of `source`, where that is another narrator.
    """

    reads_future: bool
    version: str
    sheets: "Sheets | None" = None
    varies: bool = False
    source_name: str = ""

    @abstractmethod
    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text per past, in order."""

    @property
    def source(self) -> "Narrator":
        """Under whose version narratives are stored: itself, or what a control redistributes."""
        return self

    def rearrange(self, narratives: list) -> list:
        """All narratives of a split as windows get them; a control hands them round."""
        return narratives

    def stream(self, pasts: Iterable[tuple[int, Past]]) -> Iterator[Answer] | None:
        """Answers in any order, with several requests in flight; None: `narrate` is called."""
        return None

    def match(self, windows: WindowDataset, digests: Sequence[str], numbers: Sequence[int]) -> None:
        """Find texts by split and number or by time, before any `narrate`.

        Raises S2KDError for windows without a text.
        """
        return

    def claims(self, pasts: Sequence[Past]) -> Sequence[tuple[Claim, ...] | None]:
        """The claims of its texts, from the windows, again and at any time."""
        return [None] * len(pasts)

    def retry(self, attempt: int) -> "Narrator":
        """The narrator with different words; `attempt` counts from 1."""
        return self
