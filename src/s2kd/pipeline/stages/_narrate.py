"""Words for every window, and their token states."""

from collections.abc import Callable
from dataclasses import replace

from msgspec import to_builtins

from s2kd.core.files import digest
from s2kd.core.types import S2KDError
from s2kd.narration.store import FILE_NAME, narrate_windows
from s2kd.narration.text import encoders
from s2kd.narration.text.states import TextStates, encode_states
from s2kd.pipeline.stages._models import check_models
from s2kd.pipeline.stages._run import Run


def narrate(run: Run) -> None:
    """Words for every window, and their token states.

    First of all stages, so models that cannot be built are refused here, before the hours that a
    large narrator takes.
    """
    check_models(run)
    if "text" in run.kinds:
        run.first_only(lambda: _narrate(run))


def _narrate(run: Run) -> None:
    recipe = run.recipe
    encoder = encoders.build(recipe.text.name, **recipe.text.params)

    def source() -> str:
        return getattr(encoder, "source", "")

    for split in run.dataset.splits:
        windows, told = run.windows(split), run.report(f"narrate {split}")
        texts = narrate_windows(
            windows,
            run.narrator,
            run.known,
            run.out / FILE_NAME,
            name=recipe.narrator.name,
            progress=lambda done, total, told=told: told(done, total, ""),
        )
        path = run.out / "states" / f"{split}.safetensors"
        # named by the encoder's settings, so that an unchanged split need not load the encoder
        settings = digest([texts, to_builtins(recipe.text)])
        if path.exists() and _are_of(run, TextStates.load(path), settings, source):
            continue
        key = _states_key(settings, source())
        run.say(f"Reading {split} with the text encoder {recipe.text.name}")
        read = run.report(f"read {split}")
        states = encode_states(
            texts, encoder, progress=lambda done, total, read=read: read(done, total, "")
        )
        replace(states, key=key).save(path)
        run._states.pop(split, None)
        if states.cut.lost:
            run.say(f"{split}: {states.cut}")


def _states_key(settings: str, source: str) -> str:
    """What token states are of; a model that can change under its name is part of it."""
    return digest([settings, source]) if source else settings


def _are_of(run: Run, states: TextStates, settings: str, source: Callable[[], str]) -> bool:
    """Whether states are those of these narratives and of the model as it is now.

    States travel without the model: where it is not to be had, those of its name are taken.
    """
    if states.key != _states_key(settings, states.source):
        return False
    try:
        return states.source == source()
    except S2KDError as error:
        run.say(f"The token states are taken as they are, since their model is not here ({error})")
        return True


def narrative(run: Run, number: int) -> str:
    """The words of one test window, as the teacher read them."""
    if "text" not in run.kinds:
        return ""
    texts = narrate_windows(
        run.windows("test"),
        run.narrator,
        run.known,
        run.out / FILE_NAME,
        name=run.recipe.narrator.name,
    )
    return texts[number]
