"""The narrator that says nothing: the teacher then has only its null token to read."""

from collections.abc import Sequence

from s2kd.narrators import narrators
from s2kd.types import Past


@narrators.register("none")
class Silent:
    """An empty text for every window."""

    reads_future = False
    version = "none-1"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One empty text a past."""
        return [""] * len(pasts)
