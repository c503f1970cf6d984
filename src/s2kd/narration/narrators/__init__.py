"""Narrators: what describes the past frames of a window in words.

Decorate the class with `@narrators.register("name")`; its settings are keyword-only. A narrator
sees `Past` values, which hold no future, no date and no place.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# of `typing`, Python 3.11 evaluates properties such as `version` in a check, and so loads models
from typing_extensions import Protocol, runtime_checkable

from s2kd.core.types import Past
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import Claim
from s2kd.narration.registries import narrators as narrators


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The narrative of one window of a stream.

    `model` is the name that a server reports; `claims` is None where the text comes without any.
    """

    number: int
    text: str
    model: str = ""
    claims: tuple[Claim, ...] | None = None


@runtime_checkable
class Narrator(Protocol):
    """Pasts to narratives, one text per window, in order.

    `version` names everything but the frames that the text depends on (rules, prompt, model id
    and revision); it is stored with every narrative.
    """

    reads_future: bool
    version: str

    def narrate(self, pasts: Sequence[Past]) -> list[str]: ...


@runtime_checkable
class Streaming(Protocol):
    """A narrator with several requests in flight: `stream` is called instead of `narrate`.

    It draws windows as it can take them and yields answers as they arrive, in any order.
    """

    def stream(self, pasts: Iterable[tuple[int, Past]]) -> Iterator[Answer]: ...


@runtime_checkable
class Matching(Protocol):
    """A narrator that looks its texts up, by split and number or by time.

    `match` is called before any `narrate`, with the digest and number of every window; it raises
    S2KDError for windows without a text.
    """

    def match(
        self, windows: WindowDataset, digests: Sequence[str], numbers: Sequence[int]
    ) -> None: ...


@runtime_checkable
class Rearranging(Protocol):
    """A control that redistributes the narratives of another narrator, `source`.

    Narratives are stored under `source_name` and the version of `source`; `rearrange` is applied
    to all narratives of a split.
    """

    source: Narrator
    source_name: str

    def rearrange(self, narratives: list) -> list: ...


@runtime_checkable
class Claiming(Protocol):
    """A narrator that gives the claims of its texts from the windows, again and at any time."""

    def claims(self, pasts: Sequence[Past]) -> list[tuple[Claim, ...]]: ...


@runtime_checkable
class Retrying(Protocol):
    """A narrator that can describe the same window in different words; `attempt` counts from 1."""

    def retry(self, attempt: int) -> Narrator: ...
