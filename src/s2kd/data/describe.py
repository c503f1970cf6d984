"""What a file holds, what is wrong with it, and the dataset settings that fit."""

import dataclasses
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data import _series, datasets
from s2kd.data._array_runs import beside, runs_of
from s2kd.data._cf import Source, engine_of
from s2kd.data._known_arrays import LENGTHS
from s2kd.data._other import Known, recognise
from s2kd.data._record import missing_steps, remedy, shown, split, step_numbers, stretches
from s2kd.data._select import Fields, fields_of, levels_of, series_of
from s2kd.data._series import Series
from s2kd.data._values import Values
from s2kd.data._weatherbench import Field, field_named, open_years, published
from s2kd.data.weatherbench import BENCHMARK, fitting

if TYPE_CHECKING:
    from rich.console import RenderableType

SCANNED_BYTES = 2**30
"""How much is read at most for ranges and missing values; of more, an even sample."""

MOST_CHANNELS = 6
PAIR = (
    (("geopotential", "z"), (500.0, 50_000.0)),
    (("temperature", "t", "ta"), (850.0, 85_000.0)),
)
"""The two fields of the WeatherBench benchmark: names, and levels in hPa or Pa."""

KINDS = {"h5netcdf": "NetCDF-4", "scipy": "NetCDF-3", "zarr": "Zarr", "cfgrib": "GRIB"}


@dataclass(frozen=True, kw_only=True)
class DetectedLayout:
    """A layout recognised from file names and array keys.

    `reader` and its `settings` read it; `recipe` is the built-in recipe that fits, or "". `lines`
    state what lies there, `problems` what is wrong. `certain` is false for a guess, which any
    other reader's detection overrides.
    """

    reader: str
    settings: dict[str, Any]
    recipe: str = ""
    lines: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    certain: bool = True


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One field: what it is and, over what was read, its range in `units`.

    `missing` counts values that are not finite; `never` counts cells that are missing at every
    time read. `levels` are the entries of its further dimension, if it has one; `odd` says what
    looks wrong with its values.
    """

    name: str
    dims: tuple[str, ...]
    units: str = ""
    long_name: str = ""
    levels: tuple[float, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    missing: int = 0
    never: int = 0
    frames_read: int = 0
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is at `path`; `recipe_dataset` is the dataset part that reads it, or None.

    `problems` are sentences; `chosen` and `reason` say which variables the part takes and why;
    `past` and `lead` (frames) suit the length of the record, 0 where nothing does.
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
    chosen: tuple[str, ...] = ()
    reason: str = ""
    past: int = 0
    lead: int = 0
    recipe_dataset: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data."""
        return dataclasses.asdict(self)


def describe(path: Path | str) -> Description:
    """Look into a file, folder or pattern; only what cannot be read at all is an S2KDError.

    TaxiBJ, FDS, Prometheus and WeatherBench layouts are told by their names and keys; anything else
    must be NetCDF, Zarr or GRIB.
    """
    path = str(path)
    folders = published(Path(path).expanduser())
    if folders:
        return _of_weatherbench(path, folders)
    known = recognise(Path(path).expanduser())
    if known is not None:
        return _of_other(path, known)
    return _gridded(path, fields_of(path))


def _of_other(path: str, known: Known) -> Description:
    if known.part == "arrays":
        return _of_arrays(path, known)
    installed = known.part in datasets.names()
    absent = f"no dataset part {known.part!r} is installed" if known.part else ""
    return Description(
        path=path,
        kind=known.kind,
        variables=tuple(Variable(name=n, dims=d) for n, d in known.arrays.items()),
        frames=known.frames,
        step_seconds=known.step_seconds,
        height=known.height,
        width=known.width,
        problems=known.problems
        + (() if installed else (absent or "no dataset part reads this layout",)),
        reason=known.reason,
        past=known.past,
        lead=known.past,
        recipe_dataset={"name": known.part, "params": known.params}
        if installed and known.ready
        else None,
    )


