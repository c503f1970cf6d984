"""The rules narrator: facts measured on the past, put into words of a limited vocabulary."""

from collections.abc import Iterator, Sequence
from itertools import islice

from s2kd.core.types import Past
from s2kd.narration.narrators import narrators
from s2kd.narration.narrators.facts import Facts, facts
from s2kd.narration.narrators.kinds import Kind, kinds_of, labels_of
from s2kd.narration.narrators.sentences import TELL, Scene
from s2kd.narration.narrators.structures import Balance, Plume, balances, plumes

MOST_WORDS = 120
MOST_CHANNELS = 3
BLOCK = 32
"""Windows measured at once: few enough to stay in the processor's cache."""


@narrators.register("rules")
class Rules:
    """Deterministic narratives of at most `most_words` words, from measured facts alone.

    Of more than three channels, the three whose mean changed most (in training standard
    deviations) are told, in the order of the grid.
    """

    reads_future = False

    def __init__(self, *, most_words: int = MOST_WORDS) -> None:
        self.most_words = most_words
        self.version = f"rules-1 most_words={most_words}"

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text a past, in order."""
        texts = [""] * len(pasts)
        for numbers in blocks(pasts):
            told = self._tell([pasts[number] for number in numbers])
            for number, text in zip(numbers, told, strict=True):
                texts[number] = text
        return texts

    def _tell(self, pasts: list[Past]) -> Iterator[str]:
        """The texts of pasts that are alike in all but their frames and setting."""
        grid, domain = pasts[0].grid, pasts[0].domain
        kinds, labels = kinds_of(grid, domain), labels_of(grid, domain)
        plume: Sequence[Plume | None] = [None] * len(pasts)
        balance: Sequence[Balance | None] = [None] * len(pasts)
        hot = hot_channel(kinds)
        if domain == "fire" and hot is not None:
            plume = plumes(pasts, hot)
        if {"arrivals", "departures"} <= set(kinds):
            balance = balances(pasts, kinds.index("arrivals"), kinds.index("departures"))
        for past, measured, p, b in zip(pasts, facts(pasts), plume, balance, strict=True):
            told = most_changed(measured)
            scene = Scene(
                facts=tuple(measured[i] for i in told),
                kinds=tuple(kinds[i] for i in told),
                labels=tuple(labels[i] for i in told),
                grid=grid,
                domain=domain,
                season=past.season,
                part_of_day=past.part_of_day,
                context=past.context,
                plume=p,
                balance=b,
            )
            yield shortened(TELL[domain](scene), self.most_words)


def blocks(pasts: Sequence[Past]) -> Iterator[list[int]]:
    """Numbers of pasts that share grid, length, domain and statistics, `BLOCK` at a time."""
    alike: dict[tuple, list[int]] = {}
    for number, past in enumerate(pasts):
        key = (id(past.grid), id(past.statistics), past.domain, past.frames.shape)
        alike.setdefault(key, []).append(number)
    for numbers in alike.values():
        rest = iter(numbers)
        while block := list(islice(rest, BLOCK)):
            yield block


def hot_channel(kinds: tuple[Kind, ...]) -> int | None:
    """The channel that shows a fire's plume: temperature, else heat release, else smoke."""
    return next((kinds.index(k) for k in ("temperature", "heat", "smoke") if k in kinds), None)


def most_changed(facts: tuple[Facts, ...]) -> list[int]:
    """The channels to tell, at most `MOST_CHANNELS`."""
    by_change = sorted(range(len(facts)), key=lambda i: -abs(facts[i].trend))
    return sorted(by_change[:MOST_CHANNELS])


def shortened(said: list[str], most_words: int) -> str:
    """Whole sentences from the first on, as many as fit."""
    kept, count = [], 0
    for sentence in said:
        count += len(sentence.split())
        if count > most_words:
            break
        kept.append(sentence)
    return " ".join(kept)
