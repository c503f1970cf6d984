"""The road: recipe in, files out. Every stage does what is not yet done, and nothing twice.

```
DIR/recipe.json                  the recipe, resolved
DIR/narratives.jsonl             one narrative a window
DIR/states/<split>.safetensors   token states
DIR/teachers/<kind>-seed<n>/     kind is `text` or `blind` (the same teacher without text)
DIR/targets/<kind>-seed<n>/      what the frozen teacher says of every training window
DIR/targets/stored/              what the forecasts in somebody's file say of them
DIR/students/<student>-<method>-seed<n>/
DIR/scores/<split>/<model>.json  one result a model, and scores.json with all of them
```
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import s2kd
from s2kd import files
from s2kd.blends import Blends
from s2kd.cell_events import CellEvent, cell_events
from s2kd.checkpoint import (
    build_student,
    build_teacher,
    card_of,
    load_card,
    load_student,
    load_teacher,
    model_key,
    save_model,
)
from s2kd.climatology import Climatology
from s2kd.data import datasets
from s2kd.data._cf import expand
from s2kd.dataset import Dataset
from s2kd.files import digest, read_json, write_json
from s2kd.forecast_words import ForecastWords
from s2kd.losses import losses
from s2kd.models import FramesOnly, Student, Teacher
from s2kd.narrators import Narrator, narrators
from s2kd.narrators.store import narrate_windows
from s2kd.nn import padded_size
from s2kd.normalise import Normaliser, statistics
from s2kd.recipe import Method, Part, Recipe
from s2kd.rollout import Step, climatology_step, persistence_step, roll_out
from s2kd.scoring import (
    SCORES_VERSION,
    climatology_forecast,
    latency,
    persistence,
    result_row,
    score,
)
from s2kd.stored import StoredForecasts, store_forecasts
from s2kd.targets import LiveTargets, StoredTargets, store_targets
from s2kd.text import encoders
from s2kd.text.states import TextStates, encode_states
from s2kd.train import Distilling, Forecasting, Weighted, fit, foresee, validation_error
from s2kd.types import S2KDError, Statistics, Window
from s2kd.windows import Windows

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Report = Callable[[int, int, str], None]
"""Progress of one stage: done, total, a word."""


def _silent(stage: str) -> Report:
    return lambda done, total, word: None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to compute: Lightning Fabric's own words for it."""

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    strategy: str = "auto"
    tensorboard: bool = False
    target_gigabytes: float = 20.0


@dataclass(eq=False, kw_only=True)
class Run:
    """One recipe in one folder; what is costly is made when first asked for.

    With a `horizon` of 2 or more, scores include a roll-out to so many times the lead.
    """

    recipe: Recipe
    out: Path
    machine: Machine = Machine()
    report: Callable[[str], Report] = _silent
    say: Callable[[str], None] = lambda text: None
    save_seconds: float = 20.0
    horizon: int = 0
    _states: dict[str, TextStates] = field(default_factory=dict)

    @cached_property
    def fabric(self) -> "Fabric":
        """Lightning Fabric, launched."""
        import warnings

        from lightning_fabric import Fabric

        warnings.filterwarnings("ignore", module="lightning_fabric")
        machine, strategy = self.machine, self.machine.strategy
        many = machine.devices != 1 or machine.nodes > 1
        if many and strategy in ("auto", "ddp") and any(m.hint_epochs for m in self.recipe.methods):
            # while a student is hinted at, what lies behind its latent gets no gradient
            strategy = "ddp_find_unused_parameters_true"
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.nodes,
            precision=machine.precision,
            strategy=strategy,
        )
        fabric.launch()
        return fabric

    @cached_property
    def dataset(self) -> Dataset:
        """The frames and splits."""
        self.say(f"Reading {self.recipe.dataset.name}")
        dataset = datasets.build(self.recipe.dataset.name, **self.recipe.dataset.params)
        for notice in dataset.notices:
            self.say(notice)
        size = (dataset.grid.height, dataset.grid.width)
        padded = tuple(padded_size(length) for length in size)
        if size != padded:
            self.say(
                f"The grid of {size[0]}×{size[1]} is padded to {padded[0]}×{padded[1]} inside the "
                "models and cropped again (large grids that are read in patches: a little more)"
            )
        return dataset

    @cached_property
    def known(self) -> Statistics:
        """Statistics of the training split."""
        return statistics(self.dataset, lead=self.recipe.lead)

    @cached_property
    def climatology(self) -> Climatology:
        """What is usual in the training split."""
        return Climatology.fit(self.dataset)

    @cached_property
    def cell_events(self) -> tuple[CellEvent, ...]:
        """Rare events by every cell's own training quantiles."""
        self.say("Measuring every cell's quantiles over the training split")
        recipe = self.recipe
        return cell_events(
            self.dataset, past=recipe.past, lead=recipe.lead, climatology=self.climatology
        )

    @cached_property
    def narrator(self) -> Narrator:
        """What puts windows into words."""
        return narrators.build(self.recipe.narrator.name, **self.recipe.narrator.params)

    def windows(self, split: str, *, device: torch.device | str = "cpu") -> Windows:
        """The examples of one split; test windows have a stride of their own."""
        recipe = self.recipe
        stride = recipe.test_stride if split.startswith("test") else recipe.stride
        return Windows(
            self.dataset, split, past=recipe.past, lead=recipe.lead, stride=stride, device=device
        )

    @property
    def test_splits(self) -> list[str]:
        """`test` and every further `test_…`."""
        return [name for name in self.dataset.splits if name.startswith("test")]

    @property
    def kinds(self) -> list[str]:
        """The teachers that this recipe's methods learn from; `text` is always shown."""
        asked = {method.teacher for method in self.recipe.methods}
        return [kind for kind in ("text", "blind") if kind in asked]

    def states(self, split: str) -> TextStates:
        """Token states of the split's narratives, from the store."""
        if split not in self._states:
            self._states[split] = TextStates.load(self.out / "states" / f"{split}.safetensors")
        return self._states[split]

    def first_only(self, work: Callable[[], object]) -> None:
        """Let the first process do it; the others wait."""
        if self.fabric.is_global_zero:
            work()
        self.fabric.barrier()


