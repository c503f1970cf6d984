"""Stage `narrate`: a narrative per window, and their token states."""

from pathlib import Path

from msgspec import to_builtins

from s2kd.core.errors import S2KDError
from s2kd.core.files import digest
from s2kd.narration.narrators import narrators
from s2kd.narration.preview import write_preview
from s2kd.narration.store import (
    FILE_NAME,
    blank_narratives,
    complete,
    narrate_windows,
    shard_numbers,
)
from s2kd.narration.text import TextEncoder, encoders
from s2kd.narration.text.states import TextStates, encode_states
from s2kd.pipeline.checks import check_models
from s2kd.pipeline.run import Run


def narrate(run: Run) -> None:
    """A narrative for every window, and their token states.

    This is the first stage, so models that cannot be built are refused here, before a large
    narrator takes hours.
    """
    check_models(run)
    if "text" in run.teacher_kinds:
        run.first_only(lambda: _narrate(run))


def _narrate(run: Run) -> None:
    encoder = encoders.build(run.recipe.text.name, **run.recipe.text.params)
    for split in run.dataset.splits:
        _make_states(run, split, narratives(run, split), encoder)


def narratives(run: Run, split: str) -> list[str]:
    """The narrative of every window of a split, from the store where it holds them."""
    return narrate_windows(
        run.windows(split),
        run.narrator,
        run.train_stats,
        run.out / FILE_NAME,
        name=run.recipe.narrator.name,
        progress=run.progress(f"narrate {split}"),
    )


def _make_states(run: Run, split: str, texts: list[str], encoder: TextEncoder) -> None:
    """Token states of these texts, unless the file holds them already."""
    path = run.out / "states" / f"{split}.safetensors"
    stored = TextStates.load(path) if path.exists() else None
    # by the encoder's settings, so that an unchanged split need not load the encoder
    settings = digest([texts, to_builtins(run.recipe.text)])
    source = _source(run, encoder, stored)
    key = digest([settings, source]) if source else settings
    if stored is not None and (stored.key, stored.source) == (key, source):
        return
    run.say(f"Reading {split} with the text encoder {run.recipe.text.name}")
    states = encode_states(texts, encoder, key=key, progress=run.progress(f"read {split}"))
    states.save(path)
    run._states.pop(split, None)
    if states.cut.lost:
        run.say(f"{split}: {states.cut}")


def _source(run: Run, encoder: TextEncoder, stored: TextStates | None) -> str:
    """Which weights the encoder has; those of the stored states where there are none here.

    States travel without the model: a machine without it takes them as they are.
    """
    try:
        return encoder.source()
    except S2KDError as error:
        if stored is None:
            raise
        run.say(f"The token states are taken as they are, since their model is not here ({error})")
        return stored.source


# --- part of the work ----------------------------------------------------------------------------


def limit_requests(run: Run, *, max_requests: int = 0, concurrent: int = 0) -> None:
    """Limit the requests of a narrator that asks a server; not part of the recipe.

    Raises S2KDError where the narrator has no such setting.
    """
    limits = {"max_requests": max_requests, "concurrent": concurrent}
    limits = {name: value for name, value in limits.items() if value}
    narrators.check(run.narrator.source_name or run.recipe.narrator.name, limits)
    vars(run.narrator.source).update(limits)


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4); anything else is an S2KDError."""
    number, _, count = text.partition("/")
    if number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise S2KDError(f"--shard {text}: must be I/N with I from 1 to N, such as 2/4")


def narrate_shard(run: Run, part: tuple[int, int]) -> int:
    """Narrate one shard of every split, without token states; the number of its windows."""
    total = 0
    for split in run.dataset.splits:
        windows, progress = run.windows(split), run.progress(f"narrate {split}")
        blanks = blank_narratives(
            windows, run.narrator, run.train_stats, name=run.recipe.narrator.name
        )
        part_blanks = [blanks[number] for number in shard_numbers(blanks, part)]
        total += len(part_blanks)
        store = run.out / FILE_NAME
        complete(store, part_blanks, windows, run.narrator, run.train_stats, progress)
    return total


def preview_run(run: Run, count: int) -> Path:
    """Narrate `count` windows of the training split into preview.html."""
    progress = run.progress(f"narrate {count} windows")
    path = run.out / "preview.html"
    write_preview(
        path,
        run.windows("train"),
        run.narrator,
        run.train_stats,
        store=run.out / FILE_NAME,
        name=run.recipe.narrator.name,
        count=count,
        progress=progress,
    )
    return path
