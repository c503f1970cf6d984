"""Recipes: one experiment as frozen, typed data, its JSON form and `--set PATH=VALUE`."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from s2kd.core.errors import S2KDError, nearest
from s2kd.core.files import digest
from s2kd.core.methods import ALL_METHODS as ALL_METHODS
from s2kd.core.methods import BLENDS as BLENDS
from s2kd.core.methods import Count, Method, Part, method_named, s2kd
from s2kd.core.methods import Term as Term
from s2kd.core.reading import bare, field_type, is_struct, read, unknown_field

__all__ = ["Keep", "Method", "Part", "Recipe", "Split", "Stored", "TeacherSpec", "Term", "Training"]
__all__ += ["ALL_METHODS", "BLENDS", "completed", "json_schema", "method_named", "read", "s2kd"]

Positive = Annotated[int, Meta(ge=1, le=1_000_000)]
Frames = Annotated[int, Meta(ge=1, le=10_000)]
Seed = Annotated[int, Meta(ge=0, lt=2**40)]
NotNegative = Annotated[float, Meta(ge=0, le=1e300)]


class Split(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which frames are train, val and test.

    Attributes
    ----------
    train, val, test
        First and last dates, both whole (`["2013-01", "2014-06-30"]`), or, where a dataset has
        several runs, run names, patterns (`"storm_*"`) or number ranges (`"0:16"`).
    fractions
        Shares of train, val and test; every run is cut by time.
    days
        Whole days in order of time for train, val and test; 0 for train takes all days before the
        others.
    gap
        Frames left out between splits, at least past + lead of them.
    unseen
        Runs held out for a test of their own, by parameter: `extremes` (the lowest and highest
        value), the range `[low, high]` that is seen, or run names; `[]` holds out none.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    fractions: tuple[float, ...] | None = None
    days: tuple[Count, ...] | None = None
    gap: Count | None = None
    unseen: dict[str, Any] = {}
    episodes: tuple[Positive, Positive] | None = None


class Keep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How frames are stored for training.

    Attributes
    ----------
    missing
        Handling of missing values: `error`, `mask` (cells without any value leave the grid) or
        `fill` (mask, and otherwise carry the last value forward).
    marks
        Values that stand for missing ones though the file does not say so, by channel.
    time_stride
        Every n-th frame is kept.
    memory_gb
        Above this many GiB, frames are written once to the folder `cache` and read from it.
    cache
        The folder of frames that do not fit in memory; empty for the user's cache folder.
    """

    missing: Literal["error", "mask", "fill"] = "error"
    marks: dict[str, tuple[float, ...]] = {}
    time_stride: Positive = 1
    memory_gb: NotNegative = 1.0
    cache: str = ""


class TeacherSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A teacher: its backbone and the alignment of its latent with text.

    `width` is D and `depth` is N of eqs. 5-9; `branches` puts the two-branch spectral block before
    the alignment.
    """

    backbone: Part
    width: Positive = 256
    heads: Positive = 8
    depth: Annotated[int, Meta(ge=0, le=1000)] = 2
    branches: bool = True
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise S2KDError(
                f"teacher: width must be divisible by heads, got width={self.width} and "
                f"heads={self.heads}"
            )


class Training(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Length and speed of one training.

    Attributes
    ----------
    schedule
        `plateau` (÷10 after `plateau_patience` + 1 flat epochs), `cosine` or `constant`.
    stop_patience
        Training stops after so many epochs without a lower validation error; the best weights are
        restored.
    clip
        Bound of the gradient norm; 0 for none.
    """

    lr: Annotated[float, Meta(gt=0, le=100)] = 1e-3
    epochs: Positive = 100
    batch_size: Positive = 16
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    plateau_patience: Count = 4
    stop_patience: Positive = 15
    clip: NotNegative = 0.0
    weight_decay: NotNegative = 0.0