def open_run(recipe: Recipe, out: Path, **settings: Any) -> Run:
    """A run in a folder that is new, or that already belongs to this recipe.

    More seeds, methods or students may be added to a folder; anything else that differs would
    mix two experiments and is refused, naming the fields.
    """
    check_parts(recipe)
    path = out / "recipe.json"
    if out.exists() and not out.is_dir():
        raise S2KDError(f"{out}: is a file; --out wants a folder")
    if path.exists():
        old, new = load_recipe(out).to_dict(), recipe.to_dict()
        free = {"seeds", "methods", "students", "stored", "name"}
        differ = [k for k in new if k not in free and old[k] != new[k]]
        if differ and _used(out):
            raise S2KDError(
                f"{out}: belongs to another recipe ({old.get('name')!r}; it differs in "
                f"{', '.join(differ)}); choose another --out, or delete the folder"
            )
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise S2KDError(
            f"{out}: is not empty and holds no recipe.json of ours; choose another --out"
        )
    write_json(path, {"recipe": recipe.to_dict(), "s2kd": s2kd.__version__})
    return Run(recipe=recipe, out=out, **settings)


def _used(out: Path) -> bool:
    """Whether a run has left more in this folder than what it was asked for."""
    return any(p.name != "recipe.json" and not p.name.startswith(".") for p in out.iterdir())


def load_recipe(out: Path) -> Recipe:
    """The recipe that a run folder belongs to."""
    path = out / "recipe.json"
    if not path.exists():
        raise S2KDError(f"{out}: holds no recipe.json, so not the folder of a run")
    saved = read_json(path)
    if not isinstance(saved, dict) or "recipe" not in saved:
        raise S2KDError(f"{path}: not the recipe of a run of this program")
    return Recipe.from_dict(saved["recipe"], where=str(path))


def check_parts(recipe: Recipe) -> None:
    """Refuse an unknown part or setting before any data is read."""
    from s2kd.backbones import backbones

    pairs: list[tuple[Any, Part]] = [
        (datasets, recipe.dataset),
        (narrators, recipe.narrator),
        (encoders, recipe.text),
        (backbones, recipe.teacher.backbone),
        *[(backbones, student) for student in recipe.students],
        *[(losses, term.loss) for method in recipe.methods for term in method.terms],
    ]
    for registry, part in pairs:
        registry.check(part.name, part.params)
    _check_stored(recipe)


