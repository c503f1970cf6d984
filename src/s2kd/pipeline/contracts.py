"""Contracts: checks that any part must pass. Ours run in the tests, yours with `s2kd check`.

A check takes a part that was built and raises AssertionError with a sentence where it fails.
"""

from collections.abc import Callable

import numpy as np
import torch

from s2kd.core.recipe import Part
from s2kd.core.tensors import Tokens
from s2kd.core.types import GridSpec, Past
from s2kd.data import load
from s2kd.data.dataset import SPLITS, Dataset
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.backbones import Backbone
from s2kd.models.checkpoint import Setting, build_student
from s2kd.models.forecasters import FramesOnly, Student, Teacher
from s2kd.models.normaliser import Normaliser
from s2kd.narration.narrators import Narrator
from s2kd.narration.text import TextEncoder
from s2kd.training.extra import ExtraWindows, Material
from s2kd.training.losses import LossFn

Check = Callable[..., None]
PAST, LEAD, TEXT_WIDTH = 3, 2, 5


def small_grid(
    height: int = 16, width: int = 24, *, wraps: bool = False, channels: int = 2
) -> GridSpec:
    """A grid to try parts on."""
    names, units = tuple(f"field{i}" for i in range(channels)), ("1",) * channels
    size = {"height": height, "width": width, "step_seconds": 3600.0}
    return GridSpec(channels=names, units=units, wraps=wraps, **size)


def identity(channels: int) -> Normaliser:
    """Fields that are of order one already."""
    return Normaliser(torch.zeros(channels), torch.ones(channels))


def frames(grid: GridSpec, count: int, *, batch: int = 3) -> torch.Tensor:
    """Seeded noise of the right shape."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, count, len(grid.channels), grid.height, grid.width)
    return torch.randn(shape, generator=generator)


def narrative_tokens(batch: int = 3, *, width: int = TEXT_WIDTH) -> Tokens:
    """Token states of texts of unequal length, the first one empty."""
    generator = torch.Generator().manual_seed(1)
    padding = torch.arange(4)[None] >= torch.arange(batch)[:, None]
    return Tokens(values=torch.randn(batch, 4, width, generator=generator), padding=padding)


def student_of(backbone: Backbone, grid: GridSpec) -> Student:
    """The backbone as a student."""
    return Student(backbone, identity(len(grid.channels)))


def teacher_of(backbone: Backbone, grid: GridSpec) -> Teacher:
    """The backbone as a teacher that reads."""
    sizes = {"text_width": TEXT_WIDTH, "width": 16, "heads": 4, "depth": 2}
    return Teacher(backbone, identity(len(grid.channels)), wraps=grid.wraps, **sizes)


# --- backbones -----------------------------------------------------------------------------------


def forecasts_every_channel_at_every_lead(backbone: Backbone, grid: GridSpec) -> None:
    """Output has the grid, channels and leads that were asked for."""
    got = student_of(backbone, grid)(frames(grid, PAST)).future.shape
    want = (3, LEAD, len(grid.channels), grid.height, grid.width)
    assert tuple(got) == want, f"forecast has shape {tuple(got)}, wanted {want}"


def latent_is_as_announced(backbone: Backbone, grid: GridSpec) -> None:
    """`latent_width` and `latent_grid` are what `encode` gives."""
    latent, _ = backbone.encode(frames(grid, PAST))
    want = (backbone.latent_width, *backbone.latent_grid)
    assert tuple(latent.shape[1:]) == want, f"latent is {tuple(latent.shape[1:])}, said {want}"


def examples_do_not_mix(backbone: Backbone, grid: GridSpec) -> None:
    """A batch gives what its members give alone."""
    student, past = student_of(backbone, grid).eval(), frames(grid, PAST)
    batch = student(past).future
    alone = torch.cat([student(past[i : i + 1]).future for i in range(len(past))])
    torch.testing.assert_close(batch, alone, rtol=1e-4, atol=1e-4)


def every_parameter_learns(backbone: Backbone, grid: GridSpec) -> None:
    """No layer is built and then left unused."""
    generator = torch.Generator().manual_seed(2)
    future = student_of(backbone, grid).train()(frames(grid, PAST)).future
    (future * torch.randn(future.shape, generator=generator)).sum().backward()
    idle = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def state_survives_a_round_trip(backbone: Backbone, grid: GridSpec) -> None:
    """What is saved and loaded forecasts the same."""
    student, past = student_of(backbone, grid).eval(), frames(grid, PAST)
    before = student(past).future
    saved = {name: value.clone() for name, value in student.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    student.load_state_dict(saved)
    torch.testing.assert_close(student(past).future, before, rtol=0, atol=0)


def exports_with_any_batch(backbone: Backbone, grid: GridSpec) -> None:
    """`torch.export` takes the student, and its program forecasts the same for another batch."""
    student, past = student_of(backbone, grid).eval(), frames(grid, PAST)
    program = torch.export.export(
        FramesOnly(student), (past,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    first = past[:1]
    torch.testing.assert_close(program.module()(first), student(first).future, rtol=1e-4, atol=1e-4)


def turns_with_the_globe(backbone: Backbone, grid: GridSpec) -> None:
    """Where the grid wraps, turning the input turns the forecast (by eight columns).

    A backbone that knows each place apart (learned positions) says `turns = False` on its class.
    """
    if not grid.wraps or not getattr(backbone, "turns", True):
        return
    student, past = student_of(backbone, grid).eval(), frames(grid, PAST)
    turned = student(past.roll(8, dims=-1)).future
    torch.testing.assert_close(turned, student(past).future.roll(8, dims=-1), rtol=1e-3, atol=1e-3)


def teacher_reads_its_narrative(backbone: Backbone, grid: GridSpec) -> None:
    """Other words, another latent; no words, still a number."""
    teacher, past = teacher_of(backbone, grid).eval(), frames(grid, PAST)
    tokens = narrative_tokens()
    latent = teacher(past, tokens).latent
    changed = teacher(past, Tokens(values=-tokens.values, padding=tokens.padding)).latent
    assert torch.isfinite(latent).all(), "the latent is not finite where the narrative is empty"
    torch.testing.assert_close(latent[0], changed[0], rtol=0, atol=0)  # the first text is empty
    assert not torch.allclose(latent[2], changed[2]), "the latent does not depend on the words"


def teacher_examples_do_not_mix(backbone: Backbone, grid: GridSpec) -> None:
    """As for a backbone, with narratives of unequal length: padding must not be read."""
    teacher, past = teacher_of(backbone, grid).eval(), frames(grid, PAST)
    tokens = narrative_tokens()
    batch = teacher(past, tokens).latent
    for i in range(len(past)):
        length = max(1, int((~tokens.padding[i]).sum()))
        alone = Tokens(
            values=tokens.values[i : i + 1, :length], padding=tokens.padding[i : i + 1, :length]
        )
        torch.testing.assert_close(
            teacher(past[i : i + 1], alone).latent[0], batch[i], rtol=1e-4, atol=1e-4
        )


BACKBONE_CHECKS: tuple[Check, ...] = (
    forecasts_every_channel_at_every_lead,
    latent_is_as_announced,
    examples_do_not_mix,
    every_parameter_learns,
    state_survives_a_round_trip,
    exports_with_any_batch,
    turns_with_the_globe,
    teacher_reads_its_narrative,
    teacher_examples_do_not_mix,
)

# --- losses --------------------------------------------------------------------------------------


def _pair(compares: str) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (4, 2, 3, 8, 6) if compares == "forecast" else (4, 3, 8, 6)
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student, teacher


def zero_at_a_match(loss: LossFn, compares: str) -> None:
    """Equal sides cost nothing, different ones something."""
    student, teacher = _pair(compares)
    assert abs(loss(student, student).item()) < 1e-12, "equal sides cost something"
    assert loss(student, teacher).item() > 0, "different sides cost nothing"


def gradient_is_right(loss: LossFn, compares: str) -> None:
    """The student's gradient agrees with finite differences, in float64."""
    student, teacher = (side[..., :4, :4].contiguous() for side in _pair(compares))
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), (student,), fast_mode=True)


