"""Text encoders: a narrative becomes token states. Frozen, one file each.

Decorate the class with `@encoders.register("name")`; its settings are keyword-only.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from s2kd.core.registry import Registry
from s2kd.core.types import Tokens


@runtime_checkable
class TextEncoder(Protocol):
    """Z_s of eq. 4: texts to one state a token. `width` is D_s; `version` names the weights.

    An encoder may also have `source`, what its settings alone do not say of its weights (the
    commit or the content of a model); and `lost(text) -> int`, how many words do not fit.
    """

    width: int
    version: str

    def encode(self, texts: Sequence[str]) -> Tokens: ...


encoders: Registry[TextEncoder] = Registry("text encoder", "s2kd.narration.text", group="s2kd.text")
