"""The rules narrator: measured facts of the past in sentences of a limited vocabulary."""

from collections.abc import Iterator, Sequence
from itertools import islice

from s2kd.core.types import Past
from s2kd.narration.claims import Claim, claims_of
from s2kd.narration.facts import Facts, Scene, scenes
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.sentences import SENTENCES

MAX_WORDS = 120
MAX_CHANNELS = 3
BLOCK = 32
"""Windows measured at once: few enough to stay in the processor's cache."""


@narrators.register("rules")
class Rules(Narrator):
    """Deterministic narratives of at most `most_words` words, from measured facts alone.

    Of more than three channels, the text covers the three whose mean changed most (in training
    standard deviations), in the order of the grid.
    """

    reads_future = False

    def __init__(self, *, most_words: int = MAX_WORDS) -> None:
        self.most_words = most_words
        self.version = f"rules-1 most_words={most_words}"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text per past, in order."""
        return [
            shortened(SENTENCES[scene.domain](scene), self.most_words)
            for scene in covered_scenes(pasts)
        ]

    def claims(self, pasts: Sequence[Past]) -> list[tuple[Claim, ...]]:
        """The claims of each past: all that the facts of the same channels support."""
        return [claims_of(scene) for scene in covered_scenes(pasts)]


def covered_scenes(pasts: Sequence[Past]) -> list[Scene]:
    """The scene of every past, in order, with the channels that a text covers."""
    covered: dict[int, Scene] = {}
    for numbers in blocks(pasts):
        for number, scene in zip(numbers, scenes([pasts[n] for n in numbers]), strict=True):
            covered[number] = scene.select(most_changed(scene.facts))
    return [covered[number] for number in range(len(pasts))]


def blocks(pasts: Sequence[Past]) -> Iterator[list[int]]:
    """Numbers of pasts that share grid, length, domain and statistics, `BLOCK` at a time."""
    groups: dict[tuple, list[int]] = {}
    for number, past in enumerate(pasts):
        key = (id(past.grid), id(past.statistics), past.domain, past.frames.shape)
        groups.setdefault(key, []).append(number)
    for numbers in groups.values():
        remaining = iter(numbers)
        while block := list(islice(remaining, BLOCK)):
            yield block


def most_changed(facts: Sequence[Facts]) -> list[int]:
    """Numbers of the channels whose mean changed most, at most `MAX_CHANNELS`."""
    by_change = sorted(range(len(facts)), key=lambda i: -abs(facts[i].trend))
    return sorted(by_change[:MAX_CHANNELS])


def shortened(sentences: Sequence[str], most_words: int) -> str:
    """Whole sentences from the first on, as many as fit."""
    text, count = [], 0
    for sentence in sentences:
        count += len(sentence.split())
        if count > most_words:
            break
        text.append(sentence)
    return " ".join(text)
