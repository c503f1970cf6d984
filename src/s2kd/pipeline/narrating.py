"""A run's narratives at scale: in shards, within a budget, and only those that hold.

```
DIR/faithfulness.json     what share of the claims of each split's narratives is so
DIR/faithfulness.jsonl    one line a narrative: its score and the clauses that were contradicted
```
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2kd.core.files import write_json, write_text
from s2kd.core.types import S2KDError
from s2kd.narration.faithfulness import VERSION, Faithfulness, Verified, verify, verify_windows
from s2kd.narration.narrators import Rearranging, Retrying
from s2kd.narration.store import (
    FILE_NAME,
    Narrative,
    blank_narratives,
    complete,
    narrate_windows,
    open_store,
    shard_numbers,
)

if TYPE_CHECKING:
    from s2kd.data.windows import WindowDataset
    from s2kd.pipeline import Run

THRESHOLD = 0.5
"""Below it a narrative is asked for again where nothing else is said."""
AT_ONCE = 64
"""Narratives asked for again, checked and written together."""


def limit(run: "Run", *, max_requests: int = 0, concurrent: int = 0) -> None:
    """How much a narrator may ask of a server; no part of the recipe, and free to change.

    A narrator that asks no server is an S2KDError.
    """
    narrator = run.narrator.source if isinstance(run.narrator, Rearranging) else run.narrator
    for name, value in (("max_requests", max_requests), ("concurrent", concurrent)):
        if not value:
            continue
        option = f"--{name.replace('_', '-')}"
        if value < 1:
            raise S2KDError(f"{option} {value}: must be at least 1")
        if not hasattr(narrator, name):
            raise S2KDError(
                f"{option}: the narrator {run.recipe.narrator.name!r} asks no server; "
                "this is for narrator.name=openai"
            )
        setattr(narrator, name, value)


def shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4); anything else is an S2KDError."""
    number, _, count = text.partition("/")
    if number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise S2KDError(f"--shard {text}: must be I/N with I from 1 to N, such as 2/4")


def narrate_shard(run: "Run", part: tuple[int, int]) -> int:
    """The words of one shard of every split's windows, and no token states; how many windows."""
    total = 0
    for split in run.dataset.splits:
        windows, told = run.windows(split), run.progress(f"narrate {split}")
        wanted = blank_narratives(
            windows, run.narrator, run.train_stats, name=run.recipe.narrator.name
        )
        mine = [wanted[place] for place in shard_numbers(wanted, part)]
        total += len(mine)
        complete(
            run.out / FILE_NAME,
            mine,
            windows,
            run.narrator,
            run.train_stats,
            progress=lambda done, count, told=told: told(done, count, ""),
        )
    return total


def verify_run(
    run: "Run", *, drop_below: float | None = None, ask_again: int = 0
) -> list[dict[str, Any]]:
    """Narrate what is missing, check every claim of every narrative, one row a split.

    Narratives that score below `drop_below` (0.5 if left out) are asked for again up to
    `ask_again` times, and the best is kept; those that stay below `drop_below` are dropped: their
    window then has no words. Both are new lines in the store, which keeps the old ones. A row's
    `score_before` is the score before that: what is left when the worst are gone says little.
    """
    if drop_below is not None and not 0 < drop_below <= 1:
        raise S2KDError(f"--drop-below {drop_below}: must be a score above 0, at most 1")
    if ask_again < 0:
        raise S2KDError(f"--ask-again {ask_again}: must not be negative")
    changing = drop_below is not None or ask_again > 0
    if changing and isinstance(run.narrator, Rearranging):
        raise S2KDError(
            f"narrator {run.recipe.narrator.name!r} hands round the words of another one; "
            "drop or ask again with that one"
        )
    if ask_again and not isinstance(run.narrator, Retrying):
        raise S2KDError(
            f"--ask-again: narrator {run.recipe.narrator.name!r} always says the same of a window"
        )
    rows, lines = [], []
    for split in run.dataset.splits:
        row, told = _verify_split(run, split, drop_below, ask_again)
        rows.append(row)
        lines += told
    write_text(run.out / "faithfulness.jsonl", "".join(f"{json.dumps(one)}\n" for one in lines))
    write_json(run.out / "faithfulness.json", {"version": VERSION, "splits": rows})
    return rows


