"""The words that a checkable claim in an English narrative is made of, found as typed marks.

A small grammar, not a parser: each entry is a pattern and what it stands for. Where two entries
begin at the same letter, the one that is listed first is meant.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Box = tuple[float, float, float, float]
"""A part of the domain: from and to of the rows, from and to of the columns, 0 (top, left) to 1."""
Value = Callable[[re.Match], Any]


@dataclass(frozen=True)
class Mark:
    """One find: what kind of word, what it stands for, and where it stands."""

    kind: str
    value: Any
    start: int
    end: int


THIRDS = ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0))
HALVES = {0: (0.0, 0.5), 1: (0.25, 0.75), 2: (0.5, 1.0)}
ALONG = {"north": 0, "upper": 0, "top": 0, "south": 2, "lower": 2, "bottom": 2}
ACROSS = {"west": 0, "left": 0, "east": 2, "right": 2}

_V = "north|south|upper|lower|top|bottom"
_H = "east|west|left|right"
_C = "cent(?:re|er|ral)|middle|mid"
_GAP = r"[-\s]*"
_OF = (
    r"(?!\s+of\s+(?:the\s+)?(?:period|sequence|window|time|activity|mass|frames|series)"
    r"|\s+(?:frame|of\s+(?!the\s+(?:domain|map|grid|frame|image|scene|region|area|city|picture"
    r"|field|panel|window|plane)|it\b)))"
)
PLACE = (
    rf"(?:(?:(?:{_C}){_GAP})?(?P<v>{_V})(?:ern)?(?:{_GAP}(?:(?P<h>{_H})(?:ern)?|(?P<m>{_C})))?"
    rf"|(?:(?P<m2>{_C}){_GAP})?(?P<h2>{_H})(?:ern)?|(?P<c>{_C}))"
    r"(?:[-\s](?:(?P<half>half|halves|quadrant)|part|side|edge|corner|third|region|area|sector"
    r"|portion|boundary|margin|section)s?)?"
)


def box_of(found: re.Match) -> Box:
    """The part of the domain that a place name stands for; one direction is a whole band."""
    named = found.groupdict()
    if named["c"]:
        return (*THIRDS[1], *THIRDS[1])
    row = ALONG[named["v"]] if named["v"] else None
    word = named["h"] or named["h2"]
    column = ACROSS[word] if word else None
    if named["m"]:
        column = 1
    if named["m2"]:
        row = 1
    size = HALVES if named["half"] else dict(enumerate(THIRDS))
    rows = (0.0, 1.0) if row is None else size[row]
    columns = (0.0, 1.0) if column is None else size[column]
    return (*rows, *columns)


def heading(found: re.Match, sign: int = 1) -> tuple[int, int]:
    """(east, south), each -1, 0 or 1, towards a place (or away from it)."""
    across, down = side_of(box_of(found))
    return sign * across, sign * down


def side_of(box: Box) -> tuple[int, int]:
    """(east, south), each -1, 0 or 1: on which side of the middle a part of the domain lies."""
    first, last, left, right = box
    across = (left + right > 1.01) - (left + right < 0.99)
    down = (first + last > 1.01) - (first + last < 0.99)
    return int(across), int(down)


def _ward(found: re.Match) -> tuple[int, int]:
    text = found.group()
    across = ("east" in text or "right" in text) - ("west" in text or "left" in text)
    down = ("south" in text or "down" in text) - ("north" in text or "up" in text)
    return int(across), int(down)


COUNT = r"very many|a few|no|few|some|several|many|numerous"
COUNTS = {"no": 0, "few": 1, "a few": 1, "some": 2, "several": 2, "many": 3, "numerous": 3}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
SMALLER = "colder|cooler|lower|quieter|weaker|drier|calmer|less"
LARGER = "warmer|hotter|higher|busier|stronger|wetter|more"
USUAL = r"(?:its |the )?(?:usual|normal|average|typical|climatology|the mean)"
COPULA = r"(?:is|are|was|were|be|remains?|stays?|looks?|appears?)"
STRONG = (
    "sharply|strongly|rapidly|markedly|significantly|substantially|considerably|steeply|greatly"
    "|quickly|sharp|strong|rapid|marked|significant|substantial|intense|pronounced"
)
SLIGHT = "slightly|a little|marginally|modestly|weakly|mildly|slight|modest|minor|weak|small|faint"
BRIGHT = (
    "warm|hot|high|bright|busy|dense|thick|strong|intense|elevated|active|warmer|hotter|higher"
    "|brighter|busier"
)
DIM = "cold|cool|low|dark|quiet|thin|reduced|colder|cooler|lower|darker|quieter"
STUFF = (
    r"air|values|temperatures?|areas?|regions?|zones?|patch(?:es)?|blobs?|spots?|cores?|centres?"
    r"|centers?|anomal(?:y|ies)|bands?|conditions|activity|traffic|heights?|pool"
)


def _level(found: re.Match) -> int:
    text = found.group()
    if "near" in text or "close to" in text:
        return 0
    sign = -1 if re.search(rf"\b(?:{SMALLER}|below)\b", text) else 1
    return sign * (2 if re.search("much|far|well", text) else 1)


def _state(found: re.Match) -> int:
    sign = {"low": -1, "quiet": -1, "calm": -1, "high": 1, "busy": 1}.get(found["s"], 0)
    return sign * (2 if found["very"] and "very" in found["very"] else 1)


def _wind(found: re.Match) -> tuple[str, int]:
    """The channel's kind, and the sign of what is named."""
    kind = "wind across" if found["n"] in ("west", "east") else "wind along"
    return kind, 1 if found["n"] in ("west", "south") else -1