def _check_stored(recipe: Recipe) -> None:
    """Stored forecasts and methods that learn from them go together, and the file is there."""
    methods = [method for method in recipe.methods if method.teacher == "stored"]
    if recipe.stored.path and not methods:
        raise S2KDError(
            "stored.path is set, but no method learns from stored forecasts; add one, as in "
            '--set \'methods=["baseline","output_stored"]\''
        )
    for method in methods:
        if not recipe.stored.path:
            raise S2KDError(
                f"method {method.name!r} learns from stored forecasts: say where they are with "
                "--set stored.path=FILE"
            )
        compared = _compared(method)
        if "stages" in compared:
            raise S2KDError(
                f"method {method.name!r} compares features of several stages, which stored "
                "forecasts do not hold"
            )
        if compared != {"forecast"} and not recipe.stored.latent:
            raise S2KDError(
                f"method {method.name!r} compares latents: name the variable of "
                f"{recipe.stored.path} that holds the teacher's features with "
                "--set stored.latent=NAME"
            )
    if methods:
        expand(recipe.stored.path)


class Busy(S2KDError):
    """Somebody else is at work there."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One run a folder; the second is refused with a sentence.

    Where the work fails before anything was made, what the lock itself made goes again.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK")):
        yield  # the first of this run's processes holds the lock for all
        return
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise S2KDError(f"{out}: is a file, or lies in one; --out wants a folder") from None
    with files.locked(out / ".lock", Busy(f"{out}: another run is at work in this folder")):
        try:
            yield
        except BaseException:
            if new and not _used(out):
                shutil.rmtree(out)
            elif not (out / "recipe.json").exists():
                (out / ".lock").unlink(missing_ok=True)
            raise


def run_all(run: Run) -> None:
    """Narrate, teach, distil, evaluate, report."""
    if any(method.teacher == "stored" for method in run.recipe.methods):
        copy_stored(run)  # first, so that what does not fit is told before anything is trained
    narrate(run)
    for seed in run.recipe.seeds:  # whole seeds first: a run that is cut short is a table already
        train_teachers(run, seeds=(seed,))
        distill(run, seeds=(seed,))
    evaluate(run)
    run.first_only(lambda: None if _reported(run.out) else report(run))


def _reported(out: Path) -> bool:
    """Whether the report is of these scores and search, written only where they change."""
    page, made = out / "report.html", [out / "scores.json", out / "sweep.json"]
    times = [path.stat().st_mtime_ns for path in made if path.exists()]
    return page.exists() and page.stat().st_mtime_ns >= max(times)


# --- narrate -----------------------------------------------------------------------------------


def narrate(run: Run) -> None:
    """Words for every window, and their token states."""
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
            run.out / "narratives.jsonl",
            name=recipe.narrator.name,
            progress=lambda done, total, told=told: told(done, total, ""),
        )
        path = run.out / "states" / f"{split}.safetensors"
        # named by the encoder's settings, so that an unchanged split need not load the encoder
        settings = digest([texts, asdict(recipe.text)])
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


# --- teach -------------------------------------------------------------------------------------


def teacher_folder(run: Run, kind: str, seed: int) -> Path:
    """Where the teacher of this kind and seed lies."""
    return run.out / "teachers" / f"{kind}-seed{seed}"


def student_folder(run: Run, student: Part, method: Method, seed: int) -> Path:
    """Where this student lies."""
    return run.out / "students" / f"{student.name}-{method.name}-seed{seed}"


def train_teachers(run: Run, *, seeds: Sequence[int] = ()) -> None:
    """Stage 1: every teacher that the methods learn from, for these seeds or all (eq. 13)."""
    for seed in seeds or run.recipe.seeds:
        for kind in run.kinds:
            train_teacher(run, kind, seed)


def _inputs(run: Run) -> dict[str, Any]:
    """What every model of a run depends on."""
    recipe = run.recipe
    names = ("past", "lead", "stride", "normalise", "predict")
    return {
        "data": run.dataset.fingerprint,
        "version": s2kd.__version__,
        **{name: getattr(recipe, name) for name in names},
    }


def _shape(run: Run) -> dict[str, Any]:
    """What a model must be made for: grid, frames, units."""
    recipe = run.recipe
    names = ("past", "lead", "normalise", "predict")
    shape = {name: getattr(recipe, name) for name in names}
    return {"grid": run.dataset.grid, "known": run.known, **shape}


def _read_by(run: Run, kind: str) -> dict[str, TextStates | None]:
    return {s: run.states(s) if kind == "text" else None for s in ("train", "val")}


def teacher_key(run: Run, kind: str, seed: int) -> str:
    """A name for exactly this teacher: two of the same key have the same weights."""
    texts = [states.key for states in _read_by(run, kind).values() if states is not None]
    return model_key(
        **_inputs(run),
        teacher=asdict(run.recipe.teacher),
        training=asdict(run.recipe.teacher_training),
        seed=seed,
        text=texts or None,
    )


def borrow_teacher(run: Run, kind: str, seed: int, folders: Iterable[Path]) -> None:
    """Copy this very teacher from the first of these folders that holds it, if any does."""
    folder, key = teacher_folder(run, kind, seed), teacher_key(run, kind, seed)
    there = [one for one in folders if one != folder and _finished(one, key)]
    if there and not folder.exists():
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(there[0], beside)
        beside.rename(folder)


def train_teacher(run: Run, kind: str, seed: int) -> None:
    """One teacher; `blind` is the same one without the alignment and the words."""
    recipe, folder, reads = run.recipe, teacher_folder(run, kind, seed), kind == "text"
    states = _read_by(run, kind)
    key = teacher_key(run, kind, seed)
    if _finished(folder, key):
        return
    _begin(run, folder, key)
    torch.manual_seed(seed)
    width = run.states("train").width if reads else 1
    teacher = build_teacher(
        recipe.teacher,
        **_shape(run),
        text_width=width,
        reads=reads,
    ).to(memory_format=torch.channels_last)
    train = run.windows("train", device=run.fabric.device)
    objective = Forecasting(teacher, train, states["train"])
    history = _fit(run, objective, folder, seed, recipe.teacher_training, states["val"])
    card = card_of(
        "teacher",
        recipe.teacher,
        **_shape(run),
        text_width=width,
        reads=reads,
        key=key,
        name=recipe.name,
        seed=seed,
        narrator=recipe.narrator.name if reads else "none",
        fingerprint=run.dataset.fingerprint,
        recipe=recipe.to_dict(),
        **_outcome(history),
    )
    _finish(run, folder, teacher, card)


def _fit(
    run: Run,
    objective: Forecasting | Distilling,
    folder: Path,
    seed: int,
    training: Any,
    states: TextStates | None,
    hint_epochs: int = 0,
) -> list[dict[str, Any]]:
    """The loop, with this run's machine and validation split."""
    val = run.windows("val", device=run.fabric.device)
    return fit(
        objective,
        count=len(run.windows("train")),
        validate=lambda: validation_error(objective.model, val, states, run.fabric),
        training=training,
        seed=seed,
        folder=folder,
        fabric=run.fabric,
        hint_epochs=hint_epochs,
        progress=run.report(f"train {folder.name}") if run.fabric.is_global_zero else None,
        save_seconds=run.save_seconds,
        tensorboard=run.machine.tensorboard,
    )


