"""Registries of narrators and text encoders, which check settings without PyTorch."""

from typing import TYPE_CHECKING

from s2kd.core.registry import Registry

if TYPE_CHECKING:
    from s2kd.narration.narrators import Narrator
    from s2kd.narration.text import TextEncoder

narrators: "Registry[Narrator]" = Registry(
    "narrator", "s2kd.narration.narrators", group="s2kd.narrators"
)
encoders: "Registry[TextEncoder]" = Registry(
    "text encoder", "s2kd.narration.text", group="s2kd.text"
)