class Stored(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Forecasts in a NetCDF file or Zarr folder as the teacher.

    `latent` names the variable of the teacher's features (time, feature, row, column), for methods
    that compare latents. `variables` maps a channel to the file's name for it where they differ
    (`{"t2m": "2m_temperature"}`; a level is chosen as in `geopotential@500`).
    """

    path: str = ""
    latent: str = ""
    variables: dict[str, Any] = {}


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment, complete.

    Attributes
    ----------
    past, lead
        Number of input and forecast frames.
    stride, test_stride
        Frames from one window to the next, in training and in tests.
    predict
        Output of the backbones: `frames`, or the `change` from the last past frame in units of its
        training root mean square.
    given
        The teacher of methods with `teacher=given`: `package.module:callable`, an ONNX file, or the
        folder of a model.
    captures
        Label stores, for methods with `extra=capture`.
    unlabelled
        Files of further frames, read like `dataset`, for methods with `extra=unlabelled`.
    """

    name: str
    dataset: Part
    split: Split = Split()
    keep: Keep = Keep()
    past: Frames
    lead: Frames
    stride: Positive = 1
    test_stride: Positive = 1
    normalise: Literal["zscore", "minmax"] = "zscore"
    predict: Literal["frames", "change"] = "frames"
    narrator: Part = Part(name="rules")
    text: Part = Part(name="minilm")
    teacher: TeacherSpec
    students: Annotated[tuple[Part, ...], Meta(min_length=1)]
    methods: Annotated[tuple[Method, ...], Meta(min_length=1)]
    teacher_training: Training = Training(schedule="cosine", clip=1.0)
    student_training: Training = Training()
    stored: Stored = Stored()
    given: str = ""
    captures: tuple[Stored, ...] = ()
    unlabelled: tuple[str, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)] = (42,)

    def __post_init__(self) -> None:
        for field, names in (
            ("students", [part.name for part in self.students]),
            ("methods", [method.name for method in self.methods]),
            ("seeds", list(self.seeds)),
        ):
            if len(set(names)) < len(names):
                raise S2KDError(f"recipe: {field} lists the same name twice ({names})")

    def __repr__(self) -> str:
        lists = (self.students, self.methods)
        students, methods = (", ".join(item.name for item in items) for items in lists)
        return (
            f"Recipe({self.name!r}: {self.dataset.name}, {self.past} past and {self.lead} lead "
            f"frames, teacher {self.teacher.backbone.name}, students {students}, methods "
            f"{methods}, seeds {', '.join(map(str, self.seeds))})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data, complete."""
        return json.loads(json.dumps(msgspec.to_builtins(self)))

    @classmethod
    def from_dict(cls, plain: Any, *, source: str = "recipe") -> "Recipe":
        """The inverse of `to_dict`; `source` names the file in errors."""
        return read(cls, completed(plain, source=source), source)

    def with_settings(self, settings: Iterable[str]) -> "Recipe":
        """`["student_training.lr=3e-4"]`: a copy with that field changed."""
        recipe = self
        for setting in settings:
            path, value = parsed_setting(setting)
            source = f"--set {setting}"
            changed = _changed(recipe.to_dict(), path.split("."), value, source, Recipe)
            recipe = Recipe.from_dict(changed, source=source)
        return recipe

    @property
    def digest(self) -> str:
        """A short name for this exact recipe."""
        return digest(self.to_dict())


def parsed_setting(setting: str) -> tuple[str, Any]:
    """Path and value of `student_training.lr=3e-4`."""
    path, equals, text = setting.partition("=")
    if not equals:
        raise S2KDError(f"--set {setting}: wants PATH=VALUE, for example seeds=[42,43]")
    try:
        return path, json.loads(text)
    except json.JSONDecodeError:
        return path, text


def json_schema(kind: str = "recipes") -> dict[str, Any]:
    """The JSON Schema of a recipe's file."""
    if kind != "recipes":
        raise S2KDError(f"list {kind} --schema: only recipes have a schema (list recipes --schema)")
    schema = msgspec.json.schema(Recipe)
    # `upgrade` also reads names alone
    methods = schema["$defs"]["Recipe"]["properties"]["methods"]
    methods["items"] = {"anyOf": [methods["items"], {"enum": [m.name for m in ALL_METHODS]}]}
    schema["$defs"]["Method"]["properties"]["extra"]["anyOf"].append({"type": "string"})
    return schema


def completed(plain: Any, *, source: str = "recipe") -> Any:
    """Plain data of a recipe with all fields of `split` and `keep`, and methods written out.

    Fields that are newer than a stored recipe have their defaults.
    """
    if not isinstance(plain, dict):
        return plain
    plain = {**plain}
    if "methods" in plain:  # a whole recipe
        plain = {"given": "", "captures": [], "unlabelled": [], **plain}
    for section, default in (("split", Split()), ("keep", Keep())):
        if isinstance(plain.get(section, {}), dict):
            plain[section] = {**_plain(default), **plain.get(section, {})}
    if isinstance(plain.get("methods"), list | tuple):
        plain["methods"] = [_written_out(method, source) for method in plain["methods"]]
    return plain


def _written_out(method: Any, source: str) -> Any:
    if isinstance(method, str):
        return _plain(method_named(method, source=source))
    if isinstance(method, dict) and isinstance(method.get("extra"), str):
        return {**method, "extra": {"name": method["extra"]}}
    return method


def _plain(struct: Struct) -> dict[str, Any]:
    return json.loads(json.dumps(msgspec.to_builtins(struct)))


# --- settings of the command line -----------------------------------------------------------------


def _changed(node: Any, path: list[str], value: Any, source: str, kind: Any) -> Any:
    """`node` (plain data of a `kind`) with the field at `path` set to `value`."""
    if not path:
        return value
    head, *rest = path
    if isinstance(node, list):
        names = [item.get("name", str(i)) for i, item in enumerate(node) if isinstance(item, dict)]
        if head not in names and not (head.isdigit() and int(head) < len(node)):
            raise S2KDError(
                f"{source}: no item {head!r}{nearest(head, names)}"
                f" (there are {', '.join(names) or len(node)})"
            )
        number = names.index(head) if head in names else int(head)
        item = _changed(node[number], rest, value, source, field_type(kind, head))
        return [*node[:number], item, *node[number + 1 :]]
    if is_struct(bare(kind)) and head not in bare(kind).__struct_fields__:
        raise S2KDError(f"{source}: {unknown_field(bare(kind), head)}")
    if not isinstance(node, Mapping):
        raise S2KDError(f"{source}: {head!r} is no field of a plain value")
    inner = field_type(kind, head)
    return {**node, head: _changed(node.get(head, {}), rest, value, source, inner)}