def _finished(folder: Path, key: str) -> bool:
    """Whether the model that this key names is already there."""
    return (folder / "model.json").exists() and load_card(folder).get("key") == key


def _begin(run: Run, folder: Path, key: str) -> None:
    """An empty folder, or the one in which this very training was interrupted."""

    def ready() -> None:
        note = folder / "training.json"
        if folder.exists() and not (note.exists() and read_json(note).get("key") == key):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, {"key": key})

    run.first_only(ready)


def _finish(run: Run, folder: Path, model: Student | Teacher, card: dict[str, Any]) -> None:
    def write() -> None:
        save_model(folder, model, card)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        (folder / "training.json").unlink(missing_ok=True)

    run.first_only(write)


def _outcome(history: list[dict[str, Any]]) -> dict[str, Any]:
    best = min((r for r in history if not r.get("hint")), key=lambda r: r["val"])
    return {"epochs": len(history), "best_epoch": best["epoch"], "validation": best["val"]}


# --- distil ------------------------------------------------------------------------------------


def distill(run: Run, *, seeds: Sequence[int] = ()) -> None:
    """Stage 2: every student by every method, for these seeds or all (eq. 14)."""
    for seed in seeds or run.recipe.seeds:
        for method in run.recipe.methods:
            for student in run.recipe.students:
                distill_one(run, student, method, seed)