LOSS_CHECKS: tuple[Check, ...] = (zero_at_a_match, gradient_is_right)


def pyramid_teaches_student_and_loss(loss: Callable[..., torch.nn.Module], compares: str) -> None:
    """For any widths and grids, the cost is finite and reaches all weights and the student."""
    generator = torch.Generator().manual_seed(0)
    grids = ((3, 12, 10), (4, 6, 5)), ((5, 12, 16), (2, 12, 10), (6, 4, 5))
    student, teacher = (
        [torch.randn(4, *grid, generator=generator) for grid in side] for side in grids
    )
    student = [features.requires_grad_() for features in student]
    module = loss([3, 4], [5, 2, 6], False).train()
    cost = module(student, teacher)
    assert torch.isfinite(cost), "the cost is not finite"
    assert cost > 0, "different features cost nothing"
    cost.backward()
    idle = [n for n, p in module.named_parameters() if p.grad is None]
    assert not idle, f"no gradient reaches {', '.join(idle)}"
    assert all(features.grad.any() for features in student), "a level of the student learns nothing"


def weight_rises_to_one(loss: Callable[..., torch.nn.Module], compares: str) -> None:
    """`ramp` never falls and ends at 1."""
    module = loss([3], [4], True)
    ramp = [module.ramp(epoch) for epoch in range(1000)]
    assert min(ramp) >= 0, "the weight is negative"
    assert ramp == sorted(ramp), "the weight falls"
    assert ramp[-1] == 1, "the weight does not end at 1"


PYRAMID_LOSS_CHECKS: tuple[Check, ...] = (pyramid_teaches_student_and_loss, weight_rises_to_one)

