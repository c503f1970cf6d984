"""Stage `narrate`: a narrative per window, and their token states."""

from dataclasses import replace
from typing import Any

from msgspec import to_builtins

from s2kd.core.errors import S2KDError
from s2kd.core.files import digest
from s2kd.narration.store import FILE_NAME, narrate_windows
from s2kd.narration.text import Pretrained, encoders
from s2kd.narration.text.states import TextStates, encode_states
from s2kd.pipeline.checks import check_models
from s2kd.pipeline.run import Run

Encoder = Any
"""A `TextEncoder`; a type check would read its properties, and so load the model."""


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


def _make_states(run: Run, split: str, texts: list[str], encoder: Encoder) -> None:
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
    states = encode_states(texts, encoder, progress=run.progress(f"read {split}"))
    replace(states, key=key).save(path)
    run._states.pop(split, None)
    if states.cut.lost:
        run.say(f"{split}: {states.cut}")


def _source(run: Run, encoder: Encoder, stored: TextStates | None) -> str:
    """Which weights the encoder has; those of the stored states where there are none here.

    States travel without the model: a machine without it takes them as they are.
    """
    try:
        return encoder.source() if isinstance(encoder, Pretrained) else ""
    except S2KDError as error:
        if stored is None:
            raise
        run.say(f"The token states are taken as they are, since their model is not here ({error})")
        return stored.source
