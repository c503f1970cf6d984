"""Description of a file: variables, times, problems, and the settings of a recipe that fit."""

import dataclasses
import importlib
import itertools
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.recipe import Keep, Split
from s2kd.core.types import S2KDError
from s2kd.data.frames import RecordFrames
from s2kd.data.grids import coordinate_difference
from s2kd.data.loading import split_record
from s2kd.data.readers import readers
from s2kd.data.readers.cf import Fields, fields_of, joined
from s2kd.data.readers.files import IN_MEMORY, engine_of, files_of, kind_of_file
from s2kd.data.steps import calendar_of, date_text, regularity, step_numbers, time_problems
from s2kd.data.values import ValueFacts, ValueSummary, packed_edges, unit_problems

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import RenderableType

SCANNED_BYTES = 2**30
"""At most this much is read for ranges and missing values; of more, an even sample."""
BLOCK_BYTES = 2**26
LENGTHS = (12, 8, 6, 4, 3, 2, 1)
"""Numbers of past (and future) frames that are tried, the longest first."""
MOST_CHANNELS = 6
BENCHMARK_FIELDS = (
    (("geopotential", "z"), (500.0, 50_000.0)),
    (("temperature", "t", "ta"), (850.0, 85_000.0)),
)
"""The two fields of the WeatherBench benchmark: names, and levels in hPa or Pa."""


@dataclass(frozen=True, kw_only=True)
class DetectedLayout:
    """A layout recognised from file names and array keys.

    `reader` and its `settings` read it; `recipe` is the built-in recipe that fits, or "". `lines`
    state what lies there, `problems` what is wrong; `asks` holds, for each setting that only a
    person can give, why. `certain` is false for a guess, which any other reader's detection
    overrides.
    """

    reader: str
    settings: dict[str, Any]
    recipe: str = ""
    lines: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    asks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    certain: bool = True