def _always(value: Any) -> Value:
    return lambda found: value


# kind, pattern, what it stands for
EXCHANGES: tuple[tuple[str, str, Value], ...] = (
    (
        "gain",
        r"more (?:\w+ )?(?:arrive|come|enter)\w* than (?:leave|depart|exit)\w*"
        r"|(?:arrivals|inflows?) (?:exceeds?|outnumbers?) (?:departures|(?:the )?outflows?)",
        _always(None),
    ),
    (
        "loss",
        r"more (?:\w+ )?(?:leave|depart|exit)\w* than (?:arrive|come|enter)\w*"
        r"|(?:departures|outflows?) (?:exceeds?|outnumbers?) (?:arrivals|(?:the )?inflows?)",
        _always(None),
    ),
    ("balanced", r"(?:inflow and outflow )?balance everywhere", _always(None)),
)
"""Found before the subjects, whose names they hold."""
ENTRIES: tuple[tuple[str, str, Value], ...] = (
    (
        "hedge",
        r"will|would|may|might|could|can|should|expected|likely|if|probably|possibly|perhaps"
        r"|suggest\w*|potential\w*|forecast|presumably|due to|because|driven by|caused by"
        r"|watch|monitor",
        _always(None),
    ),
    ("phase", r"at first|initially|first|early|earlier|previously|before|then", _always(None)),
    (
        "lately",
        r"lately|recently|(?:towards?|near|at|by|in) the (?:very )?end|in the (?:last|latest"
        r"|final|most recent) (?:few )?frames?|of late",
        _always(None),
    ),
    ("steady", r"no part changed much|little changed everywhere", _always("everywhere")),
    ("still", r"no (?:\w+ )?(?:movement|motion|displacement|drift)", _always(None)),
    ("still", r"little (?:\w+ )?(?:movement|motion|displacement|drift)", _always(None)),
    (
        "still",
        r"(?:barely|hardly|scarcely) (?:moves?|moving|shifts?|drifts?)|stationary|stays? in place"
        r"|stays? put|(?:does|do|did) not move|motionless|anchored",
        _always(None),
    ),
    (
        "steady",
        r"(?:no|little|hardly any|barely any) (?:\w+ )?(?:change|trend)s?"
        r"|(?:barely|hardly|scarcely) changes?|(?:does|do|did) not change|unchanged|steady|stable"
        r"|constant|goes on|remains? the same",
        _always(None),
    ),
    (
        "level",
        rf"(?:(?:much|far|well) )?(?:(?:{SMALLER}|{LARGER}) than|above|below|near|close to)"
        rf" {USUAL}(?: level)?",
        _level,
    ),
    (
        "level",
        rf"{COPULA} (?P<very>very |quite |fairly |rather )?(?P<s>low|high|quiet|busy|calm|typical"
        r"|normal)(?! (?:in|at) )",
        _state,
    ),
    (
        "extremes",
        rf"(?P<n>{COUNT}) (?P<t>hot|cold|warm)(?= (?:and (?:{COUNT}) (?:hot|cold|warm) )?extremes)",
        lambda m: (4 if m["n"] == "very many" else COUNTS[m["n"]], m["t"] != "cold"),
    ),
    (
        "extremes",
        rf"(?P<n>{COUNT}) hot[- ]?spots",
        lambda m: (4 if m["n"] == "very many" else COUNTS[m["n"]], True),
    ),
    (
        "trend",
        r"(?:get|becom|turn|grow)(?:s|ing|ting|ning|es)? (?:warmer|hotter|busier|stronger"
        r"|brighter|thicker|denser|higher)",
        _always(1),
    ),
    (
        "trend",
        r"(?:get|becom|turn|grow)(?:s|ing|ting|ning|es)? (?:colder|cooler|quieter|weaker"
        r"|fainter|thinner|lower|dimmer)",
        _always(-1),
    ),
    (
        "trend",
        r"upward trend|upturn|builds? up|building up|build-up|picks? up|picking up"
        r"|goes up|going up",
        _always(1),
    ),
    ("trend", r"downward trend|downturn|goes down|going down|dies? down|dying down", _always(-1)),
    ("flat", r"gradients? (?:is|are) weak(?: everywhere)?|no (?:\w+ )?fronts?", _always(None)),
    ("zonal", r"(?:nearly |almost |largely |mostly )?zonal", _always(None)),
    (
        "waves",
        rf"(?P<n>{'|'.join(NUMBERS[1:])}|[1-9]) waves?",
        lambda m: int(m["n"]) if m["n"].isdigit() else NUMBERS.index(m["n"]),
    ),
    ("front", r"(?:(?P<t>cold|warm) )?front(?:al (?:zone|boundary))?", lambda m: m["t"]),
    ("crest", r"ridges?|warm tongues?|tongues? of warm air", _always(1)),
    ("crest", r"troughs?|cold tongues?|tongues? of cold air", _always(-1)),
    (
        "gust",
        r"(?P<how>strongest|weakest) (?P<n>west|east|south|north)erly",
        lambda m: (*_wind(m), m["how"] == "strongest"),
    ),
    ("wind", r"(?P<n>west|east|south|north)erly(?: on average)?", _wind),
    (
        "flows",
        r"(?:goes|blows|flows) (?:mostly |mainly )?(?:to the )?(?P<h>left|right)(?:wards?)?",
        lambda m: 1 if m["h"] == "right" else -1,
    ),
    (
        "jet",
        r"(?:fastest )?(?P<h>right|left)ward(?= (?:in|at) )",
        lambda m: 1 if m["h"] == "right" else -1,
    ),
    (
        "lean",
        r"(?:lean|tilt|bend|bent|slant|lying over)(?:s|ed|ing)? (?:slightly |strongly )?"
        r"(?:over )?(?:to(?:wards?)? )?(?:the )?(?P<h>left|right)(?:wards?)?",
        lambda m: 1 if m["h"] == "right" else -1,
    ),
    ("lean", r"upright|vertical(?! flow)", _always(0)),
    ("tall", r"half-high|full-height|tall|short", lambda m: m.group()),
    ("wide", r"very wide|medium-wide|wide|narrow", lambda m: m.group()),
    ("none", r"no plume", _always(None)),
    ("season", r"(?:it is|in|during) (?P<s>winter|spring|summer|autumn)", lambda m: m["s"]),
    (
        "hour",
        r"(?:it is|in the|as the|around|at|during the) (?P<s>night|morning|midday|evening)",
        lambda m: m["s"],
    ),
    (
        "local",
        rf"(?P<hi>{BRIGHT}) (?:{STUFF})",
        _always(1),
    ),
    ("local", rf"(?:{DIM}) (?:{STUFF})", _always(-1)),
    ("local", rf"{COPULA} (?:very )?(?:{BRIGHT})(?= (?:in|at) )", _always(1)),
    ("local", rf"{COPULA} (?:very )?(?:{DIM})(?= (?:in|at) )", _always(-1)),
    (
        "way",
        rf"from (?:the )?(?:{_V}|{_H})(?:ern)?(?:{_GAP}(?:{_H})(?:ern)?)? "
        rf"(?:to|towards?) (?:the )?{PLACE}",
        heading,
    ),
    ("way", r"(?P<a>up|down) and to the (?P<b>left|right)", _ward),
    (
        "way",
        r"(?:north|south)?-?(?:east|west|north|south|left|right|up|down)wards?(?:ly)?"
        r"(?! (?:flow|trend))",
        _ward,
    ),
    ("towards", rf"(?:to|towards?|into) (?:the )?{PLACE}{_OF}", lambda m: (heading(m), box_of(m))),
    ("way", rf"from (?:the )?{PLACE}{_OF}", lambda m: heading(m, -1)),
    (
        "move",
        r"mov(?:es?|ed|ing|ements?)|drift(?:s|ed|ing)?|propagat\w+|shift(?:s|ed|ing)?|travel\w*"
        r"|advanc\w+|migrat\w+|advect\w*|sweep\w*|swept|translat\w+|motion|tracks?|tracking|heads?"
        r"|heading|displac\w+|slid(?:es?|ing)",
        _always(None),
    ),
    ("change", r"changes?|changed|changing", _always(None)),
    (
        "trend",
        r"ris(?:es?|en|ing)|rose|increas\w+|grow(?:s|n|ing|th)?|grew|warms|warmed|warming"
        r"|heat(?:s|ed|ing)|intensif\w+|strengthen\w*|climb(?:s|ed|ing)?|brighten\w*|thicken\w*"
        r"|amplif\w+|gain(?:s|ed|ing)?|surg(?:es?|ed|ing)",
        _always(1),
    ),
    (
        "trend",
        r"fall(?:s|en|ing)?|fell|decreas\w+|declin\w+|cools|cooled|cooling|weaken\w*|drop(?:s|ped"
        r"|ping)?|fad(?:es?|ed|ing)|dim(?:s|med|ming)|shrinks?|shrank|shrinking|thin(?:s|ned|ning)"
        r"|diminish\w*|subsid\w+|decay\w*|ebb(?:s|ed|ing)?|lessen\w*|abat\w+",
        _always(-1),
    ),
    ("most", r"the most|most(?! (?:of|intense|active|likely))", _always(None)),
    (
        "extreme",
        r"maxim(?:um|a)|peaks?|highest|largest|hottest|warmest|strongest|brightest|busiest"
        r"|thickest|greatest|densest|most (?:intense|active)|hot[- ]?spots?|fastest",
        _always(1),
    ),
    (
        "extreme",
        r"minim(?:um|a)|lowest|smallest|coldest|coolest|weakest|faintest|quietest|darkest"
        r"|thinnest|least",
        _always(-1),
    ),
    ("degree", STRONG, _always("sharp")),
    ("degree", SLIGHT, _always("slight")),
    ("speed", "slowly|slow|gradually", _always("slowly")),
    ("speed", "steadily", _always("steadily")),
    ("speed", "fast|swiftly|swift", _always("fast")),
    ("not", r"not|no|without|never|neither|nor|hardly|barely|scarcely|\w+n't", _always(None)),
    (
        "away",
        rf"(?:{_V}|{_H})(?:ern)?(?:{_GAP}(?:{_H})(?:ern)?)? of\b(?! (?:the (?:domain|map|grid"
        r"|frame|image|scene|region|area|city|picture|field|panel|window|plane)|it)\b)",
        _always(None),
    ),
    ("place", PLACE + _OF, box_of),
    (
        "break",
        r"[,:()]|and|but|while|whereas|with|which|as|although|though",
        _always(None),
    ),
)