def _of_arrays(path: str, known: Known) -> Description:
    """Arrays whose axes are guessed: their values are read as those of other files are."""
    file = Path(path).expanduser()
    problems, measured, sampled = list(known.problems), {}, False
    try:
        measured, sampled = _channels_of(file, known)
    except S2KDError as error:
        problems.append(str(error))
    key = known.params.get("key", "") or file.stem
    variables = []
    for name, dims in known.arrays.items():
        own = measured if name == key else {}
        variables += [
            _variable(f"{name}: {channel}" if len(own) > 1 else name, values, dims=dims)
            for channel, values in own.items()
        ] or [Variable(name=name, dims=dims)]
    looked = [v for v in variables if v.frames_read]
    params = known.params | _missing([v for v in looked if v.missing])
    times = known.times
    dated = times is not None
    return Description(
        path=path,
        kind=known.kind,
        gib=round(_size(file) / 2**30, 4),
        variables=tuple(variables),
        frames=known.frames,
        first_time=shown(times[0]) if dated else "",
        last_time=shown(times[-1]) if dated else "",
        step_seconds=known.step_seconds,
        calendar="standard" if dated else "",
        height=known.height,
        width=known.width,
        latitude=_ends(file, known.params.get("latitude", ""), falling=True),
        longitude=_ends(file, known.params.get("longitude", ""), falling=False),
        scanned=_scanned(sampled=sampled) if looked else "",
        problems=(*problems, *_of_values(looked), *(_of_times(times, EVEN) if dated else ())),
        reason=known.reason,
        past=known.past,
        lead=known.past,
        recipe_dataset={"name": known.part, "params": params} if known.ready else None,
    )


