"""Narrators: what puts a window's past into words. One file each.

Decorate the class with `@narrators.register("name")`; its settings are keyword-only. A narrator
is handed `Past` values, which hold no future, no date and no place.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from s2kd.registry import Registry
from s2kd.types import Past


@runtime_checkable
class Narrator(Protocol):
    """Pasts to narratives, one text a window, in order.

    `version` names all that the words depend on besides the frames (rules, prompt, model id and
    revision); it is stored with every narrative. A narrator may also have
    `rearrange(narratives: list[str]) -> list[str]`, applied to all narratives of one split once
    they are complete (`shuffled` does); `kept_as`, the (name, version) that its words are stored
    under; and `require(digests: Sequence[str])`, which refuses windows that it cannot narrate.
    """

    reads_future: bool
    version: str

    def narrate(self, pasts: Sequence[Past]) -> list[str]: ...


narrators: Registry[Narrator] = Registry("narrator", "s2kd.narrators")