def _verify_split(
    run: "Run", split: str, drop_below: float | None, ask_again: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    windows, name = run.windows(split), run.recipe.narrator.name
    told = run.progress(f"narrate {split}")
    store = run.out / FILE_NAME
    texts = narrate_windows(
        windows,
        run.narrator,
        run.train_stats,
        store,
        name=name,
        progress=lambda done, total: told(done, total, ""),
    )
    checked = _checked(run, windows, texts)
    before, again, dropped = checked.row, 0, 0
    if drop_below is not None or ask_again:
        wanted = blank_narratives(windows, run.narrator, run.train_stats, name=name)
        different = {one.key: number for number, one in enumerate(wanted)}.values()
        best = {number: checked.narratives[number] for number in different}
        bar = THRESHOLD if drop_below is None else drop_below
        for attempt in range(1, ask_again + 1):
            again += _ask_again(run, windows, wanted, best, bar, attempt)
        if drop_below is not None:
            dropped = _drop(store, wanted, best, drop_below)
        # who rearranges is refused before this, so what is kept is what is told
        texts = complete(store, wanted, windows, run.narrator, run.train_stats)
        checked = _checked(run, windows, texts)
    empty = sum(not text.strip() for text in texts)
    row = {
        "split": split,
        "narrator": name,
        "version": run.narrator.version,
        "reads_future": run.narrator.reads_future,
        **checked.row,
        "score_before": before["score"],
        "asked_again": again,
        "dropped": dropped,
        "empty": empty,
    }
    scores = [
        {"split": split, "index": number, "score": one.score, **asdict(one)}
        for number, one in enumerate(checked.narratives)
    ]
    return row, scores


def _checked(run: "Run", windows: "WindowDataset", texts: list[str]) -> Verified:
    told = run.progress(f"verify {windows.split}")
    return verify_windows(
        windows, texts, run.train_stats, progress=lambda done, total: told(done, total, "")
    )


def _worst(best: dict[int, Faithfulness], bar: float) -> list[int]:
    """Windows whose narrative scores below the bar."""
    return sorted(n for n, one in best.items() if one.score is not None and one.score < bar)


def _ask_again(
    run: "Run",
    windows: "WindowDataset",
    wanted: list[Narrative],
    best: dict[int, Faithfulness],
    bar: float,
    attempt: int,
) -> int:
    """New words for the worst; those that score higher are kept. How many were asked for."""
    worst, other = _worst(best, bar), None
    told = run.progress(f"ask again {windows.split}, {attempt}")
    for first in range(0, len(worst), AT_ONCE):
        other = other or run.narrator.retry(attempt)
        block = worst[first : first + AT_ONCE]
        pasts = [windows.past_of(number, run.train_stats) for number in block]
        texts, lines = other.narrate(pasts), []
        found = verify(texts, pasts.__getitem__).narratives
        for number, text, one in zip(block, texts, found, strict=True):
            before = best[number].score
            if one.score is not None and one.score > before:
                best[number] = one
                note = f"asked again: score {one.score:.2f}, was {before:.2f}"
                lines.append(replace(wanted[number], text=text, note=note))
        _restate(run.out / FILE_NAME, lines)
        told(first + len(block), len(worst), "")
    return len(worst)


def _drop(store: Path, wanted: list[Narrative], best: dict[int, Faithfulness], bar: float) -> int:
    """No words for windows whose narrative stays below the bar; how many."""
    worst = _worst(best, bar)
    notes = {number: f"dropped: score {best[number].score:.2f}" for number in worst}
    _restate(store, [replace(wanted[n], text="", note=note) for n, note in notes.items()])
    return len(worst)


def _restate(store: Path, lines: list[Narrative]) -> None:
    """Add lines that stand in for those of the same keys."""
    if lines:
        with open_store(store) as kept:
            kept.add(lines)


def table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of what `verify_run` found, narrow enough for a terminal."""
    head = ["split", "texts", "claims", "right %", "wrong %", "open %", "score", "chance"]
    shares = ("supported", "contradicted", "unverifiable")
    return [*head, "skill", "dropped"], [
        [
            row["split"],
            str(row["narratives"]),
            str(row["claims"]),
            *("–" if row[name] is None else f"{100 * row[name]:.1f}" for name in shares),
            *("–" if row[n] is None else f"{row[n]:.2f}" for n in ("score", "chance", "skill")),
            str(row["dropped"]),
        ]
        for row in rows
    ]


def legend(rows: Sequence[dict[str, Any]]) -> str:
    """Whose claims the table counts, and what its columns are."""
    (row, *_) = rows
    future = "reads the future" if row["reads_future"] else "does not read the future"
    changed = any(one["asked_again"] or one["dropped"] for one in rows)
    before = ", ".join(
        f"{one['split']} {one['score_before']:.2f}"
        for one in rows
        if one["score_before"] is not None
    )
    told = f" Scores before any was asked for again or dropped: {before}." if changed else ""
    return (
        f"Narrator {row['narrator']}, which {future}. Claims that the window's own facts support "
        "(right), contradict (wrong) or leave open; score is right / (right + wrong), chance the "
        "score of the same words against other windows, skill (score - chance) / (1 - chance)."
        f"{told}"
    )