def marks(text: str, subjects: Sequence[tuple[str, Any]]) -> list[Mark]:
    """Every find in a lower-case text, in order; `subjects` are patterns for what is spoken of."""
    lexer, entries = _lexer(tuple(pattern for pattern, _ in subjects))
    found = []
    for match in lexer.finditer(text):
        kind, pattern, value = entries[int(match.lastgroup[1:])]
        if isinstance(value, int):
            found.append(Mark(kind, subjects[value][1], match.start(), match.end()))
        else:
            exact = pattern.match(text, match.start())
            found.append(Mark(kind, value(exact), match.start(), match.end()))
    return found


@lru_cache(maxsize=32)
def _lexer(
    subjects: tuple[str, ...],
) -> tuple[re.Pattern, list[tuple[str, re.Pattern, Value | int]]]:
    """One pattern of all, its groups numbered; and each entry by itself, for its own groups.

    A subject has its number in place of a function.
    """
    entries = [
        *((kind, pattern, value) for kind, pattern, value in EXCHANGES),
        *(("subject", pattern, number) for number, pattern in enumerate(subjects)),
        *ENTRIES,
    ]
    whole = "|".join(
        rf"(?P<g{number}>(?<!\w)(?:{_plain(pattern)})(?!\w))"
        for number, (_, pattern, _) in enumerate(entries)
    )
    single = [
        (kind, re.compile(rf"(?<!\w)(?:{pattern})(?!\w)"), value)
        for kind, pattern, value in entries
    ]
    return re.compile(whole), single


def _plain(pattern: str) -> str:
    """Without the names of its groups, which may be used once only."""
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)