@dataclass(frozen=True, kw_only=True)
class Variable(ValueFacts):
    """One field, with its range over the frames read, in `units`.

    `levels` are the entries of its further dimension.
    """

    name: str
    dims: tuple[str, ...]
    units: str = ""
    long_name: str = ""
    levels: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """What lies at `path`, and the settings that read it.

    `dataset` is the part of a recipe (None: nothing reads it), `split` and `keep` its other
    settings. `repeated` are those of `problems` that loading the data names again. `chosen` and
    `reason` are the channels taken and why. `past` and `lead` (frames) suit the length of the
    record; 0 where none does. `builtin_recipe` is one that fits, or "".
    """

    path: str
    kind: str
    files: int = 1
    gib: float = 0.0
    variables: tuple[Variable, ...] = ()
    frames: int = 0
    first_time: str = ""
    last_time: str = ""
    step_seconds: float = 0.0
    calendar: str = ""
    height: int = 0
    width: int = 0
    latitude: tuple[float, float] | None = None
    longitude: tuple[float, float] | None = None
    wraps: bool = False
    scanned: str = ""
    problems: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    reason: str = ""
    past: int = 0
    lead: int = 0
    dataset: dict[str, Any] | None = None
    split: dict[str, Any] = field(default_factory=dict)
    keep: dict[str, Any] = field(default_factory=dict)
    builtin_recipe: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data."""
        return dataclasses.asdict(self)


def detect_layout(path: Path) -> DetectedLayout | None:
    """The layout that a reader recognises at `path`; None: a CF file, or nothing known.

    Every public module of `s2kd.data.readers` may define `describe_layout(path)`.
    """
    guesses, refusals = [], []
    package = importlib.import_module(readers.package)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_"):  # shared by readers; simulations import PyTorch
            continue
        detect = vars(importlib.import_module(f"{readers.package}.{module.name}")).get(
            "describe_layout"
        )
        if detect is None:
            continue
        try:
            layout = detect(path)
        except S2KDError as error:
            refusals.append(error)
            continue
        if layout is not None and layout.certain:
            return layout
        guesses += [] if layout is None else [layout]
    if not guesses and refusals:
        raise refusals[0]
    return guesses[0] if guesses else None


def describe(
    source: "Path | str | xr.Dataset | xr.DataArray", params: Mapping[str, Any] | None = None
) -> Description:
    """Look into a file, folder, pattern or CF data in memory.

    `params` are settings of the reader that are not to be guessed. Raises S2KDError only where
    nothing can be read.
    """
    if not isinstance(source, str | Path):
        return _of_fields(IN_MEMORY, fields_of(source))
    label = str(source)
    layout = None if "://" in label else detect_layout(Path(label).expanduser())
    if layout is not None:
        return _of_layout(label, layout, params or {})
    return _of_fields(label, fields_of(label))


def _of_layout(label: str, layout: DetectedLayout, params: Mapping[str, Any]) -> Description:
    """A layout that a reader recognised."""
    kind, *lines = layout.lines or [layout.reader]
    basic = Description(
        path=label,
        kind=kind,
        gib=_gib([Path(label).expanduser()]),
        variables=tuple(_shape_line(line) for line in lines),
        problems=tuple(layout.problems),
        builtin_recipe=layout.recipe,
    )
    asks = [reason for setting, reason in layout.asks.items() if setting not in params]
    if asks:
        return _with_problems(basic, *asks)
    settings = layout.settings | dict(params)
    try:
        record = readers.build(layout.reader, **settings)
        variables, scanned = _scan(label, {str(n): record[[n]] for n in record.data_vars})
    except S2KDError as error:
        return _with_problems(basic, str(error))
    basic = dataclasses.replace(
        _with_grid(basic, record, variables, scanned),
        chosen=tuple(map(str, record.data_vars)),
        keep=_keep_settings(variables, list(map(str, record.data_vars))),
    )
    basic = _with_problems(basic, *record.attrs.get("notices", ()), repeated=True)
    return _fitted(basic, record, {"name": layout.reader, "params": settings})


def _shape_line(line: str) -> Variable:
    """`flow (240, 2, 32, 32)` as a variable whose values are not read."""
    name, _, shape = line.partition(" (")
    return Variable(name=name, dims=tuple(shape.rstrip(")").split(", ")) if shape else ())


def _of_fields(label: str, fields: Fields) -> Description:
    """A file, or many, or a dataset in memory, that follow CF."""
    records, failures = _records(label, fields)
    if not records:
        raise S2KDError(failures[0])
    in_memory = label == IN_MEMORY
    files = [] if in_memory or "://" in label else files_of(label)
    kinds = sorted({kind_of_file(file) for file in files})
    kind = "xarray in memory" if in_memory else ", ".join(kinds) or "Zarr"
    variables, scanned = _scan(label, records)
    variables = tuple(_with_metadata(variable, fields) for variable in variables)
    agreeing, others = _agreeing(records, variables)
    channels, reason = _choose(agreeing or variables)
    basic = Description(
        path=label,
        kind=kind,
        files=max(1, len(files)),
        gib=_gib(files),
        chosen=channels,
        reason=reason,
        keep=_keep_settings(variables, channels),
    )
    described = records[agreeing[0].name] if agreeing else next(iter(records.values()))
    basic = _with_grid(basic, described, variables, scanned)
    chunks = [text for file in files for text in _chunk_problems(file, records)]
    basic = _with_problems(basic, *others, *failures, *chunks, *_chunk_lengths(records))
    try:
        record = joined(label, fields, channels)
    except S2KDError as error:
        return _with_problems(basic, str(error))
    units = {str(name): str(v.attrs["units"]) for name, v in record.data_vars.items()}
    basic = _with_problems(basic, *record.attrs["notices"], *unit_problems(units), repeated=True)
    params: dict[str, Any] = {} if in_memory else {"path": label}
    params |= {"variables": list(channels)}
    params |= {} if "latitude" in record.coords else {"domain": "generic"}
    return _fitted(basic, record, {"name": "memory" if in_memory else "cf", "params": params})


def _with_problems(description: Description, *problems: str, repeated: bool = False) -> Description:
    return dataclasses.replace(
        description,
        problems=(*description.problems, *problems),
        repeated=(*description.repeated, *(problems if repeated else ())),
    )


def _fitted(basic: Description, record: "xr.Dataset", part: dict[str, Any]) -> Description:
    """With frames and split that suit the length of the record, or the reason why none does."""
    try:
        past, split = _fit(basic.path, record)
    except S2KDError as error:
        listed = any(problem in str(error) for problem in basic.problems)
        return basic if listed else _with_problems(basic, str(error))
    lead = record.attrs["window"][1] if "window" in record.attrs else past
    return dataclasses.replace(basic, past=past, lead=lead, dataset=part, split=split)


def _records(label: str, fields: Fields) -> tuple[dict[str, "xr.Dataset"], list[str]]:
    """Every variable with all its levels as a record; sentences on those that are not one."""
    records, problems = {}, []
    for name, pieces in fields.items():
        if isinstance(pieces, str):
            problems.append(pieces)
            continue
        levels = [f"{name}@{level:.10g}" for level in pieces[0].levels] if pieces[0].extra else []
        try:
            records[name] = joined(label, fields, levels or [name])
        except S2KDError as error:
            problems.append(str(error))
    return records, problems


def _scan(label: str, records: Mapping[str, "xr.Dataset"]) -> tuple[tuple[Variable, ...], str]:
    """Ranges of every record, and whether all frames were read."""
    budget, variables, sampled = SCANNED_BYTES // len(records), [], False
    for name, record in records.items():
        facts, marks, texts = _facts(label, record, budget), (), ()
        while facts.marks:  # what the values are without them
            texts = (*texts, *facts.suspicions[: len(facts.marks)])
            marks = (*marks, *facts.marks)
            record = record.assign_attrs(marks=dict.fromkeys(record.data_vars, marks))
            facts = _facts(label, record, budget)
        facts = dataclasses.replace(facts, marks=marks, suspicions=(*texts, *facts.suspicions))
        sampled |= facts.frames_read < record.sizes["time"]
        attributes = record[next(iter(record.data_vars))].attrs
        variables.append(
            Variable(
                name=name,
                dims=("time", "row", "column"),
                units=str(attributes.get("units", "")),
                long_name=str(attributes.get("long_name", attributes.get("standard_name", ""))),
                **vars(facts),
            )
        )
    return tuple(variables), "an even sample of the frames" if sampled else "every frame"


def _facts(label: str, record: "xr.Dataset", budget: int) -> ValueFacts:
    values = ValueSummary(packed_edges(next(iter(record.data_vars.values())).encoding))
    for block in _blocks(label, record, budget):
        values.update(block)
    return values.facts()


def _blocks(label: str, record: "xr.Dataset", budget: int) -> Iterator[np.ndarray]:
    """(time, channel, row, column) float32 of all frames, or of evenly spread stored chunks."""
    frames, height, width = (record.sizes[name] for name in ("time", "row", "column"))
    frame = 4 * height * width * len(record.data_vars)
    affordable = max(1, budget // frame)
    size = max(1, min(BLOCK_BYTES // frame, frames))
    starts = np.arange(0, frames, size)
    if affordable < frames:
        size = max(1, min(record.attrs.get("stored_frames", 1), affordable))
        starts = np.unique(
            np.linspace(0, frames // size - 1, max(1, affordable // size)).astype(int) * size
        )
    stored = RecordFrames(record, label)
    for start in map(int, starts):
        yield stored[start : start + size]


def _with_metadata(variable: Variable, fields: Fields) -> Variable:
    """With the dimensions and levels of the file."""
    pieces = fields[variable.name]
    if isinstance(pieces, str):
        return variable
    piece = pieces[0]
    return dataclasses.replace(
        variable,
        dims=tuple(map(str, piece.array.dims)),
        levels=piece.levels if piece.extra else (),
    )


def _with_grid(
    basic: Description, record: "xr.Dataset", variables: Sequence[Variable], scanned: str
) -> Description:
    """With times and grid of the record, and what is wrong with times and values."""
    times = record["time"].values
    dated = not record.attrs.get("step_seconds") and "run" not in record.coords
    ends = {
        name: (float(record[name].values[0]), float(record[name].values[-1]))
        if name in record.coords and record[name].ndim == 1
        else None
        for name in ("latitude", "longitude")
    }
    times_problems = _time_problems(record)
    for v in variables:
        marks, rest = v.suspicions[: len(v.marks)], v.suspicions[len(v.marks) :]
        values = dataclasses.replace(v, suspicions=rest).problems(v.name)
        basic = _with_problems(basic, *(f"{v.name!r} {text}" for text in marks))
        basic = _with_problems(basic, *values, repeated=True)
    basic = _with_problems(basic, *times_problems, repeated=True)
    return dataclasses.replace(
        basic,
        variables=tuple(variables),
        frames=len(times),
        first_time=date_text(times[0]) if dated else "",
        last_time=date_text(times[-1]) if dated else "",
        step_seconds=float(record.attrs.get("step_seconds") or regularity(times).step_seconds),
        calendar="" if not dated else calendar_of(times),
        height=record.sizes["row"],
        width=record.sizes["column"],
        wraps=bool(record.attrs.get("wraps")),
        scanned=scanned,
        **ends,
    )


def _gib(files: Sequence[Path]) -> float:
    sizes = (
        sum(p.stat().st_size for p in file.rglob("*")) if file.is_dir() else file.stat().st_size
        for file in files
        if file.exists()
    )
    return round(sum(sizes) / 2**30, 4)


def _fit(label: str, record: "xr.Dataset") -> tuple[int, dict[str, Any]]:
    """The longest past (and lead) that leaves enough windows in every split, and the split."""
    keep = Keep(missing="fill")
    if "window" in record.attrs:
        split_record(label, record, Split(), keep)
        return int(record.attrs["window"][0]), {}
    times = record["time"].values
    if "run" not in record.coords:  # refuses times that no window can be cut from
        step_numbers(label, times, step_seconds=float(record.attrs.get("step_seconds") or 0))
    for past, settings in itertools.product(LENGTHS, ({"gap": 0}, _by_whole_runs(record))):
        if not settings:
            continue
        settings = settings | ({"gap": 2 * past} if "gap" in settings else {})
        try:
            splits = split_record(label, record, Split(**settings), keep)
        except S2KDError:
            continue  # nothing is left of a split
        windows = {
            name: sum(max(0, s.stop - s.first - 2 * past + 1) for s in stretches)
            for name, stretches in splits.items()
        }
        if windows["train"] >= 20 and min(windows["val"], windows["test"]) >= 2:
            return past, settings
    raise S2KDError(
        f"{label}: {record.sizes['time']} frames are too few to train, validate and test on, "
        "even one frame ahead"
    )


def _by_whole_runs(record: "xr.Dataset") -> dict[str, Any]:
    """Shares of the runs by number; empty where there are too few."""
    count = len(set(record["run"].values)) if "run" in record.coords else 0
    first, second = round(0.75 * count), round(0.85 * count)
    if not 0 < first < second < count:
        return {}
    names = {"train": (0, first), "val": (first, second), "test": (second, count)}
    return {name: (f"{low}:{high}",) for name, (low, high) in names.items()}


def _keep_settings(variables: Sequence[Variable], channels: Sequence[str]) -> dict[str, Any]:
    """The settings of `keep` that handle the missing values of the fields of these channels."""
    by_name = {v.name: v for v in variables}
    fields = {c: by_name[c if c in by_name else c.rpartition("@")[0]] for c in channels}
    marks = {channel: v.marks for channel, v in fields.items() if v.marks}
    lacking = [v for v in fields.values() if v.missing]
    if not lacking:
        return {}
    only_never = all(v.missing == v.never * v.frames_read for v in lacking)
    return {"missing": "mask" if only_never else "fill"} | ({"marks": marks} if marks else {})


# --- problems -------------------------------------------------------------------------------------


def _time_problems(record: "xr.Dataset") -> list[str]:
    return [] if "run" in record.coords else time_problems(record["time"].values)


def _chunk_problems(path: Path, names: Mapping[str, Any]) -> list[str]:
    """Chunks that a Zarr store lacks: never written, or lost in copying."""
    if engine_of(path) != "zarr":
        return []
    import zarr

    store, problems = zarr.open_group(path, mode="r"), []
    for name in names:
        lacks = store[name].nchunks - store[name].nchunks_initialized if name in store else 0
        if lacks:
            problems.append(
                f"{name!r} lacks {lacks} of {store[name].nchunks} stored chunks, which read as "
                f"{store[name].fill_value}"
            )
    return problems


def _chunk_lengths(records: Mapping[str, "xr.Dataset"]) -> list[str]:
    """Chunks so long in time that each is unpacked again for every block."""
    problems = []
    for name, record in records.items():
        frame = 4 * record.sizes["row"] * record.sizes["column"] * len(record.data_vars)
        chunk = record.attrs.get("stored_frames", 1)
        if chunk * frame > 4 * BLOCK_BYTES:
            problems.append(
                f"{name!r} is stored {chunk} frames to a chunk, which is slow to read in order of "
                f"time; store it with at most {max(1, 4 * BLOCK_BYTES // frame)} to a chunk"
            )
    return problems


# --- choice of channels ---------------------------------------------------------------------------


def _agreeing(
    records: Mapping[str, "xr.Dataset"], variables: Sequence[Variable]
) -> tuple[list[Variable], list[str]]:
    """Fields with different values that share the longest time axis and a grid; on the others."""
    groups: list[list[Variable]] = []
    for variable in variables:
        if variable.minimum == variable.maximum:
            continue
        for group in groups:
            if _share_axes(records[group[0].name], records[variable.name]):
                group.append(variable)
                break
        else:
            groups.append([variable])
    longest = max(groups, key=lambda g: (records[g[0].name].sizes["time"], len(g)), default=[])
    return longest, [
        f"{v.name!r} is left out: it has {' × '.join(map(str, records[v.name].sizes.values()))} "
        f"(times × rows × columns), which are not those of {longest[0].name!r}"
        for group in groups
        for v in group
        if group is not longest
    ]


def _share_axes(first: "xr.Dataset", second: "xr.Dataset") -> bool:
    if first.sizes != second.sizes or not first["time"].equals(second["time"]):
        return False
    return not any(
        coordinate_difference(
            name, *(r[name].values if name in r else None for r in (first, second))
        )
        for name in ("latitude", "longitude")
    )


def _choose(variables: Sequence[Variable]) -> tuple[tuple[str, ...], str]:
    """The benchmark's two fields where the file has them, else the single-level ones."""
    usable = [v for v in variables if v.minimum is not None and v.minimum != v.maximum]
    pair = [_at_level(v, *field) for field in BENCHMARK_FIELDS for v in usable]
    pair = [name for name in pair if name]
    if len(pair) == len(BENCHMARK_FIELDS):
        return tuple(pair), "the two fields of the WeatherBench benchmark"
    single = [v.name for v in usable if not v.levels]
    if single:
        few = len(single) <= MOST_CHANNELS
        which = "every field without levels" if few else f"the first {MOST_CHANNELS} fields"
        return tuple(single[:MOST_CHANNELS]), f"{which} whose values differ"
    middle = [f"{v.name}@{v.levels[len(v.levels) // 2]:.10g}" for v in usable if v.levels]
    if middle:
        return tuple(middle[:MOST_CHANNELS]), "the middle level of each field"
    return tuple(v.name for v in variables[:1]), "no field has values that differ"