def make_targets(
    run: Run, kind: str, seed: int, *, live: bool = False, blends: Blends | None = None
) -> StoredTargets | LiveTargets:
    """What this teacher says of every training window, or of their `blends`, stored once.

    Where the store would be larger than the machine's budget, or with `live`, the teacher
    answers live: features of several stages are not stored.
    """
    if kind == "stored":
        return StoredTargets(run.out / "targets" / "stored")
    name = f"{kind}-seed{seed}" + (f"-blends{blends.copies}" if blends is not None else "")
    folder = run.out / "targets" / name
    teacher, card = load_teacher(teacher_folder(run, kind, seed))
    windows = blends or run.windows("train", device=run.fabric.device)
    teacher = teacher.to(run.fabric.device)
    states = run.states("train") if teacher.reads else None
    frames = run.recipe.lead * len(run.dataset.grid.channels)
    cells = int(np.prod(teacher.latent_grid))
    size = run.dataset.grid.height * run.dataset.grid.width * frames + teacher.latent_width * cells
    if live or len(windows) * size * 2 > run.machine.target_gigabytes * 2**30:
        return LiveTargets(teacher, windows, states)
    drawn = [blends.copies, blends.seed] if blends is not None else None
    key = digest([card["weights"], card["key"], states.key if states else None, drawn])
    told = run.report(f"targets {folder.name}")
    run.first_only(
        lambda: store_targets(
            folder,
            teacher,
            windows,
            states,
            key=key,
            progress=lambda done, total: told(done, total, ""),
        )
    )
    return StoredTargets(folder)


def blends_of(run: Run, method: Method, seed: int) -> Blends | None:
    """The blended windows that this method learns from besides, if any."""
    if not method.blends:
        return None
    windows = run.windows("train", device=run.fabric.device)
    return Blends(windows, copies=method.blends, seed=seed)


def label(run: Run, kind: str, seed: int, methods: Sequence[Method]) -> None:
    """Store all that this teacher says for these methods, before any two learn side by side."""
    make_targets(run, kind, seed)
    learners = (method for method in methods if method.teacher == kind)
    for method in {one.blends: one for one in learners if one.blends}.values():
        make_targets(run, kind, seed, blends=blends_of(run, method, seed))


def copy_stored(run: Run) -> dict[str, Any]:
    """Somebody's forecasts of every training window into `targets/stored`; what a card would say.

    Only the fields that distilling reads of a teacher's card: the identity of what it says, and
    the width of its latent.
    """
    forecasts = StoredForecasts(run.recipe.stored, run.windows("train"))
    folder, told = run.out / "targets" / "stored", run.report("targets stored")
    normaliser = Normaliser.from_statistics(
        run.known, kind=run.recipe.normalise, predict=run.recipe.predict
    )
    run.first_only(
        lambda: store_forecasts(
            folder, forecasts, normaliser, progress=lambda done, total: told(done, total, "")
        )
    )
    content = read_json(folder / "key.json")["content"]
    return {"weights": content, "part": {"width": forecasts.latent_width or 0}}


def _teacher_card(run: Run, kind: str, seed: int) -> dict[str, Any] | None:
    """What is written about the teacher that a method learns from."""
    if kind == "none":
        return None
    return copy_stored(run) if kind == "stored" else load_card(teacher_folder(run, kind, seed))


def distill_one(
    run: Run, part: Part, method: Method, seed: int, *, folder: Path | None = None
) -> None:
    """One student by one method, in `folder` or where a run has its students."""
    recipe, folder = run.recipe, folder or student_folder(run, part, method, seed)
    teacher = _teacher_card(run, method.teacher, seed)
    key = model_key(
        **_inputs(run),
        student=asdict(part),
        method=asdict(method),
        training=asdict(recipe.student_training),
        seed=seed,
        teacher=teacher["weights"] if teacher else None,
    )
    if _finished(folder, key):
        return
    live = "stages" in _compared(method)
    targets = make_targets(run, method.teacher, seed, live=live) if teacher else None
    blends = blends_of(run, method, seed)
    labelled = (
        make_targets(run, method.teacher, seed, live=live, blends=blends)
        if teacher and blends
        else None
    )
    _begin(run, folder, key)
    torch.manual_seed(seed)
    student = build_student(
        part,
        **_shape(run),
    ).to(memory_format=torch.channels_last)
    objective = student_objective(run, student, method, targets, teacher, blends, labelled)
    history = _fit(run, objective, folder, seed, recipe.student_training, None, method.hint_epochs)
    card = card_of(
        "student",
        part,
        **_shape(run),
        key=key,
        name=recipe.name,
        method=method.name,
        seed=seed,
        attributes={k: dict(v) for k, v in run.dataset.attributes.items()},
        domain=run.dataset.domain,
        dataset=asdict(recipe.dataset),
        source=run.dataset.source,
        fingerprint=run.dataset.fingerprint,
        recipe=recipe.to_dict(),
        **_outcome(history),
    )
    _finish(run, folder, student, card)


