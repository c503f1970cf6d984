"""Claims of a narrative as data, checked against the facts of its window.

A claim is a quantity, a channel and a value from a fixed list ("trend", "t850", "rising").
Narrators give claims beside the text, or a model puts free text into this form (`extract`);
nothing here parses English. A claim is supported, contradicted or unverifiable (see
`quantities`). A narrative without claims is unchecked, not wrong.

The score of a narrative is supported / (supported + contradicted). `chance` is the score of the
same claims against other windows, since many claims hold for most windows, and `skill` is
(score - chance) / (1 - chance).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2kd.core.types import Domain, GridSpec, Past, S2KDError
from s2kd.narration.facts import Scene, scenes
from s2kd.narration.quantities import Verdict, quantities_of, subjects

VERSION = "claims-1"
BATCH = 64
Ask = Callable[[str, dict[str, Any]], str]
"""Sends a prompt and the JSON schema of the answer to a model; returns the answer."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One checkable statement about a window; `channel` is empty for a plume or balance."""

    quantity: str
    value: str
    channel: str = ""


def claims_of(scene: Scene) -> tuple[Claim, ...]:
    """Every claim that the facts of a scene support."""
    return tuple(
        Claim(
            quantity=name,
            value=value,
            channel=facts.channel if quantity.subject == "channel" else "",
        )
        for name, quantity in quantities_of(scene.domain).items()
        for facts in subjects(quantity, scene)
        for value, verdict in quantity.verdicts(scene, facts).items()
        if verdict
    )


def check(claim: Claim, scene: Scene) -> Verdict:
    """The verdict of a window's facts on one claim; None where they lack its subject."""
    quantity = quantities_of(scene.domain).get(claim.quantity)
    if quantity is None:
        return None
    for facts in subjects(quantity, scene):
        if quantity.subject != "channel" or facts.channel == claim.channel:
            return quantity.verdicts(scene, facts).get(claim.value)
    return None


def schema(domain: Domain, labels: Sequence[str]) -> dict[str, Any]:
    """JSON schema of a list of claims about channels with these labels, for structured output."""
    groups: dict[tuple[tuple[str, ...], bool], list[str]] = defaultdict(list)
    for name, quantity in quantities_of(domain).items():
        groups[tuple(quantity.values(domain)), quantity.subject == "channel"].append(name)
    forms = []
    for (values, per_channel), names in groups.items():
        fields = {"quantity": names, "channel": labels if per_channel else [""], "value": values}
        enums = {
            name: {"type": "string", "enum": list(dict.fromkeys(choices))}
            for name, choices in fields.items()
        }
        forms.append(object_schema(enums))
    return {"type": "array", "items": {"anyOf": forms}}


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def parse(items: Any, domain: Domain, grid: GridSpec, labels: Sequence[str]) -> tuple[Claim, ...]:
    """Claims of a list as `schema` describes it, with channel names of the grid for labels.

    Raises:
        S2KDError: an item is no claim of the form.
    """
    channels = dict(zip(labels, grid.channels, strict=True)) | {"": ""}
    quantities, claims = quantities_of(domain), []
    for item in items if isinstance(items, list) else [items]:
        try:
            claim = Claim(
                quantity=item["quantity"], value=item["value"], channel=channels[item["channel"]]
            )
            quantity = quantities[claim.quantity]
            fits = claim.value in quantity.values(domain)
            fits &= (quantity.subject == "channel") == bool(claim.channel)
        except (KeyError, TypeError):
            fits = False
        if not fits:
            raise S2KDError(f"claims: {json.dumps(item)[:200]} is no claim of the form")
        claims.append(claim)
    return tuple(claims)


def form_prompt(text: str, domain: Domain, labels: Sequence[str]) -> str:
    """The question that puts a narrative into the form."""
    lines = [f"- {name}: {each.meaning}" for name, each in quantities_of(domain).items()]
    return (
        "List every claim that the following description makes, and no other. What it calls "
        "likely, possible or a cause is no claim. Quantities:\n"
        + "\n".join(lines)
        + f"\nChannels: {', '.join(labels)}.\nDescription: {text}"
    )


