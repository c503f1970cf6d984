"""What to build and how to train it, as plain frozen data."""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from s2kd.core.files import digest
from s2kd.core.types import S2KDError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part by name, with its settings."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """A teacher: its backbone, and how its latent reads.

    `width` is D, `depth` is N of eqs. 5-9; `branches` puts the two-branch spectral block before
    the alignment.
    """

    backbone: Part
    width: int = 256
    heads: int = 8
    depth: int = 2
    branches: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.width, self.heads) < 1 or self.width % self.heads:
            raise S2KDError(
                "teacher: width and heads must be at least 1, and width divisible by heads, got "
                f"width={self.width} and heads={self.heads}"
            )
        if self.depth < 0:
            raise S2KDError(f"teacher: depth={self.depth} must be at least 0")
        if not 0 <= self.dropout < 1:
            raise S2KDError(f"teacher: dropout={self.dropout} must be from 0 to less than 1")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and how fast.

    `schedule` is `plateau` (÷10 after `plateau_patience` + 1 flat epochs) or `cosine`. Training
    stops after `stop_patience` epochs without a better validation forecast; the best weights are
    restored. `clip` bounds the gradient norm; 0 leaves it alone.
    """

    lr: float = 1e-3
    epochs: int = 100
    batch_size: int = 16
    schedule: str = "plateau"
    plateau_patience: int = 4
    stop_patience: int = 15
    clip: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in ("plateau", "cosine", "constant"):
            raise S2KDError(
                f"schedule={self.schedule!r}: must be 'plateau', 'cosine' or 'constant'"
            )
        if min(self.epochs, self.batch_size) < 1 or not self.lr > 0:
            raise S2KDError(
                f"training needs epochs ≥ 1, batch_size ≥ 1 and lr > 0, got "
                f"{self.epochs}, {self.batch_size} and {self.lr}"
            )
        for name, least in (
            ("lr", 0),
            ("weight_decay", 0),
            ("clip", 0),
            ("plateau_patience", 0),
            ("stop_patience", 1),
        ):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise S2KDError(f"training: {name}={value} must be at least {least}, and finite")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One distillation loss and its weight within L_distill (β of eq. 12 for the spectral one)."""

    loss: Part
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train a student: which losses, against which teacher.

    `teacher` is `text` (the privileged one), `blind` (the same one trained without text),
    `stored` (the forecasts in the recipe's `stored.path`) or `none`. `weight` is λ of eq. 14.
    `hint_epochs` > 0 first trains on the latent terms alone (FitNets in two stages). `blends` > 0
    adds so many blended copies of the training windows (`blends.Blends`): the teacher labels them
    and L_distill is taken over them too; without a teacher L_pred is, with the truth blended.
    """

    name: str
    weight: float = 1.0
    terms: tuple[Term, ...] = ()
    teacher: str = "none"
    hint_epochs: int = 0
    blends: int = 0

    def __post_init__(self) -> None:
        if self.teacher not in ("text", "blind", "stored", "none"):
            raise S2KDError(
                f"method {self.name!r}: teacher must be text, blind, stored or none, "
                f"got {self.teacher!r}"
            )
        if bool(self.terms) != (self.teacher != "none"):
            raise S2KDError(f"method {self.name!r}: losses and a teacher go together")
        if self.hint_epochs < 0 or (self.hint_epochs and not self.terms):
            raise S2KDError(
                f"method {self.name!r}: hint_epochs={self.hint_epochs} wants losses to train on"
            )
        if self.blends < 0 or (self.blends and self.teacher == "stored"):
            raise S2KDError(
                f"method {self.name!r}: blends={self.blends} must be at least 0, and 0 where the "
                "teacher is stored, since stored forecasts know no blended windows"
            )


def s2kd(
    *, weight: float = 1.0, beta: float = 0.5, name: str = "s2kd", teacher: str = "text"
) -> Method:
    """S²-KD: L_pred + λ (L_semantic + β L_spectral) (eqs. 12 and 14), the paper's λ and β."""
    terms = (_term("semantic"), _term("spectral", beta))
    return Method(name=name, teacher=teacher, weight=weight, terms=terms)


BLENDS = 8
"""Blended copies of the training windows, where a built-in method has any."""


def s2kd_plus() -> Method:
    """S²-KD, lighter, with the teacher's forecast, over blended windows too.

    Ours, not the paper's: L_pred + 2 L_output + 0.1 (L_semantic + 0.5 L_spectral), where all but
    L_pred are taken over the windows and as many blended ones (Beyer et al. 2022: the teacher is a
    function to be matched, and can be asked about more than there is truth for). Chosen on
    validation data; see docs/log.md.
    """
    terms = (_term("output", 2.0), _term("semantic", 0.1), _term("spectral", 0.05))
    return Method(name="s2kd_plus", teacher="text", terms=terms, blends=BLENDS)