def _channels_of(file: Path, known: Known) -> tuple[dict[str, Values], bool]:
    """What each channel holds, and whether only an even sample was read.

    What must be unpacked is so into a folder that goes again: looking leaves nothing behind.
    """
    with tempfile.TemporaryDirectory(prefix="s2kd-") as cache:
        runs = runs_of(
            file,
            keys=[known.params.get("key", "")],
            layout=known.params["layout"],
            time="",
            start=None,
            step_seconds=1.0,
            cache=cache,
        )
        frames, count = runs[0].shape[:2]
        found = {f"channel_{n}": Values() for n in range(count)}
        frame = 4 * int(np.prod(runs[0].shape[1:]))
        size = max(1, min(frames, _series.BLOCK_BYTES // frame))
        blocks = -(-frames // size)
        affordable = max(1, SCANNED_BYTES // (frame * size * len(runs)))
        chosen = np.unique(np.linspace(0, blocks - 1, min(blocks, affordable)).astype(int))
        for run in runs:
            for first in size * chosen:
                block = run.raw(int(first), min(int(first) + size, frames))
                for n, values in enumerate(found.values()):
                    values.see(block[:, n : n + 1])
        return found, len(chosen) < blocks


def _ends(file: Path, key: str, *, falling: bool) -> tuple[float, float] | None:
    """The outermost degrees under this key, in the order that the data set will have."""
    if not key:
        return None
    degrees = beside(file, key)[1]
    ends = float(degrees.min()), float(degrees.max())
    return ends[::-1] if falling else ends


def _scanned(*, sampled: bool) -> str:
    return "an even sample of the frames" if sampled else "every frame"


def _gridded(path: str, fields: Fields) -> Description:
    files = list(dict.fromkeys(source.path for source, _ in fields))
    whole = _whole_variables(path, fields)
    problems = [found for found in whole.values() if isinstance(found, str)]
    series = {name: found for name, found in whole.items() if isinstance(found, Series)}
    if not series:
        raise S2KDError(problems[0])
    kind = ", ".join(sorted({KINDS[engine_of(file)] for file in files}))
    found = _looked_at(path, kind, files, series)
    problems += [words for file in files for words in _of_chunks(file, series)]
    problems += [words for name, one in series.items() for words in _of_layout(name, one)]
    chosen, reason = _choose(found.variables)
    past, params, part = 0, {}, "netcdf"
    try:
        past, params = _fit(path, series_of(path, fields, chosen), found.variables)
        if _is_weatherbench2(files, found):
            times = next(iter(series.values())).times
            params, part, past = fitting(path, BENCHMARK, times), "weatherbench", 4
            chosen, reason = BENCHMARK, _benchmark(path, params)
    except S2KDError as error:
        told = str(error) in problems or _uneven(next(iter(series.values())).times)
        problems += [] if told else [str(error)]
    return dataclasses.replace(
        found,
        problems=found.problems + tuple(problems),
        chosen=chosen,
        reason=reason,
        past=past,
        lead=past,
        recipe_dataset={"name": part, "params": params} if past else None,
    )


def _is_weatherbench2(files: Sequence[Path], found: Description) -> bool:
    """A Zarr store of the whole globe with the benchmark's two fields, several times a day."""
    if len(files) > 1 or engine_of(files[0]) != "zarr" or not found.wraps:
        return False
    held = {f"{v.name}@{level:.10g}" for v in found.variables for level in v.levels}
    held |= {field_named(v.name).channel for v in found.variables if not v.levels}
    return set(BENCHMARK) <= held and 0 < found.step_seconds <= 12 * 3600


def _of_weatherbench(path: str, folders: Mapping[Path, Field]) -> Description:
    """WeatherBench's folders: each is one variable, in a file a year."""
    series, problems = {}, []
    for folder in folders:
        try:
            whole = _whole_variables(str(folder), open_years(folder))
        except S2KDError as error:
            whole = {folder.name: str(error)}
        problems += [found for found in whole.values() if isinstance(found, str)]
        readable = [one for one in whole.values() if isinstance(one, Series)]
        if readable:
            series[folder.name] = readable[0]
    if not series:
        raise S2KDError(problems[0])
    files = [file for one in series.values() for file in one.files]
    found = _looked_at(path, "WeatherBench folder", files, series)
    names = [
        _channels(series[folder.name], f) for folder, f in folders.items() if folder.name in series
    ]
    both = set(BENCHMARK) <= {channel for several in names for channel in several}
    middle = tuple(several[len(several) // 2] for several in names)
    chosen = BENCHMARK if both else middle[:MOST_CHANNELS]
    past, params = 0, {}
    try:
        params = fitting(path, chosen, next(iter(series.values())).times)
        past = 4
    except S2KDError as error:
        problems += [] if str(error) in problems else [str(error)]
    return dataclasses.replace(
        found,
        problems=found.problems + tuple(problems),
        chosen=chosen,
        reason=_benchmark(path, params) if both else "the middle level of what the folders hold",
        past=past,
        lead=past,
        recipe_dataset={"name": "weatherbench", "params": params} if past else None,
    )


def _channels(series: Series, field: Field) -> list[str]:
    """What a folder holds: one channel, or one a level."""
    piece = series.readers[0].pieces[0]
    extra = piece.axes.extra if not field.level else ()
    levels = levels_of(piece.source, piece.variable, piece.axes) if extra else []
    return [f"{field.name}@{level:.10g}" for level in levels] or [field.channel]


def _benchmark(path: str, params: Mapping[str, Any]) -> str:
    """Where all of the benchmark's years are there, its own experiment is a word."""
    whole = params and "train" not in params
    official = f"; at the paper's size: s2kd run weatherbench --data {shlex.quote(path)} --out DIR"
    return "the two fields of the WeatherBench benchmark" + official * bool(whole)


def _looked_at(
    path: str, kind: str, files: Sequence[Path], series: Mapping[str, Series]
) -> Description:
    """Ranges, times and grid of variables by name, and what is wrong with these."""
    budget = SCANNED_BYTES // len(series)
    variables = tuple(_look(name, one, budget) for name, one in series.items())
    first = next(iter(series.values()))
    sampled = [v for v in variables if v.frames_read < len(series[v.name].times)]
    plane = first.plane
    return Description(
        path=path,
        kind=kind,
        files=len(files),
        gib=round(sum(map(_size, files)) / 2**30, 4),
        variables=variables,
        frames=len(first.times),
        first_time=shown(first.times[0]),
        last_time=shown(first.times[-1]),
        step_seconds=missing_steps(first.times).step_seconds,
        calendar="standard" if first.times.dtype != object else str(first.times[0].calendar),
        height=plane.height,
        width=plane.width,
        latitude=None if plane.latitude is None else (plane.latitude[0], plane.latitude[-1]),
        longitude=None if plane.longitude is None else (plane.longitude[0], plane.longitude[-1]),
        wraps=plane.wraps,
        scanned=_scanned(sampled=bool(sampled)),
        problems=(*_of_values(variables), *_of_times(first.times)),
    )


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _whole_variables(path: str, fields: Fields) -> dict[str, Series | str]:
    """Every variable as a series of all its levels; a sentence where it cannot be one."""
    found: dict[str, Series | str] = {}
    for source, axes in fields:
        for name in axes:
            if name not in found:
                levels = levels_of(source, name, axes[name]) if axes[name].extra else []
                names = [f"{name}@{level:.10g}" for level in levels] or [name]
                try:
                    found[name] = series_of(path, fields, names)
                except S2KDError as error:
                    found[name] = str(error)
    return found


def _look(name: str, series: Series, budget: int) -> Variable:
    """One pass over the variable, or over an even sample of its stored chunks."""
    index = _sample(series, budget)
    values = Values()
    for block in series.blocks(index):
        values.see(block)
    piece = series.readers[0].pieces[0]
    source, held, axes = piece.source, piece.variable, piece.axes
    return _variable(
        name,
        values,
        dims=tuple(map(str, source.data[held].dims)),
        units=series.units[0],
        long_name=_long_name(source, held),
        levels=tuple(levels_of(source, held, axes)) if axes.extra else (),
    )


def _variable(name: str, values: Values, **known: Any) -> Variable:
    return Variable(
        name=name,
        minimum=values.minimum,
        maximum=values.maximum,
        mean=values.mean,
        missing=values.missing,
        never=values.never,
        frames_read=values.frames,
        odd=values.odd(),
        **known,
    )


def _long_name(source: Source, name: str) -> str:
    held = source.data[name].attrs
    return str(held.get("long_name") or held.get("standard_name") or "")


def _sample(series: Series, budget: int) -> np.ndarray:
    """All frames, or evenly spread runs of one stored chunk each, of about `budget` bytes."""
    frames = len(series.times)
    affordable = max(1, budget // (4 * int(np.prod(series.shape[1:]))))
    if affordable >= frames:
        return np.arange(frames)
    chunk = min(series.readers[0].pieces[0].time_chunk, affordable)
    starts = np.linspace(0, frames // chunk - 1, max(1, affordable // chunk)).astype(int) * chunk
    return np.unique((starts[:, None] + np.arange(chunk)).ravel())


def _of_values(variables: Sequence[Variable]) -> list[str]:
    problems = []
    for v in variables:
        if v.minimum is None:
            problems.append(f"{v.name!r} is missing at every time and place")
        elif v.missing:
            always = f", {v.never} cells at every time" if v.never else ""
            problems.append(f"{v.name!r} has {v.missing} missing values{always}")
        elif v.minimum == v.maximum:
            problems.append(f"{v.name!r} is {v.minimum:g} at every time and place")
        problems += [f"{v.name!r} {words}" for words in v.odd]
    return problems


EVEN = "; bring the frames to even steps of time"
"""What to do about times of an array, which xarray's own ways out do not fit."""


def _of_times(times: np.ndarray, uneven: str = "") -> list[str]:
    """What is wrong with them; `uneven` is the way out where they lie between steps."""
    found, problems = missing_steps(times), []
    uneven = uneven or (remedy(times) if len(found.between) else "")
    order = "; sort the file by time and drop repeated times"
    for numbers, words, way_out in (
        (found.repeated, "times repeat the one before", order),
        (found.backwards, "times lie before the one that precedes them", order),
        (found.between, "times lie between steps", uneven),
    ):
        if len(numbers):
            first = shown(times[numbers[0]])
            problems.append(f"{len(numbers)} {words}, the first is {first}{way_out}")
    if len(found.gaps):
        places = [f"{shown(times[i - 1])} to {shown(times[i])}" for i in found.gaps[:3]]
        more = f" and {len(found.gaps) - 3} more" if len(found.gaps) > 3 else ""
        problems.append(
            f"{found.missing} times are missing in {len(found.gaps)} gaps "
            f"({', '.join(places)}{more}); no window bridges them"
        )
    return problems


def _uneven(times: np.ndarray) -> bool:
    """Whether `_of_times` names what no window can be cut from."""
    found = missing_steps(times)
    return any(len(numbers) for numbers in (found.repeated, found.backwards, found.between))


def _of_chunks(path: Path, names: Iterable[str]) -> list[str]:
    """Chunks that a Zarr store lacks: never written, or lost in copying; both read as one value."""
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


def _of_layout(name: str, series: Series) -> list[str]:
    """Chunks so long in time that no block holds one: each is unpacked again for every block."""
    chunk = series.readers[0].pieces[0].time_chunk
    frame = 4 * int(np.prod(series.shape[1:]))
    if chunk * frame <= 4 * _series.BLOCK_BYTES:
        return []
    return [
        f"{name!r} is stored {chunk} frames to a chunk, which is slow to read in order of time; "
        f"store it with at most {max(1, 4 * _series.BLOCK_BYTES // frame)} to a chunk"
    ]


def _choose(variables: Sequence[Variable]) -> tuple[tuple[str, ...], str]:
    """The benchmark's two fields where the file has them, else the single-level ones."""
    usable = [v for v in variables if v.minimum is not None and v.minimum != v.maximum]
    pair = [_at_level(v, *wanted) for wanted in PAIR for v in usable]
    pair = [name for name in pair if name]
    if len(pair) == len(PAIR):
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


def _fit(path: str, series: Series, variables: Sequence[Variable]) -> tuple[int, dict[str, Any]]:
    """The longest past (and lead) that leaves enough windows in every split, and the settings."""
    _, numbers = step_numbers(path, series.times)
    unbroken = stretches(numbers, 1)
    no_dates = {"train": (), "val": (), "test": ()}
    for past in LENGTHS:
        try:
            splits = split(
                path,
                series.times,
                unbroken,
                ranges=no_dates,
                fractions=(0.75, 0.1, 0.15),
                gap=2 * past,
            )
        except S2KDError:
            continue
        windows = {
            k: sum(max(0, s.stop - s.first - 2 * past + 1) for s in v) for k, v in splits.items()
        }
        if windows["train"] >= 20 and min(windows["val"], windows["test"]) >= 2:
            params = {"path": path, "variables": list(series.channels), "gap": 2 * past}
            return past, params | _further(series, variables)
    raise S2KDError(
        f"{path}: {len(series.times)} frames are too few to train, validate and test on, "
        "even one frame ahead"
    )


def _further(series: Series, variables: Sequence[Variable]) -> dict[str, Any]:
    """Settings that differ from their defaults."""
    named = {channel.rpartition("@")[0] or channel for channel in series.channels}
    used = [v for v in variables if v.name in named and v.missing]
    return _missing(used) | ({} if series.plane.latitude else {"domain": "generic"})


def _missing(lacking: Sequence[Variable]) -> dict[str, Any]:
    """The setting that copes with these fields' missing values."""
    if not lacking:
        return {}
    only_never = all(v.missing == v.never * v.frames_read for v in lacking)
    return {"missing": "mask" if only_never else "fill"}


def render(description: Description) -> "RenderableType":
    """The description for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    d = description
    table = Table()
    rows = [_row(v) for v in d.variables]
    for heading in rows[0] if rows else ():
        if any(row[heading] for row in rows):
            table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(row[str(column.header)]) for column in table.columns))
    return Group(escape(f"{d.path}: {d.kind}"), *([table] if rows else []), *map(escape, _lines(d)))


def _row(v: Variable) -> dict[str, str]:
    levels = f", {len(v.levels)} levels {v.levels[0]:g}…{v.levels[-1]:g}" if v.levels else ""
    known = v.minimum is not None
    return {
        "variable": v.name,
        "axes": ", ".join(v.dims) + levels,
        "units": v.units,
        "range": f"{v.minimum:.6g} … {v.maximum:.6g}" if known else "",
        "mean": f"{v.mean:.6g}" if known else "",
        "missing": str(v.missing) if v.frames_read else "",
        "what it is": v.long_name,
    }


def _lines(d: Description) -> list[str]:
    lines = []
    if d.frames:
        step = f", one every {d.step_seconds:g} s" if d.step_seconds else ""
        grid = f"grid: {d.height} × {d.width} (rows × columns){_place(d)}"
        if not d.first_time:  # simulations, which have no dates
            lines += [f"frames: {d.frames}{step}", grid]
    if d.first_time:
        lines += [
            f"times: {d.frames}, {d.first_time} to {d.last_time}{step}, {d.calendar} calendar",
            grid,
        ]
    if d.scanned:
        lines.append(
            f"size: {d.gib:.3g} GiB in {d.files} file{'s' * (d.files > 1)}; ranges and missing "
            f"values are over {d.scanned}"
        )
    lines += [f"problem: {problem}" for problem in d.problems]
    if d.chosen:
        lines.append(f"chosen: {', '.join(d.chosen)} ({d.reason})")
    elif d.reason:
        lines.append(d.reason)
    if d.recipe_dataset:
        lines.append(f"dataset part: {d.recipe_dataset['name']} {d.recipe_dataset['params']}")
    if d.past:
        lines.append(f"suggested: {d.past} past and {d.lead} future frames")
    return lines


def _place(d: Description) -> str:
    if d.latitude is None or d.longitude is None:
        return ", not geographic"
    around = ", all the way round" if d.wraps else ""
    north, south = d.latitude
    west, east = d.longitude
    return f", latitude {north:g} to {south:g}, longitude {west:g} to {east:g}{around}"