def _compared(method: Method) -> set[str]:
    """What this method's losses compare."""
    return {losses.compares(term.loss.name) for term in method.terms}


def _check_relations(run: Run, method: Method) -> None:
    share = run.recipe.student_training.batch_size // run.fabric.world_size
    if share < 3:
        raise S2KDError(
            f"method {method.name!r} compares the examples of a batch with one another and wants "
            f"at least 3 a process, not {share}; raise student_training.batch_size"
        )


def student_objective(
    run: Run,
    student: Student,
    method: Method,
    targets: StoredTargets | LiveTargets | None,
    teacher: dict[str, Any] | None,
    blends: Blends | None = None,
    labelled: StoredTargets | LiveTargets | None = None,
) -> Forecasting | Distilling:
    """What this method minimises; `labelled` is what the teacher says of the `blends`."""
    windows = run.windows("train", device=run.fabric.device)
    if targets is None or teacher is None:
        return Forecasting(student, windows, None, blends=blends)
    if "relational" in {term.loss.name for term in method.terms}:
        _check_relations(run, method)
    terms = [
        Weighted(
            term.loss.name,
            term.weight,
            losses.build(term.loss.name, **term.loss.params),
            losses.compares(term.loss.name),
        )
        for term in method.terms
    ]
    return Distilling(
        student,
        windows,
        targets,
        terms,
        teacher_width=teacher["part"]["width"],
        weight=method.weight,
        blends=(blends, labelled) if blends is not None else None,
    )


# --- evaluate ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    """One forecaster to be scored: `row` are the fields of its result that are known already."""

    name: str
    key: str
    row: dict[str, Any]
    load: Callable[[], Student | Teacher] | None = None


def evaluate(run: Run, *, horizon: int = 0) -> list[dict[str, Any]]:
    """Score persistence, climatology, every teacher and every student on the test splits.

    With a `horizon` of 2 or more every row also has `long_horizon`: roll-outs to so many times
    the lead (`rollout.roll_out`).
    """
    if horizon < 0 or horizon == 1:
        raise S2KDError(f"--horizon {horizon}: wants at least 2 lead times, or 0 for no roll-out")
    run.horizon = horizon or run.horizon
    rows: list[dict[str, Any]] = []
    run.first_only(lambda: rows.extend(_evaluate(run)))
    return rows


def _evaluate(run: Run) -> list[dict[str, Any]]:
    rows = []
    for split in run.test_splits:
        windows = run.windows(split, device=run.fabric.device)
        for entrant in _entrants(run):
            rows.append(_score_one(run, entrant, split, windows, run.climatology))
    path = run.out / "scores.json"
    if not path.exists() or read_json(path) != rows:
        write_json(path, rows)
    return rows


def score_references(run: Run) -> list[dict[str, Any]]:
    """Results of persistence and climatology on every test split."""
    return [row for entrant in _references() for row in _score_all(run, entrant)]


def score_teacher(run: Run, kind: str, seed: int) -> list[dict[str, Any]]:
    """Results of one teacher on every test split."""
    return _score_all(run, _teacher_entrant(run, kind, seed))


def score_student(run: Run, part: Part, method: Method, seed: int) -> list[dict[str, Any]]:
    """Results of one student on every test split."""
    return _score_all(run, _student_entrant(run, part, method, seed))


def _score_all(run: Run, entrant: "_Entrant") -> list[dict[str, Any]]:
    return [
        _score_one(
            run, entrant, split, run.windows(split, device=run.fabric.device), run.climatology
        )
        for split in run.test_splits
    ]


def _entrants(run: Run) -> Iterator[_Entrant]:
    yield from _references()
    for seed in run.recipe.seeds:
        for kind in run.kinds:
            yield _teacher_entrant(run, kind, seed)
        for method in run.recipe.methods:
            for part in run.recipe.students:
                yield _student_entrant(run, part, method, seed)


def _references() -> Iterator[_Entrant]:
    for name in ("persistence", "climatology"):
        row = {"backbone": name, "role": "reference", "method": name, "seed": None}
        yield _Entrant(name=name, key=name, row=row)


