"""Text encoders: frozen networks that turn a narrative into token states.

Decorate the class with `@encoders.register("name")`; its settings are keyword-only.
"""

from collections.abc import Sequence

# of `typing`, Python 3.11 evaluates properties such as `version` in a check, and so loads models
from typing_extensions import Protocol, runtime_checkable

from s2kd.core.tensors import Tokens
from s2kd.narration.registries import encoders as encoders


@runtime_checkable
class TextEncoder(Protocol):
    """Z_s of eq. 4: texts to one state per token. `width` is D_s; `version` names the weights."""

    width: int
    version: str

    def encode(self, texts: Sequence[str]) -> Tokens: ...


@runtime_checkable
class Pretrained(Protocol):
    """A text encoder with weights of its own and a limited length.

    `source` identifies the weights beyond the settings (commit or content), empty where the
    settings say all; `lost` counts the words of a text that do not fit.
    """

    def source(self) -> str: ...

    def lost(self, text: str) -> int: ...
