"""Are narratives true? Every checkable claim against facts measured on the same window.

A claim is supported, contradicted, or unverifiable: hedged, or so near the border between two
classes that either may be said. A narrative's score is supported / (supported + contradicted).
What a score is worth shows beside `chance`, the score of the same words against other windows:
much of what is said holds of most windows. `skill` is (score - chance) / (1 - chance).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2kd.core.types import Past, Statistics
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import Claim, Reader
from s2kd.narration.evidence import Evidence, evidence
from s2kd.narration.judging import Verdict, judge

VERSION = "faithfulness-1"
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """One narrative's claims, counted; a sentence that claims nothing is one unverifiable."""

    supported: int = 0
    contradicted: int = 0
    unverifiable: int = 0
    wrong: tuple[str, ...] = ()
    """The clauses that were contradicted."""

    @property
    def score(self) -> float | None:
        """Supported over supported and contradicted; None where nothing could be checked."""
        return ratio(self.supported, self.contradicted)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The faithfulness of every window's narrative, in order, and what chance would give."""

    narratives: tuple[Faithfulness, ...]
    chance: float | None

    @property
    def row(self) -> dict[str, Any]:
        """Counts, shares of all claims, `score` of all that could be checked, `chance`, `skill`."""
        names = ("supported", "contradicted", "unverifiable")
        total = {name: sum(getattr(one, name) for one in self.narratives) for name in names}
        claims, score = sum(total.values()), ratio(total["supported"], total["contradicted"])
        known = score is not None and self.chance is not None and self.chance < 1
        return {
            "narratives": len(self.narratives),
            "claims": claims,
            **{name: count / claims if claims else None for name, count in total.items()},
            "score": score,
            "chance": self.chance,
            "skill": (score - self.chance) / (1 - self.chance) if known else None,
        }


def ratio(supported: int, contradicted: int) -> float | None:
    """Supported over both; None where there is neither."""
    checked = supported + contradicted
    return supported / checked if checked else None


def verdicts(text: str, past: Past) -> list[tuple[Claim, Verdict]]:
    """Every claim of one narrative and whether the window supports it, in order."""
    (of,) = evidence([past])
    reader = Reader(past.grid, past.domain)
    return [(claim, judge(claim, of)) for said in reader.claims(text) for claim in said]


def counted(sentences: Iterable[Sequence[Claim]], of: Evidence) -> Faithfulness:
    """The claims of a narrative, sentence by sentence, against one window's evidence."""
    supported = contradicted = unverifiable = 0
    wrong = []
    for claims in sentences:
        unverifiable += not claims
        for claim in claims:
            match judge(claim, of):
                case True:
                    supported += 1
                case False:
                    contradicted += 1
                    wrong.append(claim.quote)
                case None:
                    unverifiable += 1
    return Faithfulness(
        supported=supported,
        contradicted=contradicted,
        unverifiable=unverifiable,
        wrong=tuple(dict.fromkeys(wrong)),
    )


def verify(
    texts: Sequence[str],
    past_of: Callable[[int], Past],
    *,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Verified:
    """Check every narrative against its window, `past_of(number)`; all share one grid.

    Chance is measured in random groups of windows, each narrative against the next one's facts,
    so that neighbours in time are not taken for strangers.
    """
    if not texts:
        return Verified(narratives=(), chance=None)
    checked = [Faithfulness()] * len(texts)
    right = wrong = done = 0
    for numbers in _groups(len(texts), seed):
        pasts = [past_of(int(number)) for number in numbers]
        known, reader = evidence(pasts), Reader(pasts[0].grid, pasts[0].domain)
        for place, number in enumerate(numbers):
            claims = reader.claims(texts[number])
            checked[number] = counted(claims, known[place])
            if len(numbers) > 1:
                other = counted(claims, known[place - 1])
                right, wrong = right + other.supported, wrong + other.contradicted
        done += len(numbers)
        if progress is not None:
            progress(done, len(texts))
    return Verified(narratives=tuple(checked), chance=ratio(right, wrong))


def _groups(count: int, seed: int) -> list[np.ndarray]:
    """All numbers in random order, `BATCH` at a time, none alone where there are others."""
    order = np.random.default_rng(seed).permutation(count)
    return np.array_split(order, max(1, -(-count // BATCH)))


def verify_windows(
    windows: WindowDataset,
    texts: Sequence[str],
    statistics: Statistics,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> Verified:
    """`verify` for every window of a split."""
    return verify(texts, lambda number: windows.past_of(number, statistics), progress=progress)
