"""The repository's results: one NetCDF file per data set, preset and split, models along an axis.

`results/<data>-<preset>-<split>.nc` has the form that `evaluation.score` returns, along a dimension
`model` with the coordinates `FIELDS` (docs/scores.md).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock

from s2kd.core.errors import S2KDError
from s2kd.core.files import (
    Writer,
    check_seal,
    read_json,
    write_json,
    write_netcdf,
    write_sealed,
    write_whole,
)
from s2kd.core.recipe import completed

FIELDS = (
    "data", "preset", "variant", "split", "role", "backbone", "method", "seed", "narrator",
    "narrator_version", "reads_future", "parameters", "latency_ms", "validation", "key",
    "fingerprint", "recipe", "versions", "hardware", "latency",
)  # fmt: skip
"""Coordinates along `model`."""

SHARED = (
    "windows_by_run", "spectrum_truth", "observed", "event_cells", "rollout_persistence_mse",
    "rollout_climatology_mse", "rollout_climatology_variance",
)  # fmt: skip
"""Variables without the dimension `model`: they are of the truth, or of the references."""

EVENTS = ("below 0.5 %", "below 5 %", "above 95 %", "above 99.5 %")
"""Events that the repository's results keep; a run's own scores have all."""


def file_name(scores: xr.Dataset) -> str:
    """`<data>-<preset>-<split>.nc` of the first model."""
    return "-".join(str(scores[name].values[0]) for name in ("data", "preset", "split")) + ".nc"


def model_name(fields: Mapping[str, Any]) -> str:
    """`<variant>/<backbone>-<method>-seed<seed>`; neither variant nor seed where there is none."""
    name = f"{fields['backbone']}-{fields['method']}"
    if fields["seed"] not in (None, -1):
        name += f"-seed{fields['seed']}"
    return f"{fields['variant']}/{name}" if fields["variant"] else name


def describe_model(scores: xr.Dataset, **fields: Any) -> xr.Dataset:
    """The scores of one model with a dimension `model` of length 1 and its coordinates.

    `fields` are values of `FIELDS`; mappings are written as JSON, None as "", -1 (seed) or NaN. The
    variables of `SHARED` get no such dimension; all are in single precision.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise S2KDError(f"results: no field {', '.join(unknown)} (there are {', '.join(FIELDS)})")
    fields = {**dict.fromkeys(FIELDS), **fields}
    coordinates = {name: ("model", [_plain_field(name, fields[name])]) for name in FIELDS}
    dimensions = {name: variable.variable for name, variable in scores.coords.items()}
    name = model_name({**fields, "variant": fields["variant"] or ""})
    return xr.Dataset(
        _along_model(scores), {**dimensions, **coordinates, "model": [name]}, scores.attrs
    )


def _plain_field(name: str, value: Any) -> Any:
    match name:
        case "seed" | "parameters":
            return np.int64((-1 if name == "seed" else 0) if value is None else value)
        case "latency_ms" | "validation":
            return np.float64(np.nan if value is None else value)
        case "reads_future":
            return bool(value)
        case "narrator":
            return str(value or "none")
        case "recipe" | "versions" | "hardware" | "latency":
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        case _:
            return str(value or "")


def relabel(scores: xr.Dataset, **fields: Any) -> xr.Dataset:
    """A dataset of one model with other values of `FIELDS`, and its name from them."""
    coordinates = {name: ("model", [_plain_field(name, value)]) for name, value in fields.items()}
    scores = scores.assign_coords(coordinates)
    names = {name: scores[name].values[0] for name in ("variant", "backbone", "method", "seed")}
    return scores.assign_coords(model=[model_name(names)])


def with_variables(scores: xr.Dataset, more: xr.Dataset) -> xr.Dataset:
    """A dataset of one model with the variables and attributes of `more` (a roll-out) besides."""
    scores = scores.drop_vars([name for name in more.variables if name in scores.data_vars])
    return scores.assign(_along_model(more)).assign_attrs(more.attrs)


