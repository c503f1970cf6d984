"""The checkable claims of a narrative in free English: what is said of what, and where.

A claim is found by a small grammar over the marks of `lexicon`: the verb or superlative,
the channel it speaks of (named, carried over from what was named before, or any), the place that
stands nearest in the same clause. What is hedged ("may", "likely", "because") claims nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from s2kd.core.types import Domain, GridSpec
from s2kd.narration.lexicon import Box, Mark, marks, side_of
from s2kd.narration.words import Kind, kinds_of, labels_of

SYNONYMS: dict[Kind, str] = {
    "temperature": r"(?:gas |air |surface )?temperatures?|thermal field",
    "height": r"(?:geopotential(?: heights?)?|heights?|pressures?)",
    "humidity": r"humidity|moisture",
    "wind across": r"west wind|zonal (?:wind|flow)|sideways flow|horizontal flow",
    "wind along": r"south wind|meridional (?:wind|flow)",
    "wind upward": r"upward flow|vertical flow|updrau?(?:ght|ft)s? speed",
    "arrivals": r"inflows?|arrivals?|drop-offs?",
    "departures": r"outflows?|departures?|pick-ups?",
    "smoke": r"smoke|soot",
    "heat": r"heat release(?: rate)?",
}
FIRE, PLUME, CENTRE, ALL = "fire", "plume", "centre", "all"
"""Subjects that are no channel: a fire's heat, its plume, the centre of activity, any channel."""
OTHERS: tuple[tuple[str, str], ...] = (
    (r"cent(?:re|er) of (?:activity|mass|demand)", CENTRE),
    (r"(?:the )?fire(?:'s heat)?|flames?|blaze", FIRE),
    (r"plume", PLUME),
    (r"traffic|activity|demand|flows|(?:the )?fields?|values|intensity|signal", ALL),
)
PREDICATES = frozenset(
    [
        "steady",
        "still",
        "level",
        "extremes",
        "trend",
        "gain",
        "loss",
        "balanced",
        "flat",
        "zonal",
        "waves",
        "front",
        "crest",
        "gust",
        "wind",
        "flows",
        "jet",
        "lean",
        "tall",
        "wide",
        "none",
        "season",
        "hour",
        "local",
        "move",
        "change",
        "extreme",
    ]
)
"""Kinds of mark that say something; between two of them lies a border that no place crosses."""
WARM = re.compile(r"warm|heat|hot|cool|cold")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement that measured facts can support or contradict.

    `about` holds the channels it may speak of (of several, any), or a subject that is none.
    `value` is what is said, its meaning given by `kind`; `denied` turns it round; a `guess` is
    hedged and claims nothing.
    """

    kind: str
    value: Any
    about: tuple[int, ...] | str
    quote: str
    where: Box | None = None
    denied: bool = False
    guess: bool = False


class Reader:
    """Finds the claims of narratives about one grid."""

    def __init__(self, grid: GridSpec, domain: Domain) -> None:
        self._kinds = kinds_of(grid, domain)
        self._every = tuple(range(len(grid.channels)))
        self._fire = domain == "fire"
        self._subjects = _subjects(grid, domain, self._kinds)

    def claims(self, text: str) -> list[list[Claim]]:
        """The claims of every sentence, in order; a sentence without any is an empty list."""
        carried: tuple[Any, ...] = ()
        found = []
        for sentence in sentences(text):
            seen = _without_fields(marks(sentence, self._subjects))
            found.append(list(_Sentence(self, sentence, seen, carried).claims()))
            named = [mark.value for mark in seen if mark.kind == "subject"]
            carried = _last_named(sentence, seen) if named else carried
        return found

    def of_kind(self, *kinds: str) -> tuple[int, ...]:
        """The channels of these kinds."""
        return tuple(i for i in self._every if self._kinds[i] in kinds)

    def channels(self, named: Any) -> tuple[int, ...] | str:
        """What a subject's name stands for."""
        return self._every if named == ALL else named

    def implied(self, said: str, about: tuple[int, ...] | str) -> tuple[int, ...] | str:
        """Warm and cold are said of temperatures, where there are any."""
        warm = self.of_kind("temperature")
        if isinstance(about, str) or not warm or not WARM.search(said):
            return about
        return tuple(i for i in about if i in warm) or warm


def sentences(text: str) -> list[str]:
    """Lower-case sentences and half-sentences, with plain hyphens and apostrophes."""
    plain = text.lower()
    for fancy, simple in (("‐", "-"), ("‑", "-"), ("–", "-"), ("’", "'"), ("*", " "), ("_", " ")):
        plain = plain.replace(fancy, simple)
    parts = re.split(r"[.!?](?=\s|$)|[;\n]", plain)
    return [part.strip() for part in parts if re.search(r"\w", part)]