def _at_level(variable: Variable, names: tuple[str, ...], levels: tuple[float, ...]) -> str:
    if variable.name.lower() not in names:
        return ""
    return next((f"{variable.name}@{v:.10g}" for v in variable.levels if v in levels), "")


# --- text for a terminal --------------------------------------------------------------------------


def render(description: Description) -> "RenderableType":
    """The description for a person at a terminal."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    rows = [_row(variable) for variable in description.variables]
    for heading in rows[0] if rows else ():
        if any(row[heading] for row in rows):
            wraps = heading == "variable"
            table.add_column(heading, overflow="fold", no_wrap=not wraps, min_width=22 * wraps)
    for row in rows:
        table.add_row(*(escape(row[str(column.header)]) for column in table.columns))
    head, tail = (map(escape, lines) for lines in (_extent(description), _findings(description)))
    return Group(*head, *([table] if rows else []), *tail)


def _row(v: Variable) -> dict[str, str]:
    has_range = v.minimum is not None
    plain, long = (re.sub(r"\W|_", "", text).lower() for text in (v.name, v.long_name))
    notes = [v.long_name] if long not in ("", plain) else []
    notes += [f"{len(v.levels)} levels {v.levels[0]:g}…{v.levels[-1]:g}"] if v.levels else []
    return {
        "variable": ": ".join([v.name, ", ".join(notes)] if notes else [v.name]),
        "units": v.units,
        "range": f"{v.minimum:.3g} … {v.maximum:.3g}" if has_range else "",
        "mean": f"{v.mean:.3g}" if has_range else "",
        "missing": str(v.missing) if v.frames_read else "",
    }


def _extent(d: Description) -> list[str]:
    """What it is, when and where."""
    size = f", {d.gib:.3g} GiB in {d.files} file{'s' * (d.files > 1)}" if d.scanned else ""
    lines = [f"{d.path}: {d.kind}{size}"]
    step = f", one every {_duration(d.step_seconds)}" if d.step_seconds else ""
    if d.frames:  # simulations have no dates
        dates = f", {d.first_time} to {d.last_time}, {d.calendar} calendar" if d.first_time else ""
        lines.append(f"{d.frames} frames{step}{dates}")
    if d.height:
        lines.append(f"{d.height} rows × {d.width} columns{_location(d)}")
    return lines


def _findings(d: Description) -> list[str]:
    """What is wrong with it, and what a recipe takes."""
    lines = [f"Ranges and missing values are over {d.scanned}."] if d.scanned else []
    lines += [f"Problem: {problem}" for problem in d.problems]
    if d.chosen:
        reason = f" ({d.reason})" if d.reason else ""
        lengths = f"; {d.past} past and {d.lead} future frames" if d.past else ""
        lines.append(f"Recipe: {', '.join(d.chosen)}{reason}{lengths}")
    if d.builtin_recipe:
        lines.append(f"Built-in recipe: {d.builtin_recipe}")
    return lines


def _duration(seconds: float) -> str:
    """In the largest unit that divides it, such as 6 h."""
    for unit, size in {"d": 86400, "h": 3600, "min": 60}.items():
        if seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _location(d: Description) -> str:
    if d.latitude is None or d.longitude is None:
        return ", not geographic"
    around = ", all the way round" if d.wraps else ""
    north, south = d.latitude
    west, east = d.longitude
    return f", latitude {north:g} to {south:g}, longitude {west:g} to {east:g}{around}"