def extract(text: str, past: Past, labels: Sequence[str], ask: Ask) -> tuple[Claim, ...] | None:
    """The claims of a free text, put into the form by a model; None where it does not keep to it.

    `labels` are the names of the channels in the text.
    """
    form = object_schema({"claims": schema(past.domain, labels)})
    answer = ask(form_prompt(text, past.domain, labels), form)
    try:
        return parse(json.loads(answer)["claims"], past.domain, past.grid, labels)
    except (ValueError, KeyError, TypeError, S2KDError):
        return None


# --- scores --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Counts of one narrative's claims; `checked` is False where it came without claims."""

    checked: bool = True
    supported: int = 0
    contradicted: int = 0
    unverifiable: int = 0
    wrong: tuple[Claim, ...] = ()
    """The claims that were contradicted."""

    @property
    def score(self) -> float | None:
        """Supported over supported and contradicted; None where nothing could be checked."""
        return score(self.supported, self.contradicted)


def score(supported: int, contradicted: int) -> float | None:
    """The supported share of what could be checked; None where nothing could."""
    total = supported + contradicted
    return supported / total if total else None


def count(claims: Iterable[Claim] | None, scene: Scene) -> Faithfulness:
    """The claims of one narrative against the facts of one window."""
    if claims is None:
        return Faithfulness(checked=False)
    verdicts = [(claim, check(claim, scene)) for claim in claims]
    total = Counter(verdict for _, verdict in verdicts)
    return Faithfulness(
        supported=total[True],
        contradicted=total[False],
        unverifiable=total[None],
        wrong=tuple(claim for claim, verdict in verdicts if verdict is False),
    )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The faithfulness of every window's narrative, in order, and the score by chance."""

    narratives: tuple[Faithfulness, ...]
    chance: float | None

    @property
    def row(self) -> dict[str, Any]:
        """Counts, shares of all claims, `score` of what could be checked, `chance`, `skill`."""
        names = ("supported", "contradicted", "unverifiable")
        total = {name: sum(getattr(each, name) for each in self.narratives) for name in names}
        claims, overall = sum(total.values()), score(total["supported"], total["contradicted"])
        skill = None
        if overall is not None and self.chance is not None and self.chance < 1:
            skill = (overall - self.chance) / (1 - self.chance)
        return {
            "narratives": len(self.narratives),
            "unchecked": sum(not each.checked for each in self.narratives),
            "claims": claims,
            **{name: number / claims if claims else None for name, number in total.items()},
            "score": overall,
            "chance": self.chance,
            "skill": skill,
        }


def verify(
    claims: Sequence[Sequence[Claim] | None],
    past_of: Callable[[int], Past],
    *,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Verification:
    """Check the claims of every narrative (None: it has none) against its window.

    Chance is measured in random groups of windows, each narrative against the next window of its
    group, so that neighbours in time are not compared. `past_of` gives the past of a window by its
    number; all share one grid.
    """
    results, chance = [Faithfulness()] * len(claims), Counter()
    order = np.random.default_rng(seed).permutation(len(claims))
    done = 0
    for numbers in np.array_split(order, max(1, -(-len(claims) // BATCH))) if len(order) else ():
        group = scenes([past_of(int(number)) for number in numbers])
        for position, number in enumerate(numbers):
            results[number] = count(claims[number], group[position])
            if len(numbers) > 1:
                against_next = count(claims[number], group[position - 1])
                chance["supported"] += against_next.supported
                chance["contradicted"] += against_next.contradicted
        done += len(numbers)
        if progress is not None:
            progress(done, len(claims))
    by_chance = score(chance["supported"], chance["contradicted"])
    return Verification(narratives=tuple(results), chance=by_chance)