def without_roll_outs(scores: xr.Dataset) -> xr.Dataset:
    """The scores without the variables and attributes of roll-outs."""
    names = [name for name in scores.data_vars if str(name).startswith("rollout_")]
    attributes = {n: v for n, v in scores.attrs.items() if not n.startswith("rollout_")}
    scores = scores.drop_vars([*names, *(["step"] if "step" in scores.coords else [])])
    scores.attrs = attributes
    return scores


def _along_model(scores: xr.Dataset) -> dict[str, xr.DataArray]:
    """Variables in single precision, with the dimension `model` but for those of `SHARED`."""
    single = {name: _single(variable) for name, variable in scores.data_vars.items()}
    return {n: v if n in SHARED else v.expand_dims("model") for n, v in single.items()}


def _single(variable: xr.DataArray) -> xr.DataArray:
    """In single precision, where that holds values so small or large."""
    sizes, limits = np.abs(variable.values), np.finfo(np.float32)
    if variable.dtype != np.float64 or sizes[sizes > 0].min(initial=1) < limits.tiny:
        return variable
    return variable if sizes[sizes < np.inf].max(initial=1) > limits.max else variable.astype("f4")


def headline_rows(files: Iterable[xr.Dataset]) -> list[dict[str, Any]]:
    """One flat, JSON-able dict per model: who it is, and its scalar scores (NaN is None)."""
    texts = ("recipe", "versions", "hardware", "latency")
    rows = []
    for scores in files:
        scalar = [n for n, variable in scores.data_vars.items() if variable.dims == ("model",)]
        for model in each_model(scores):
            names = [*(name for name in FIELDS if name not in texts), *scalar]
            row = {name: _json_value(model[name].values[0]) for name in names}
            rows.append({**row, "seed": None if row["seed"] == -1 else row["seed"]})
    return rows


