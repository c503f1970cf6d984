"""The registry of backbones, which lists them and checks their settings without PyTorch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from s2kd.core.registry import Registry, nearest
from s2kd.core.types import GridSpec, S2KDError

if TYPE_CHECKING:
    from s2kd.models.backbones import Backbone

Cut = Literal["pre", "mid", "post"]
"""Where a teacher reads: before the core, in its middle or after it."""
PRESETS = ("paper", "small", "tiny")
"""`paper`: the published size; `small`: trains on two cores; `tiny`: to try in a moment."""


class Backbones(Registry["Backbone"]):
    """Backbones by name; `preset` is a setting that all of them have.

    A backbone offers presets by a method `preset(name, grid)` on its class, which gives settings
    (they may depend on the grid's size); settings named beside a preset win over it.
    """

    def __init__(self) -> None:
        super().__init__("backbone", "s2kd.models.backbones", group="s2kd.backbones")

    def check(self, name: str, given: Mapping[str, object]) -> None:
        """Refuse a setting that the backbone does not have, or that is no number."""
        super().check(name, {key: value for key, value in given.items() if key != "preset"})

    def presets(self, name: str) -> tuple[str, ...]:
        """The presets that a backbone offers."""
        return PRESETS if hasattr(self.get(name), "preset") else ()

    def settings(self, name: str, preset: str, grid: GridSpec) -> dict[str, Any]:
        """What a preset stands for on this grid."""
        if preset not in self.presets(name):
            raise S2KDError(
                f"backbone {name!r} has no preset {preset!r}{nearest(preset, PRESETS)}"
                f" (it has {', '.join(self.presets(name)) or 'none'})"
            )
        return dict(self.get(name).preset(preset, grid))

    def resolved(  # type: ignore[override]
        self, name: str, params: Mapping[str, Any], *, grid: GridSpec
    ) -> dict[str, Any]:
        """`params` with the preset and every default written out for this grid."""
        explicit = {key: value for key, value in params.items() if key != "preset"}
        preset = params.get("preset", "")
        values = self.settings(name, preset, grid) if preset else {}
        return super().resolved(name, {**values, **explicit})

    def build(
        self, name: str, /, grid: GridSpec, *, preset: str = "", **params: object
    ) -> "Backbone":  # type: ignore[override]
        """Make a backbone; a setting it does not know, or that is missing, is an error."""
        preset_values = self.settings(name, preset, grid) if preset else {}
        return super().build(name, grid, **{**preset_values, **params})


backbones = Backbones()
