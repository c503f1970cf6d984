"""Another window's words: the control that tells what text means from what text costs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from s2kd.core.types import Past, S2KDError
from s2kd.narration.narrators import narrators


@narrators.register("shuffled")
class Shuffled:
    """Narrates like the narrator `of`, then hands every window the words of another.

    Its own narratives are kept under the name and version of the narrator it shuffles
    (`kept_as`), so that an expensive narrator is not asked twice.
    """

    def __init__(self, *, of: str = "rules", params: dict | None = None, seed: int = 0) -> None:
        if of == "shuffled":
            raise S2KDError("shuffled: of='shuffled' would shuffle itself; name another narrator")
        self._of = self.asks = narrators.build(of, **(params or {}))
        for name in ("stream", "match", "require"):  # where `of` has them
            if hasattr(self._of, name):
                setattr(self, name, getattr(self._of, name))
        self._seed = seed
        self.reads_future = self._of.reads_future
        self.kept_as = (of, self._of.version)
        self.version = f"shuffled-1 seed={seed} of {of} {self._of.version}"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """The words of `of`, not yet rearranged."""
        return self._of.narrate(pasts)

    def rearrange(self, narratives: list[str]) -> list[str]:
        """Narrative i becomes another one's: the same seeded derangement for the same length."""
        order = derangement(len(narratives), seed=self._seed)
        return [narratives[number] for number in order]


def derangement(count: int, *, seed: int) -> Int[np.ndarray, " count"]:
    """A random permutation without fixed points (of one thing there is none: it stays).

    Sattolo's algorithm (1986) draws evenly from the permutations that are one single cycle.
    """
    order, rng = np.arange(count), np.random.default_rng(seed)
    for last in range(count - 1, 0, -1):
        other = rng.integers(last)
        order[[last, other]] = order[[other, last]]
    return order