def _subjects(
    grid: GridSpec, domain: Domain, kinds: tuple[Kind, ...]
) -> tuple[tuple[str, Any], ...]:
    """Patterns for what can be spoken of: labels and names first, the longest before others."""
    named: list[tuple[str, Any]] = []
    for number, (label, name) in enumerate(
        zip(labels_of(grid, domain), grid.channels, strict=True)
    ):
        for word in {label, name, re.sub(r"[_\s]+", " ", name)}:
            if len(word) > 1:
                named.append((re.escape(word.lower().replace("_", " ")), (number,)))
    named.sort(key=lambda pair: -len(pair[0]))
    for kind, pattern in SYNONYMS.items():
        alike = tuple(i for i in range(len(kinds)) if kinds[i] == kind)
        if alike:
            named.append((pattern, alike))
    return (*named, *OTHERS)


def _last_named(sentence: str, seen: list[Mark]) -> tuple[Any, ...]:
    """The subject named first in a sentence, with those that "and" joins to it."""
    named = [mark for mark in seen if mark.kind == "subject"]
    joined = [named[0]]
    for mark in named[1:]:
        if not _joined(sentence[joined[-1].end : mark.start]):
            break
        joined.append(mark)
    return tuple(mark.value for mark in joined)


def _joined(between: str) -> bool:
    """Whether nothing but "and" or a comma stands between two nouns."""
    return bool(re.fullmatch(r"\s*(?:,|and|,\s*and)\s*(?:the\s+)?", between))


def _without_fields(seen: list[Mark]) -> list[Mark]:
    """Marks less what only lengthens a noun: "field" in "the temperature field"."""
    kept: list[Mark] = []
    for mark in seen:
        beside = kept and kept[-1].kind == "subject" and mark.start - kept[-1].end <= 1
        if not (mark.kind == "subject" and mark.value == ALL and beside):
            kept.append(mark)
    return kept


