"""Narratives of a run checked by their claims: scored, asked for again, or dropped."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from s2kd.core.errors import S2KDError
from s2kd.core.files import write_json, write_text
from s2kd.data.windows import WindowDataset
from s2kd.narration.claims import VERSION, Ask, Claim, Faithfulness, extract, verify
from s2kd.narration.prompts import shown_labels
from s2kd.narration.store import (
    FILE_NAME,
    Narrative,
    answers,
    blank_narratives,
    complete,
    open_store,
    read_latest,
)
from s2kd.pipeline.run import Run

THRESHOLD = 0.5
"""Default score below which a narrative is requested again."""
BLOCK = 64
"""Narratives requested again, checked and written together."""
REQUESTS = 16
"""Questions to a model in flight."""


def verify_run(
    run: Run, *, drop_below: float | None = None, ask_again: int = 0, ask: Ask | None = None
) -> list[dict[str, Any]]:
    """Complete the narratives and check the claims of each; one row per split.

    Every change is a new line in the store, which keeps the old ones. Narratives that score below
    `drop_below` are replaced by an empty text, after those below it (0.5 by default) were requested
    `ask_again` times; the best attempt is stored. The row's `score_before` is the score without
    these changes, since a score after the worst are gone says little. `ask` puts questions to a
    model, which fills in the claims of texts without claims.

    Raises S2KDError where a setting is out of range, or not one for this narrator.
    """
    if drop_below is not None and not 0 < drop_below <= 1:
        raise S2KDError(f"--drop-below {drop_below}: must be a score above 0, at most 1")
    if ask_again < 0:
        raise S2KDError(f"--ask-again {ask_again}: must not be negative")
    name = run.recipe.narrator.name
    if (drop_below is not None or ask_again) and run.narrator.source_name:
        raise S2KDError(
            f"narrator {name!r} hands round the narratives of {run.narrator.source_name!r}; drop "
            "or ask again with that one"
        )
    if ask_again and not run.narrator.varies:
        raise S2KDError(f"--ask-again: narrator {name!r} always gives the same text for a window")
    rows, lines = [], []
    for split in run.dataset.splits:
        row, scores = _verify_split(run, split, drop_below, ask_again, ask)
        rows.append(row)
        lines += scores
    write_text(run.out / "faithfulness.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    write_json(run.out / "faithfulness.json", {"version": VERSION, "splits": rows})
    return rows


def _verify_split(
    run: Run, split: str, drop_below: float | None, ask_again: int, ask: Ask | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    windows, name = run.windows(split), run.recipe.narrator.name
    progress, checks = run.progress(f"narrate {split}"), run.progress(f"verify {split}")
    blanks = blank_narratives(windows, run.narrator, run.train_stats, name=name)
    store = run.out / FILE_NAME

    def check() -> tuple[list[str], Any]:
        texts = complete(store, blanks, windows, run.narrator, run.train_stats, progress)
        if ask is not None:
            _fill_in(run, windows, blanks, texts, ask)
        claims = _claims(run, windows, blanks, texts)
        texts, claims = run.narrator.rearrange(texts), run.narrator.rearrange(claims)
        pasts = partial(windows.past_of, train_stats=run.train_stats)
        return texts, verify(claims, pasts, progress=checks)

    texts, result = check()
    score_before, requests, dropped = result.row["score"], 0, 0
    if drop_below is not None or ask_again:
        unique = {blank.key: number for number, blank in enumerate(blanks)}.values()
        best = {number: result.narratives[number] for number in unique}
        limit = THRESHOLD if drop_below is None else drop_below
        for attempt in range(1, ask_again + 1):
            requests += _ask_again(run, windows, blanks, best, limit, attempt)
        if drop_below is not None:
            dropped = _drop(store, blanks, best, drop_below)
        texts, result = check()
    row = {
        "split": split,
        "narrator": name,
        "version": run.narrator.version,
        "reads_future": run.narrator.reads_future,
        **result.row,
        "score_before": score_before,
        "asked_again": requests,
        "dropped": dropped,
        "empty": sum(not text.strip() for text in texts),
    }
    scores = [
        {"split": split, "index": number, "score": narrative.score, **asdict(narrative)}
        for number, narrative in enumerate(result.narratives)
    ]
    return row, scores


def _claims(
    run: Run, windows: WindowDataset, blanks: Sequence[Narrative], texts: Sequence[str]
) -> list[tuple[Claim, ...] | None]:
    """The claims of every narrative: from the store, else from the narrator, else None."""
    stored = read_latest(run.out / FILE_NAME) if blanks else {}
    claims = [stored[blank.key].claims for blank in blanks]
    missing = [i for i, text in enumerate(texts) if claims[i] is None and text.strip()]
    for first in range(0, len(missing), BLOCK):
        numbers = missing[first : first + BLOCK]
        pasts = [windows.past_of(blanks[i].index, run.train_stats) for i in numbers]
        for i, narrative_claims in zip(numbers, run.narrator.source.claims(pasts), strict=True):
            claims[i] = narrative_claims
    return claims


def _fill_in(
    run: Run,
    windows: WindowDataset,
    blanks: Sequence[Narrative],
    texts: Sequence[str],
    ask: Ask,
) -> None:
    """Store the claims of texts that have none, as a model puts them into the form."""
    stored = read_latest(run.out / FILE_NAME) if blanks else {}
    unchecked = {
        blank.key: number
        for number, blank in enumerate(blanks)
        if stored[blank.key].claims is None and texts[number].strip()
    }
    progress = run.progress(f"claims of {windows.split}")
    numbers = list(unchecked.values())

    def fill(number: int) -> Narrative:
        past = windows.past_of(blanks[number].index, run.train_stats)
        labels = shown_labels(past.grid, past.domain)
        claims = extract(texts[number], past, labels, ask)
        return replace(stored[blanks[number].key], claims=claims, note="claims filled in")

    with ThreadPoolExecutor(REQUESTS) as pool:
        for first in range(0, len(numbers), BLOCK):
            lines = pool.map(fill, numbers[first : first + BLOCK])
            _append(run.out / FILE_NAME, [line for line in lines if line.claims is not None])
            progress(min(first + BLOCK, len(numbers)), len(numbers))


def _lowest(best: dict[int, Faithfulness], limit: float) -> list[int]:
    """Windows whose narrative scores below the limit."""
    return sorted(n for n, each in best.items() if each.score is not None and each.score < limit)


def _ask_again(
    run: Run,
    windows: WindowDataset,
    blanks: Sequence[Narrative],
    best: dict[int, Faithfulness],
    limit: float,
    attempt: int,
) -> int:
    """Request the lowest again and store what scores higher; the number of requests."""
    lowest = _lowest(best, limit)
    if not lowest:
        return 0
    progress = run.progress(f"ask again {windows.split}, {attempt}")
    narrator = run.narrator.retry(attempt)
    for first in range(0, len(lowest), BLOCK):
        numbers = lowest[first : first + BLOCK]
        pasts = [windows.past_of(number, run.train_stats) for number in numbers]
        attempts = [a for block in answers(narrator, iter(enumerate(pasts)), BLOCK) for a in block]
        claims = narrator.claims(pasts)
        attempts = [
            a if a.claims is not None else replace(a, claims=claims[a.number]) for a in attempts
        ]
        ordered = [pasts[a.number] for a in attempts]
        scores = verify([a.claims for a in attempts], ordered.__getitem__).narratives
        lines = []
        for answer, result in zip(attempts, scores, strict=True):
            number = numbers[answer.number]
            before = best[number].score
            if result.score is not None and result.score > before:
                best[number] = result
                note = f"asked again: score {result.score:.2f}, was {before:.2f}"
                line = replace(blanks[number], text=answer.text, claims=answer.claims)
                lines.append(replace(line, model=answer.model, note=note))
        _append(run.out / FILE_NAME, lines)
        progress(first + len(numbers), len(lowest))
    return len(lowest)


def _drop(
    store: Path, blanks: Sequence[Narrative], best: dict[int, Faithfulness], limit: float
) -> int:
    """Store an empty text for windows whose narrative stays below the limit; their number."""
    notes = {n: f"dropped: score {best[n].score:.2f}" for n in _lowest(best, limit)}
    _append(store, [replace(blanks[n], text="", note=note) for n, note in notes.items()])
    return len(notes)


def _append(store: Path, lines: Sequence[Narrative]) -> None:
    """Add lines that replace those of the same keys."""
    if lines:
        with open_store(store) as opened:
            opened.add(lines)


COLUMNS = {
    "split": "split", "narratives": "texts", "unchecked": "unchecked", "claims": "claims",
    "supported": "right", "contradicted": "wrong", "unverifiable": "open",
    "score_before": "before", "score": "score", "chance": "chance", "skill": "skill",
    "dropped": "dropped",
}  # fmt: skip
"""Heads of the fields of a row."""


def table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the rows of `verify_run`; rare columns only where they are not empty."""
    unused = {name for name in ("unchecked", "dropped") if not any(row[name] for row in rows)}
    if not any(row["asked_again"] or row["dropped"] for row in rows):
        unused.add("score_before")
    names = [name for name in COLUMNS if name not in unused]
    return [COLUMNS[name] for name in names], [[_cell(row[name]) for name in names] for row in rows]


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def legend(rows: Sequence[dict[str, Any]]) -> str:
    """The narrator of a table, and what its columns are."""
    future = "yes" if rows[0]["reads_future"] else "no"
    return (
        f"narrator: {rows[0]['narrator']}; reads the future: {future}\n"
        "right, wrong, open: claims that the facts of the window support, contradict or leave "
        "open; unchecked: texts without claims; score: right / (right + wrong), before: without "
        "any asked again or dropped; chance: score of the same claims against other windows; "
        "skill: (score - chance) / (1 - chance)"
    )