def _term(loss: str, weight: float = 1.0) -> Term:
    return Term(loss=Part(name=loss), weight=weight)


ALL_METHODS: tuple[Method, ...] = (
    Method(name="baseline"),
    # no teacher either: how much of what blended windows bring is not distillation's
    Method(name="mixup", blends=BLENDS),
    Method(name="output", teacher="blind", terms=(_term("output"),)),
    Method(name="fitnet", teacher="blind", terms=(_term("fitnet"),)),
    # Romero et al. 2015 drop the hint in the second stage; here it goes on beside the output
    Method(
        name="fitnet_two_stage",
        teacher="blind",
        terms=(_term("fitnet"), _term("output")),
        hint_epochs=5,
    ),
    Method(name="review", teacher="blind", terms=(_term("review"),)),
    Method(name="relational", teacher="blind", terms=(_term("relational"),)),
    # the published weight: a mean over the cells of unit vectors is small
    Method(name="attention", teacher="blind", terms=(_term("attention", 1000.0),)),
    Method(name="sdkd", teacher="blind", terms=(_term("sdkd"),)),
    # the two halves of S²-KD alone
    Method(name="spectral", teacher="text", terms=(_term("spectral", 0.5),)),
    Method(name="semantic", teacher="text", terms=(_term("semantic"),)),
    s2kd(),
    # the same from the teacher without text: what is left of the gain is not the words'
    s2kd(name="s2kd_blind", teacher="blind"),
    s2kd_plus(),
    # the same without L_semantic and L_spectral: how much of it is not S²-KD's
    Method(name="output_plus", teacher="blind", terms=(_term("output", 2.0),), blends=BLENDS),
    # from somebody's forecasts in a file
    Method(name="output_stored", teacher="stored", terms=(_term("output"),)),
    s2kd(name="s2kd_stored", teacher="stored"),
)
"""Every built-in way to train a student; a recipe may give one by its name alone."""


def method_named(name: str, *, where: str = "recipe") -> Method:
    """A built-in method; an unknown name is an error that suggests the nearest."""
    known = {method.name: method for method in ALL_METHODS}
    if name not in known:
        raise S2KDError(
            f"{where}: no method called {name!r}{_suggest(name, known)}"
            f" (there are {', '.join(known)})"
        )
    return known[name]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Somebody's forecasts as the teacher: a NetCDF file or Zarr folder.

    `latent` names the variable that holds the teacher's features (time, feature, row, column),
    for methods that compare latents. `variables` maps a channel to the file's name for it where
    they differ (`{"t2m": "2m_temperature"}`; a level is chosen as in `geopotential@500`).
    """

    path: str = ""
    latent: str = ""
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment, complete.

    `past` and `lead` are numbers of frames, `stride` and `test_stride` the frames from one window
    to the next. `predict` says what the backbones put out: `frames`, or the `change` from the
    last past frame in units of its training root mean square.
    """

    name: str
    dataset: Part
    past: int
    lead: int
    stride: int = 1
    test_stride: int = 1
    normalise: str = "zscore"
    predict: str = "frames"
    narrator: Part = Part(name="rules")
    text: Part = Part(name="minilm")
    teacher: TeacherSpec
    students: tuple[Part, ...]
    methods: tuple[Method, ...]
    teacher_training: Training = Training(schedule="cosine", clip=1.0)
    student_training: Training = Training()
    stored: Stored = Stored()
    seeds: tuple[int, ...] = (42,)

    def __post_init__(self) -> None:
        if min(self.past, self.lead, self.stride, self.test_stride) < 1:
            raise S2KDError(
                "recipe: past, lead, stride and test_stride must be at least 1, got "
                f"{self.past}, {self.lead}, {self.stride} and {self.test_stride}"
            )
        for what, value, known in (
            ("normalise", self.normalise, ("zscore", "minmax")),
            ("predict", self.predict, ("frames", "change")),
        ):
            if value not in known:
                raise S2KDError(f"recipe: {what}={value!r} must be {' or '.join(map(repr, known))}")
        if not self.students or not self.methods or not self.seeds:
            raise S2KDError("recipe: needs at least one student, one method and one seed")
        for what, names in (
            ("students", [s.name for s in self.students]),
            ("methods", [m.name for m in self.methods]),
            ("seeds", list(self.seeds)),
        ):
            if len(set(names)) < len(names):
                raise S2KDError(f"recipe: {what} has the same one twice ({names})")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data, complete."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, plain: Any, *, where: str = "recipe") -> "Recipe":
        """The inverse of `to_dict`; an unknown or missing field is an error that names it."""
        return read(cls, plain, where)

    def with_settings(self, settings: Iterable[str]) -> "Recipe":
        """`["student_training.lr=3e-4"]`: a copy with that field changed."""
        recipe = self
        for setting in settings:
            path, equals, text = setting.partition("=")
            if not equals:
                raise S2KDError(f"--set {setting}: wants PATH=VALUE, for example seeds=[42,43]")
            changed = _changed(recipe.to_dict(), path.split("."), _value(text), setting, Recipe)
            recipe = read(Recipe, changed, f"--set {setting}")
        return recipe

    @property
    def digest(self) -> str:
        """A short name for this exact recipe."""
        return digest(self.to_dict())


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _changed(node: Any, path: list[str], value: Any, setting: str, kind: Any) -> Any:
    """`node` (plain data of a `kind`) with the field at `path` set."""
    head, *rest = path
    if isinstance(node, list):
        return _changed_item(node, path, value, setting, kind)
    kind = _bare(kind)
    if dataclasses.is_dataclass(kind):
        known = [f.name for f in fields(kind)]
        if head not in known:
            raise S2KDError(
                f"--set {setting}: {kind.__name__} has no {head!r}{_suggest(head, known)}"
                f" (it has {', '.join(known)})"
            )
        inner = typing.get_type_hints(kind)[head]
    elif isinstance(node, dict):
        inner = Any
    else:
        raise S2KDError(f"--set {setting}: there is nothing called {head!r} inside a plain value")
    if not rest:
        return {**node, head: value}
    return {**node, head: _changed(node.get(head, {}), rest, value, setting, inner)}