def _json_value(value: Any) -> Any:
    if isinstance(value, np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


# --- files ---------------------------------------------------------------------------------------


def read_results(folder: Path) -> dict[str, xr.Dataset]:
    """Every results file of `folder` by its name without `.nc`, in memory."""
    if not folder.is_dir():
        raise S2KDError(f"{folder}: no folder of result files")
    return {path.stem: read_scores(path) for path in sorted(folder.glob("*.nc"))}


def read_scores(path: Path) -> xr.Dataset:
    """One file of scores along `model`, in memory.

    Raises S2KDError where it is absent, no such file, or was altered.
    """
    if not path.exists():
        raise S2KDError(f"{path}: no such file")
    status = path.stat()
    return _read(path, (status.st_mtime_ns, status.st_ino)).copy()


@lru_cache(maxsize=16)
def _read(path: Path, version: tuple[int, int]) -> xr.Dataset:
    check_seal(path, "delete it, and `s2kd evaluate` makes it again")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            scores = file.load()
    except (OSError, ValueError, KeyError) as error:
        raise S2KDError(f"{path}: not readable as NetCDF ({error})") from None
    missing = [name for name in ("model", *FIELDS) if name not in scores.coords]
    if missing:
        raise S2KDError(f"{path}: not a file of scores (it lacks {', '.join(missing)})")
    for variable in scores.variables.values():
        variable.encoding = {}
    return scores


def save_result(folder: Path, scores: xr.Dataset) -> Path:
    """Add models of one file to the results in `folder`, in place of earlier ones of their names.

    Without the folders of this machine and errors of single windows and leads, and with the events
    of `EVENTS` alone.
    """
    scores = scores.isel(event=scores["event"].isin(EVENTS)) if "event" in scores.dims else scores
    recipes = [json.dumps(_without_folders(json.loads(text))) for text in scores["recipe"].values]
    scores = scores.assign_coords(recipe=("model", recipes))
    scores = scores.drop_vars("window_squared_error", errors="ignore")
    scores.attrs = {name: value for name, value in scores.attrs.items() if name != "measured"}
    path = folder / file_name(scores)
    add_models(path, scores, write_whole)  # the repository's files are under version control
    return path


def add_models(path: Path, scores: xr.Dataset, write: Writer = write_sealed) -> None:
    """Add models to a file, or begin it; safe where several processes write to the same file.

    Raises S2KDError where the file holds models that were scored on other test windows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):
        models = [scores]
        if path.exists():
            before = read_scores(path)
            before = before.isel(model=~before["model"].isin(scores["model"].values))
            models = [before, scores] if before.sizes["model"] else [scores]
        write_scores(path, join_models(models, source=str(path)), write)


def write_scores(path: Path, scores: xr.Dataset, write: Writer = write_sealed) -> None:
    """A whole file, compressed; texts as characters, since HDF5 does not compress strings."""
    encoding = {
        name: {"zlib": True, "complevel": 9, "shuffle": True}
        | ({"dtype": "S1"} if variable.dtype.kind in "UO" else {})
        for name, variable in scores.variables.items()
        if variable.ndim
    }
    write_netcdf(path, scores, encoding, write)


def join_models(parts: Sequence[xr.Dataset], *, source: str = "results") -> xr.Dataset:
    """Several datasets of the same windows one after the other along `model`.

    A variable that one of them lacks (a roll-out) is NaN there. Raises S2KDError naming the first
    convention, size or shared variable that differs.
    """
    first = parts[0]
    shared = first.drop_dims("model")
    attributes = dict(first.attrs)
    for part in parts[1:]:
        common = part.drop_dims("model")
        differs = [name for name in common if name in shared
                   and not common[name].variable.equals(shared[name].variable)]  # fmt: skip
        differs += [n for n, v in part.attrs.items() if not np.array_equal(attributes.get(n, v), v)]
        differs += [n for n, size in part.sizes.items()
                    if n not in ("model", "step") and first.sizes.get(n, size) != size]  # fmt: skip
        if differs:
            raise S2KDError(
                f"{source}: {part['model'].values[0]} was scored on other windows than "
                f"{first['model'].values[0]} ({', '.join(map(str, differs))} differ); score all "
                "models again, or move the file away"
            )
        shared = shared.assign(common.data_vars)
        attributes |= part.attrs
    along = [part.drop_vars([n for n in part if "model" not in part[n].dims]) for part in parts]
    models = xr.concat(
        along, "model", data_vars="all", coords="minimal", compat="override", join="outer"
    )
    return models.assign(shared.data_vars).assign_attrs(attributes)


# --- selection and comparison --------------------------------------------------------------------


def select(scores: xr.Dataset, **fields: Any) -> xr.Dataset:
    """The models whose coordinates have these values, by seed; of length 0 where there is none."""
    mask = np.ones(scores.sizes["model"], bool)
    for name, value in fields.items():
        mask &= scores[name].values == value
    places = np.flatnonzero(mask)
    return scores.isel(model=places[np.argsort(scores["seed"].values[places], kind="stable")])


def each_model(scores: xr.Dataset) -> Iterator[xr.Dataset]:
    """One dataset per model, `model` kept as a dimension of length 1."""
    for number in range(scores.sizes["model"]):
        yield scores.isel(model=[number])


def window_errors(scores: xr.Dataset) -> np.ndarray:
    """(model, window) normalised MSE; windows of one moment (`windows_per_time`) averaged.

    Parts of one scene share its weather or fire: together they are one window.
    """
    errors = scores["window_mse"].transpose("model", "window").values.astype(np.float64)
    return windows_of_moments(errors, scores)


def windows_of_moments(errors: np.ndarray, scores: xr.Dataset) -> np.ndarray:
    """(model, window, …) with the windows of one moment averaged."""
    per_time = int(scores.attrs.get("windows_per_time", 1))
    return errors.reshape(len(errors), per_time, -1, *errors.shape[2:]).mean(1)


def window_runs(scores: xr.Dataset) -> tuple[int, ...]:
    """Number of windows of each run, in order; () where all windows are of the same moments."""
    if "windows_by_run" not in scores or scores.attrs.get("windows_per_time", 1) > 1:
        return ()
    return tuple(scores["windows_by_run"].values.tolist())


def settings_of(scores: xr.Dataset) -> dict[str, Any]:
    """The recipe of a dataset of one model, as plain data."""
    return completed(json.loads(str(scores["recipe"].values[0])) or {})


def one_recipe(scores: xr.Dataset, *, free: Sequence[str] = ()) -> None:
    """Refuse models to be compared that were made with different recipes, or on different data.

    Free are what a recipe lists to be compared (seeds, methods, students) and the fields of
    `free`; a student of one name must be the same student. Raises S2KDError naming two models and
    the first field that differs.
    """
    values: dict[str, tuple[Any, str]] = {}
    for model in each_model(scores.drop_vars(list(scores.data_vars))):
        name = str(model["model"].values[0])
        for field, value in _fixed_fields(model, free).items():
            before, earlier = values.setdefault(field, (value, name))
            if before != value:
                raise S2KDError(
                    f"{file_name(model)}: {earlier} was made with {field}={before}, {name} with "
                    f"{field}={value}: not to be compared; train again what is out of date, or "
                    "remove it"
                )


def same_training(scores: xr.Dataset, recipe: Mapping[str, Any], version: str) -> bool:
    """Whether a dataset of one model comes from a training by this recipe and program version.

    Of a student the settings of its method count too; data are compared by `fingerprint`.
    """
    expected = scores.assign_coords(
        recipe=("model", [json.dumps(_without_folders(_six_digits(recipe)))])
    )
    return (
        _fixed_fields(scores, ()) == _fixed_fields(expected, ())
        and json.loads(str(scores["versions"].values[0])).get("s2kd") == version
        and _method(scores) == _method(expected)
    )


def _method(scores: xr.Dataset) -> dict[str, Any] | None:
    """The settings of a student's method."""
    if scores["role"].values[0] != "student":
        return None
    methods = settings_of(scores).get("methods", [])
    return next((m for m in methods if m["name"] == scores["method"].values[0]), None)


def _fixed_fields(scores: xr.Dataset, free: Sequence[str]) -> dict[str, Any]:
    """What models that are compared must share, by dotted name, of a dataset of one model."""
    settings = _six_digits(settings_of(scores))
    fixed: dict[str, Any] = {"fingerprint": str(scores["fingerprint"].values[0])}
    for name, value in settings.items():
        if name == "dataset":
            # data are the same by their fingerprint, whatever their folder is called
            params = {key: inner for key, inner in value["params"].items() if key != "path"}
            value = {**value, "params": params}
        if name not in ("seeds", "methods", "students", *free):
            parts = value if isinstance(value, dict) else {"": value}
            fixed |= {f"{name}.{key}".rstrip("."): inner for key, inner in parts.items()}
    for part in settings.get("students") or []:
        if part["name"] == scores["backbone"].values[0] and scores["role"].values[0] == "student":
            fixed[f"students.{part['name']}"] = part["params"]
    return fixed


# --- searches ------------------------------------------------------------------------------------


def save_search(folder: Path, search: Mapping[str, Any]) -> Path:
    """Write the result of `s2kd sweep`."""
    parts = [search[part] for part in ("preset", "backbone", "method", "sampler")]
    name = "-".join([*parts, *search["axes"]]).lower()
    path = folder / "searches" / f"{name}.json"
    write_json(path, {**_six_digits(search), "recipe": _without_folders(search["recipe"])})
    return path


def read_searches(folder: Path) -> dict[str, dict[str, Any]]:
    """Every search under `folder` by its name, in order."""
    searches = {}
    for path in sorted((folder / "searches").glob("*.json")):
        search = read_json(path)
        if not isinstance(search, dict) or not {"trials", "axes", "preset"} <= set(search):
            raise S2KDError(f"{path}: not what `s2kd sweep` writes")
        searches[path.stem] = search
    return searches


def _six_digits(value: Any) -> Any:
    """Numbers of six significant digits, tuples as lists."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _six_digits(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_six_digits(inner) for inner in value]
    return value


def _without_folders(value: Any) -> Any:
    """Files by their name alone: where they lay says nothing, and the fingerprint says what."""
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or "\\" in value):
        return Path(value).name
    return value