def _teacher_entrant(run: Run, kind: str, seed: int) -> _Entrant:
    folder = teacher_folder(run, kind, seed)
    card = load_card(folder)
    row = {
        "backbone": run.recipe.teacher.backbone.name,
        "role": "teacher",
        "method": "teacher" if kind == "text" else "teacher-blind",
        "seed": seed,
        "narrator": card["narrator"],
        "parameters": card["parameters"],
    }
    return _Entrant(
        name=f"teacher-{folder.name}",
        key=card["weights"],
        row=row,
        load=lambda: load_teacher(folder)[0],
    )


def _student_entrant(run: Run, part: Part, method: Method, seed: int) -> _Entrant:
    folder = student_folder(run, part, method, seed)
    card = load_card(folder)
    row = {
        "backbone": part.name,
        "role": "student",
        "method": method.name,
        "seed": seed,
        "narrator": run.recipe.narrator.name if method.teacher == "text" else "none",
        "parameters": card["parameters"],
    }
    return _Entrant(
        name=folder.name, key=card["weights"], row=row, load=lambda: load_student(folder)[0]
    )


def _score_one(
    run: Run, entrant: _Entrant, split: str, windows: Windows, climatology: Climatology
) -> dict[str, Any]:
    """One result, from its file where that is of these weights and windows."""
    path = run.out / "scores" / split / f"{entrant.name}.json"
    version = f"{s2kd.__version__} scores {SCORES_VERSION}"
    key = digest([entrant.key, run.dataset.fingerprint, windows.starts.tolist(), version])
    if path.exists():
        row = read_json(path)
        if row.get("key") == key:
            # of the same weights, perhaps by a recipe that has changed elsewhere since
            row |= {"preset": run.recipe.name, "recipe": run.recipe.digest}
            row["settings"] = run.recipe.to_dict()
            return _with_long_horizon(run, entrant, windows, path, row)
    told = run.report(f"score {entrant.name} on {split}")
    predict, speed = _predictor(run, entrant, split, windows, climatology)
    scores = score(
        predict,
        windows,
        statistics=run.known,
        climatology=climatology,
        cell_events=run.cell_events,
        progress=lambda done, total: told(done, total, ""),
    )
    row = result_row(
        scores=scores,
        data=run.recipe.dataset.name,
        preset=run.recipe.name,
        split=split,
        latency=speed,
        fingerprint=run.dataset.fingerprint,
        recipe=run.recipe.digest,
        device=run.fabric.device,
        **entrant.row,
    )
    row |= {"key": key, "settings": run.recipe.to_dict()}
    if entrant.row["role"] != "reference" and entrant.row["narrator"] != "none":
        row["reads_future"] = run.narrator.reads_future
    write_json(path, row)
    return _with_long_horizon(run, entrant, windows, path, row)


def _with_long_horizon(
    run: Run, entrant: _Entrant, windows: Windows, path: Path, row: dict[str, Any]
) -> dict[str, Any]:
    """The row with its roll-out, where one is asked for and it has none of that length."""
    if not run.horizon or row.get("long_horizon", {}).get("horizon") == run.horizon:
        return row
    told = run.report(f"roll out {entrant.name} on {windows.split}")
    step, words = _stepper(run, entrant, windows)
    found = roll_out(
        step,
        windows,
        horizon=run.horizon,
        statistics=run.known,
        climatology=run.climatology,
        progress=lambda done, total: told(done, total, ""),
    )
    row = {**row, "long_horizon": {**found, "words": words}}
    write_json(path, row)
    return row


def _stepper(run: Run, entrant: _Entrant, windows: Windows) -> tuple[Step, str | None]:
    """What forecasts block after block, and what a reader reads after the first of them."""
    if entrant.load is None:
        if entrant.name == "persistence":
            return persistence_step(windows.lead), None
        return climatology_step(run.climatology, windows, horizon=run.horizon), None
    model = entrant.load().to(run.fabric.device).to(memory_format=torch.channels_last)
    if not (isinstance(model, Teacher) and model.reads):
        return lambda past, window, block: foresee(model, past, window.index, None), None
    states, words = run.states(windows.split), _forecast_words(run, windows)

    def step(past: torch.Tensor, window: Window, block: int) -> torch.Tensor:
        if block == 0:
            return foresee(model, past, window.index, states)
        return model(past, words.tokens(past, window.index, block * windows.lead)).future

    return step, words.kind


