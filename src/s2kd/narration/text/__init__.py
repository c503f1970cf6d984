"""Text encoders: frozen networks that turn a narrative into token states.

Derive a class from `TextEncoder` and decorate it with `@encoders.register("name")`; its settings
are keyword-only.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from s2kd.core.tensors import Tokens
from s2kd.narration.registries import encoders as encoders


class TextEncoder(ABC):
    """Z_s of eq. 4: texts to one state per token. `width` is D_s; `version` names the weights."""

    width: int
    version: str

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Tokens:
        """The states of these texts; an empty text is all padding."""

    def source(self) -> str:
        """Identity of the weights beyond the settings (commit or content)."""
        return ""

    def lost(self, text: str) -> int:
        """The number of words of a text that do not fit."""
        return 0