# --- extra windows -------------------------------------------------------------------------------


def material(seed: int) -> Material:
    """What extra windows are made from, with an untrained student as the teacher."""
    data = load(Part(name="blobs", params={"size": 8, "runs": 3, "length": 8}))
    setting = Setting(grid=data.grid, statistics=statistics(data), past=PAST, lead=LEAD)
    torch.manual_seed(0)
    return Material(
        windows=WindowDataset(data, "train", past=PAST, lead=LEAD),
        statistics=setting.statistics,
        normaliser=setting.normaliser,
        seed=seed,
        teacher=build_student(Part(name="unet", params={"width": 4}), setting),
    )


def _extra_inputs(extra: ExtraWindows, epoch: int) -> torch.Tensor:
    windows = torch.arange(len(extra.windows))
    extra.renew(material(1).teacher, epoch)
    number = extra.of(windows, epoch)
    assert number.min() >= 0, "a window has a negative number"
    assert number.max() < len(extra), f"window {int(number.max())} of only {len(extra)}"
    batch = extra.gather(number)
    assert batch.index.max() < len(windows), "`index` names no own window"
    return batch.past


def inputs_are_past_frames(build: Callable[[int], ExtraWindows]) -> None:
    """In every epoch, inputs are finite, of the shape of the own windows and near their range."""
    extra = build(0)
    frames = extra.windows.gather(torch.arange(len(extra.windows))).past
    for epoch in (0, 1, 6):
        past = _extra_inputs(extra, epoch)
        assert past.shape == frames.shape, f"inputs are {tuple(past.shape)}"
        assert torch.isfinite(past).all(), "inputs are not finite"
        assert past.abs().max() <= 2 * frames.abs().max(), "inputs are far out of range"


def draws_depend_on_the_seed_alone(build: Callable[[int], ExtraWindows]) -> None:
    """The same seed gives the same windows."""
    extra, again = build(0), build(0)
    for epoch in (0, 6):
        torch.testing.assert_close(
            _extra_inputs(extra, epoch), _extra_inputs(again, epoch), rtol=0, atol=0
        )


EXTRA_CHECKS: tuple[Check, ...] = (inputs_are_past_frames, draws_depend_on_the_seed_alone)

# --- narrators and text encoders -----------------------------------------------------------------


def some_pasts() -> list[Past]:
    """The first windows of drifting blobs."""
    blobs = material(0)
    return [blobs.windows.past_of(number, blobs.statistics) for number in range(4)]


def one_text_per_window(narrator: Narrator) -> None:
    """As many texts as pasts, each of at most 120 words, and the same again."""
    pasts = some_pasts()
    texts = narrator.narrate(pasts)
    assert len(texts) == len(pasts), f"{len(texts)} texts for {len(pasts)} windows"
    longest = max(len(text.split()) for text in texts)
    assert longest <= 120, f"a narrative has {longest} words, more than 120"
    assert narrator.narrate(pasts) == texts, "the same windows got other texts"


def declares_itself(narrator: Narrator) -> None:
    """Says whether it reads the future, and which version it is."""
    assert isinstance(narrator.reads_future, bool), "reads_future must be True or False"
    assert narrator.version, "version must name what the words depend on"


def padding_does_not_matter(encoder: TextEncoder) -> None:
    """A text has the same states alone and beside a longer one; an empty one has none."""
    short, long = "a warm front", "a warm front moves east and a ridge builds behind it"
    batch = encoder.encode([short, long, ""])
    alone = encoder.encode([short])
    length = int((~alone.padding[0]).sum())
    assert batch.values.shape[-1] == encoder.width, "states are not as wide as `width` says"
    torch.testing.assert_close(
        batch.values[0, :length], alone.values[0, :length], rtol=1e-4, atol=1e-4
    )
    assert bool(batch.padding[2].all()), "an empty text must be all padding"
    assert torch.isfinite(batch.values).all(), "states are not finite"


# --- datasets ------------------------------------------------------------------------------------


def frames_are_finite_and_split(dataset: Dataset) -> None:
    """Every split has frames, all finite, in the right order of time within a stretch."""
    for split in SPLITS:
        stretches = dataset.splits[split]
        assert stretches, f"split {split!r} is empty"
        for stretch in stretches:
            block = np.asarray(dataset.frames[stretch.first : stretch.stop])
            assert np.isfinite(block).all(), f"split {split!r} holds values that are not finite"
            times = dataset.times[stretch.first : stretch.stop]
            assert (np.diff(times) > np.diff(times) * 0).all(), f"{split}: time does not go on"
    assert min(statistics(dataset).std) > 0, "a channel never changes"


CHECKS: dict[str, tuple[Check, ...]] = {
    "narrators": (one_text_per_window, declares_itself),
    "encoders": (padding_does_not_matter,),
    "readers": (frames_are_finite_and_split,),
}
"""The checks of kinds whose parts are built without arguments."""