def _forecast_words(run: Run, windows: Windows) -> ForecastWords:
    """The run's own rules where they are rules; another's words cannot be made of forecasts."""
    narrator, width = run.recipe.narrator, run.states(windows.split).width
    rules = narrator.name == "rules"
    rules |= narrator.name == "shuffled" and narrator.params.get("of", "rules") == "rules"
    if not rules:
        return ForecastWords(windows, run.known, width=width)
    encoder = encoders.build(run.recipe.text.name, **run.recipe.text.params)
    return ForecastWords(windows, run.known, width=width, narrator=run.narrator, encoder=encoder)


def _predictor(
    run: Run, entrant: _Entrant, split: str, windows: Windows, climatology: Climatology
) -> tuple[Callable[[torch.Tensor, Window], torch.Tensor], dict[str, Any] | None]:
    """What forecasts, and how long one window takes it."""
    if entrant.load is None:
        if entrant.name == "persistence":
            return persistence(windows.lead), None
        return climatology_forecast(climatology, windows), None
    model = entrant.load().to(run.fabric.device).to(memory_format=torch.channels_last)
    reads = isinstance(model, Teacher) and model.reads
    states = run.states(split) if reads else None
    one = windows.gather(torch.tensor([0]))
    tokens = states.tokens(one.index, one.past.device) if states is not None else None
    speed = latency(FramesOnly(model, tokens).eval(), one.past)
    return lambda past, window: foresee(model, past, window.index, states), speed


# --- report ------------------------------------------------------------------------------------


def report(run: Run) -> Path:
    """`report.html` and `figures/`, from the files of the run alone."""
    from s2kd.report import write_report

    path = run.out / "report.html"
    rows = read_scores(run.out)
    found = run.out / "sweep.json"
    write_report(
        path,
        rows=rows,
        curves=_curves(run),
        samples=_samples(run),
        recipe=run.recipe,
        sweep=read_json(found) if found.exists() else None,
    )
    return path


def read_scores(out: Path) -> list[dict[str, Any]]:
    """What `evaluate` found."""
    path = out / "scores.json"
    if not path.exists():
        raise S2KDError(f"{out}: has no scores.json yet; run `s2kd evaluate` first")
    return read_json(path)


def _curves(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The log of every training, by name."""
    import json

    curves = {}
    for kind in ("teachers", "students"):
        for path in sorted((run.out / kind).glob("*/log.jsonl")):
            lines = path.read_text(encoding="utf-8").splitlines()
            curves[f"{kind[:-1]} {path.parent.name}"] = [json.loads(line) for line in lines]
    return curves


@torch.no_grad()
def _samples(run: Run) -> dict[str, Any]:
    """The middle test window: its frames, its words, and what the first seed makes of it."""
    windows, seed = run.windows("test"), run.recipe.seeds[0]
    number = len(windows) // 2
    window = windows.gather(torch.tensor([number]))
    forecasts = {}
    for entrant in _entrants(run):
        if entrant.load is None or entrant.row["seed"] != seed:
            continue
        model = entrant.load()
        states = run.states("test") if isinstance(model, Teacher) and model.reads else None
        forecasts[_label(entrant)] = foresee(model, window.past, window.index, states)[0].numpy()
    return {
        "past": window.past[0].numpy(),
        "truth": window.future[0].numpy(),
        "forecasts": forecasts,
        "narrative": _narrative(run, number),
        "grid": run.dataset.grid,
    }


def _label(entrant: _Entrant) -> str:
    row = entrant.row
    return row["method"] if row["role"] == "teacher" else f"{row['backbone']} {row['method']}"


def _narrative(run: Run, number: int) -> str:
    """The words of one test window, as the teacher read them."""
    if "text" not in run.kinds:
        return ""
    texts = narrate_windows(
        run.windows("test"),
        run.narrator,
        run.known,
        run.out / "narratives.jsonl",
        name=run.recipe.narrator.name,
    )
    return texts[number]


# --- export ------------------------------------------------------------------------------------


def export(run: Run) -> Path:
    """An ONNX file of the run's best student by validation error, beside its weights."""
    from s2kd.export import export_onnx
    from s2kd.forecaster import Forecaster, find_student

    best = find_student(run.out)
    path = best / "model.onnx"
    if not path.exists() or path.stat().st_mtime_ns < (best / "model.json").stat().st_mtime_ns:
        export_onnx(Forecaster.load(best), path)
    return path