def _changed_item(node: list, path: list[str], value: Any, setting: str, kind: Any) -> list:
    """An item of a list is named by its number or by its `name`."""
    head, *rest = path
    names = [item.get("name", str(i)) for i, item in enumerate(node) if isinstance(item, dict)]
    if head in names:
        number = names.index(head)
    elif head.isdigit() and int(head) < len(node):
        number = int(head)
    else:
        raise S2KDError(
            f"--set {setting}: no item {head!r}{_suggest(head, names)}"
            f" (there are {', '.join(names) or len(node)})"
        )
    inner = typing.get_args(_bare(kind))[0] if typing.get_args(_bare(kind)) else Any
    item = _changed(node[number], rest, value, setting, inner) if rest else value
    return [*node[:number], item, *node[number + 1 :]]


def _bare(kind: Any) -> Any:
    """A type without `| None`."""
    if isinstance(kind, types.UnionType):
        return next(k for k in typing.get_args(kind) if k is not type(None))
    return kind


def read(kind: Any, plain: Any, where: str) -> Any:
    """Plain data as a `kind`, every field checked against its type."""
    if kind is Any:
        return plain
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, plain, where)
    if isinstance(kind, types.UnionType):
        return None if plain is None else read(_bare(kind), plain, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(plain, list | tuple):
            raise S2KDError(f"{where}: wants a list, got {plain!r}")
        item = typing.get_args(kind)[0]
        return tuple(read(item, v, f"{where}[{i}]") for i, v in enumerate(plain))
    if typing.get_origin(kind) is dict:
        if not isinstance(plain, dict):
            raise S2KDError(f"{where}: wants settings by name, got {plain!r}")
        return dict(plain)
    if kind is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if not isinstance(plain, kind) or (kind is int and isinstance(plain, bool)):
        raise S2KDError(f"{where}: wants {kind.__name__}, got {plain!r}")
    return plain


def _read_dataclass(kind: Any, plain: Any, where: str) -> Any:
    if kind is Method and isinstance(plain, str):
        return method_named(plain, where=where)
    if not isinstance(plain, dict):
        raise S2KDError(f"{where}: wants {kind.__name__} with its fields, got {plain!r}")
    hints = typing.get_type_hints(kind)
    for name in plain:
        if name not in hints:
            raise S2KDError(
                f"{where}: {kind.__name__} has no {name!r}{_suggest(name, hints)}"
                f" (it has {', '.join(hints)})"
            )
    needed = [
        f.name
        for f in fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in plain]
    if missing:
        raise S2KDError(f"{where}: {kind.__name__} lacks {', '.join(missing)}")
    return kind(**{name: read(hints[name], v, f"{where}.{name}") for name, v in plain.items()})