class _Sentence:
    """One sentence's marks, and the claims that they make together."""

    def __init__(
        self, reader: Reader, text: str, seen: list[Mark], carried: tuple[Any, ...]
    ) -> None:
        self.reader, self.text, self.marks, self.carried = reader, text, seen, carried

    def claims(self) -> Iterator[Claim]:
        """Every predicate in its turn."""
        for number, mark in enumerate(self.marks):
            if mark.kind in PREDICATES:
                make = getattr(self, f"_{mark.kind}", None) or self._plain
                yield from make(number, mark)

    # what stands around a mark

    def near(self, number: int, kind: str, *, reach: int = 2) -> Mark | None:
        """A mark of this kind beside this one, with nothing but `reach` words between."""
        for step in (1, -1):
            other = self._at(number + step)
            if (
                other is not None
                and other.kind == kind
                and self.words_between(number, step) <= reach
            ):
                return other
        return None

    def _at(self, number: int) -> Mark | None:
        return self.marks[number] if 0 <= number < len(self.marks) else None

    def words_between(self, number: int, step: int) -> int:
        one, two = sorted((self.marks[number], self.marks[number + step]), key=lambda m: m.start)
        return len(self.text[one.end : two.start].split())

    def clause(self, number: int) -> tuple[int, int]:
        """From and to (excluded) of the marks between the breaks round this one."""
        first, last = number, number + 1
        while first > 0 and self.marks[first - 1].kind != "break":
            first -= 1
        while last < len(self.marks) and self.marks[last].kind != "break":
            last += 1
        return first, last

    def within(self, number: int, kind: str) -> Mark | None:
        """The first mark of this kind in the clause."""
        first, last = self.clause(number)
        return next((mark for mark in self.marks[first:last] if mark.kind == kind), None)

    def place(self, number: int) -> Box | None:
        """The place after this mark in its clause, else before it, else a clause of places only."""
        first, last = self.clause(number)
        for rest in (range(number + 1, last), range(number - 1, first - 1, -1)):
            for i in rest:
                if self.marks[i].kind in ("place", "towards"):
                    value = self.marks[i].value
                    return value if self.marks[i].kind == "place" else value[1]
                if self.marks[i].kind in PREDICATES | {"away"}:
                    break
        if first >= 2:
            start, stop = self.clause(first - 2)
            before = [mark.kind for mark in self.marks[start:stop] if mark.kind != "lately"]
            if before == ["place"] and self.marks[start].start < 12:
                return next(m.value for m in self.marks[start:stop] if m.kind == "place")
        return None

    def subject(self, number: int) -> list[Any]:
        """What this predicate is said of: the noun after it, else those before, else any."""
        mark, after = self.marks[number], self._at(number + 1)
        if after is not None and after.kind == "subject":
            between = self.text[mark.end : after.start].strip()
            if between in ("", "of", "in", "of the", "in the", "the"):
                return [after.value]
        before = [other for other in self.marks[:number] if other.kind == "subject"]
        named = before[-1:]
        for other in reversed(before[:-1]):
            if not _joined(self.text[other.end : named[-1].start]):
                break
            named.append(other)
        return [other.value for other in reversed(named)] or list(self.carried) or [ALL]

    def denied(self, number: int) -> bool:
        """Whether "not" stands before it in the clause, at most four words away."""
        first, _ = self.clause(number)
        for i in range(number - 1, first - 1, -1):
            if self.marks[i].kind == "not":
                return len(self.text[self.marks[i].end : self.marks[number].start].split()) <= 4
            if self.marks[i].kind in PREDICATES:
                break
        return False

    def guess(self, number: int) -> bool:
        """Whether a hedge stands before it in the sentence, or it is told of an earlier phase."""
        hedged = any(mark.kind == "hedge" for mark in self.marks[:number])
        return hedged or self.within(number, "phase") is not None

    def claim(self, kind: str, number: int, value: Any, about: Any, **more: Any) -> Claim:
        """A claim with what its surroundings say of it."""
        mark = self.marks[number]
        first, last = self.clause(number)
        quote = self.text[self.marks[first].start : self.marks[last - 1].end]
        # of any channel, "warm" or "cold" anywhere in the clause says of which
        said = quote if about == ALL else self.text[mark.start : mark.end]
        about = self.reader.implied(said, self.reader.channels(about))
        given = {"denied": self.denied(number), "guess": self.guess(number), **more}
        return Claim(kind=kind, value=value, about=about, quote=quote, **given)

    # one method a kind of mark that needs more than itself

    def _plain(self, number: int, mark: Mark) -> Iterator[Claim]:
        for about in self.subject(number):
            yield self.claim(mark.kind, number, mark.value, about)

    def _trend(self, number: int, mark: Mark) -> Iterator[Claim]:
        before, after = self._at(number - 1), self._at(number + 1)
        if before is not None and before.kind == "extreme" and self.words_between(number, -1) == 0:
            return  # "largest rise": told by the superlative
        follows = after is not None and after.kind == "subject"
        noun = self.text[: mark.start].rstrip().endswith((" the", "this", "that"))
        if noun and not follows:
            return  # "the warming": a name for what was said before
        degree, where = self.near(number, "degree"), self.place(number)
        if degree is None and after is not None and after.value == "fast":
            degree = Mark("degree", "sharp", after.start, after.end)
        for about in self.subject(number):
            if self.near(number, "most", reach=3) is not None and where is not None:
                yield self.claim("most", number, mark.value, about, where=where)
            elif self.within(number, "lately") is not None:
                yield self.claim("recent", number, mark.value, about)
            elif where is not None:
                yield self.claim("local trend", number, mark.value, about, where=where)
            else:
                yield self.claim("trend", number, mark.value, about)
                if degree is not None and not self.denied(number):
                    yield self.claim("degree", number, (mark.value, degree.value), about)

    def _steady(self, number: int, mark: Mark) -> Iterator[Claim]:
        where = self.place(number)
        for about in self.subject(number):
            if mark.value == "everywhere":
                yield self.claim("unchanged", number, None, about)
            elif where is not None:
                yield self.claim("local trend", number, 0, about, where=where)
            else:
                yield self.claim("trend", number, 0, about)

    def _change(self, number: int, mark: Mark) -> Iterator[Claim]:
        if self.near(number, "most", reach=1) is not None and self.place(number) is not None:
            for about in self.subject(number):
                yield self.claim("most", number, 0, about, where=self.place(number))

    def _extreme(self, number: int, mark: Mark) -> Iterator[Claim]:
        after = self._at(number + 1)
        close = after is not None and self.words_between(number, 1) == 0
        if close and after.kind in ("crest", "front"):
            return
        change = after if close and after.kind in ("trend", "change") else None
        where = self.place(number + 1 if change is not None else number)
        if where is None:
            return
        before = self._at(number - 1)
        if change is None and before is not None and before.kind in ("trend", "change"):
            between = self.text[before.end : self.marks[number].start].split()
            if between in (["is"], ["was"], ["are"], ["were"]):
                change = before
        for about in self.subject(number):
            if change is not None:
                value = change.value if change.kind == "trend" else 0
                yield self.claim("most", number, value, about, where=where)
            else:
                kind = "maximum" if mark.value > 0 else "minimum"
                yield self.claim(kind, number, mark.value, about, where=where)

    def _local(self, number: int, mark: Mark) -> Iterator[Claim]:
        where = self.place(number)
        if where is not None:
            for about in self.subject(number):
                yield self.claim("local", number, mark.value, about, where=where)

    def _move(self, number: int, mark: Mark) -> Iterator[Claim]:
        first, last = self.clause(number)
        way = self._way(number, last, first)
        if self.within(number, "still") is not None:
            return
        for about in self.subject(number):
            if way is not None:
                yield self.claim("motion", number, way, about)
            elif self.denied(number):
                yield self.claim("still", number, None, about, denied=False)
            speed = self.near(number, "speed")
            if speed is not None and not self.denied(number):
                yield self.claim("speed", number, speed.value, about)

    def _way(self, number: int, last: int, first: int) -> tuple[int, int] | None:
        """Where a movement goes: the heading after the verb, else before it, in its clause."""
        for i in (*range(number + 1, last), *range(number - 1, first - 1, -1)):
            mark = self.marks[i]
            if mark.kind == "way" and mark.value != (0, 0):
                return mark.value
            if mark.kind == "towards" and mark.value[0] != (0, 0):
                return mark.value[0]
            close = i == number + 1 and self.words_between(number, 1) == 0
            if mark.kind == "place" and close:
                side = side_of(mark.value)
                return side if side != (0, 0) else None
            if mark.kind == "move":
                return None
        return None

    def _front(self, number: int, mark: Mark) -> Iterator[Claim]:
        about = self.reader.of_kind("temperature") or ALL
        degree = self.near(number, "degree")
        yield self.claim("front", number, degree.value if degree else None, about)
        if mark.value is not None:
            yield self.claim("front kind", number, 1 if mark.value == "warm" else -1, about)
        if (where := self.place(number)) is not None:
            yield self.claim("front place", number, None, about, where=where)

    def _crest(self, number: int, mark: Mark) -> Iterator[Claim]:
        where, said = self.place(number), self.text[mark.start : mark.end]
        tongue = "tongue" in said
        about = self.reader.of_kind("temperature" if tongue else "height")
        named = self._named_in_clause(number)
        about = named or about or ALL
        degree = self.near(number, "degree")
        if degree is not None and degree.value == "sharp":
            yield self.claim("crest strength", number, mark.value, about)
        if where is not None:
            yield self.claim("crest", number, mark.value, about, where=where)

    def _named_in_clause(self, number: int) -> Any:
        mark = self.within(number, "subject")
        return None if mark is None or isinstance(mark.value, str) else mark.value

    def _flat(self, number: int, mark: Mark) -> Iterator[Claim]:
        yield self.claim("flat", number, None, self.reader.of_kind("temperature") or ALL)

    def _waves(self, number: int, mark: Mark) -> Iterator[Claim]:
        about = self.reader.of_kind("temperature", "height") or ALL
        yield self.claim("waves", number, mark.value, about)

    def _gust(self, number: int, mark: Mark) -> Iterator[Claim]:
        kind, sign, strongest = mark.value
        about, where = self.reader.of_kind(kind), self.place(number)
        if about and where is not None:
            high = (sign > 0) == strongest
            yield self.claim("maximum" if high else "minimum", number, sign, about, where=where)

    def _wind(self, number: int, mark: Mark) -> Iterator[Claim]:
        kind, sign = mark.value
        if about := self.reader.of_kind(kind):
            yield self.claim("sign", number, sign, about)

    def _flows(self, number: int, mark: Mark) -> Iterator[Claim]:
        if about := self.reader.of_kind("wind across"):
            yield self.claim("sign", number, mark.value, about)

    def _jet(self, number: int, mark: Mark) -> Iterator[Claim]:
        about, where = self.reader.of_kind("wind across"), self.place(number)
        if about and where is not None:
            kind = "maximum" if mark.value > 0 else "minimum"
            yield self.claim(kind, number, mark.value, about, where=where)

    def _of_plume(self, number: int, mark: Mark) -> Iterator[Claim]:
        if self.reader._fire and PLUME in self.subject(number):
            yield self.claim(mark.kind, number, mark.value, PLUME)

    _lean = _tall = _wide = _of_plume

    def _none(self, number: int, mark: Mark) -> Iterator[Claim]:
        if self.reader._fire:
            yield self.claim("none", number, None, PLUME)

    def _gain(self, number: int, mark: Mark) -> Iterator[Claim]:
        if (where := self.place(number)) is not None:
            yield self.claim(mark.kind, number, None, ALL, where=where)

    _loss = _gain

    def _season(self, number: int, mark: Mark) -> Iterator[Claim]:
        yield self.claim(mark.kind, number, mark.value, ALL)

    _hour = _balanced = _season
