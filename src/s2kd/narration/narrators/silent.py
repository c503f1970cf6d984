"""The narrator that says nothing: the teacher then has only its null token to read."""

from collections.abc import Sequence

from s2kd.core.types import Past
from s2kd.narration.narrators import narrators


@narrators.register("none")
class Silent:
    """An empty text for every window."""

    reads_future = False
    version = "none-1"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One empty text a past."""
        return [""] * len(pasts)
