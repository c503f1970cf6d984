"""Result files: one JSON a training and split, from which every table and figure is made."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2kd.core.files import read_json, write_json, write_text
from s2kd.core.types import S2KDError

Row = Mapping[str, Any]

NEEDED = ("data", "preset", "variant", "backbone", "role", "method", "narrator", "seed", "split")
"""What every result file has, beside `metrics`, `scores`, `versions`, `hardware`, `fingerprint`
and the resolved recipe (`settings`)."""


def result_path(folder: Path, row: Row) -> Path:
    """Where this result lies: data/preset/variant/split/who.json."""
    who = f"{row['backbone']}-{row['method']}"
    if row["seed"] is not None:
        who += f"-seed{row['seed']}"
    return folder / row["data"] / row["preset"] / row["variant"] / row["split"] / f"{who}.json"


def save_result(folder: Path, row: Row) -> Path:
    """Write one result, with numbers of six digits and without the folders of this machine."""
    missing = [name for name in (*NEEDED, "metrics", "scores") if name not in row]
    if missing:
        raise S2KDError(f"a result without {', '.join(missing)}")
    path = result_path(folder, row)
    plain = _as_written(row)
    # one field a line: as easy to compare as an indented file, and half its size
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in plain.items()
    ]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return path


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Every result under `folder`, in the order of their paths."""
    if not folder.is_dir():
        raise S2KDError(f"{folder}: no folder of result files")
    rows = []
    for path in sorted(folder.glob("*/*/*/*/*.json")):
        row = read_json(path)
        missing = [name for name in (*NEEDED, "metrics") if name not in row]
        if missing:
            raise S2KDError(f"{path}: not a result file (it lacks {', '.join(missing)})")
        rows.append(row)
    return rows


def one_recipe(rows: Iterable[Row], *, but: Sequence[str] = ()) -> None:
    """Refuse rows to be compared that were made with different recipes, or on different data.

    Free are what a recipe lists to be compared (seeds, methods, students) and the fields of `but`;
    a student of one name must be the same student. Raises S2KDError naming two files and the first
    field that differs.
    """
    seen: dict[str, tuple[Any, Row]] = {}
    for row in rows:
        for field, value in _fixed(row, but).items():
            before, other = seen.setdefault(field, (value, row))
            if before != value:
                raise S2KDError(
                    f"{result_path(Path(), other)} was made with {field}={before}, "
                    f"{result_path(Path(), row)} with {field}={value}: not to be compared; "
                    "train again what is out of date, or move it away"
                )


def same_training(row: Row, wanted: Row) -> bool:
    """Whether a result is of the very training that `wanted` names, wherever that was.

    The same recipe, data and version of this program; of a student the same method too.
    """
    row, wanted = _as_written(row), _as_written(wanted)
    return (
        _fixed(row, ()) == _fixed(wanted, ())
        and row.get("versions", {}).get("s2kd") == wanted["versions"]["s2kd"]
        and _method(row) == _method(wanted)
    )


def _method(row: Row) -> dict[str, Any] | None:
    """The settings of a student's method."""
    methods = (row.get("settings") or {}).get("methods", [])
    found = (method for method in methods if method["name"] == row["method"])
    return next(found, None) if row["role"] == "student" else None


def _fixed(row: Row, but: Sequence[str]) -> dict[str, Any]:
    """What rows that are compared must share, by dotted name."""
    settings = row.get("settings") or {}
    free = ("seeds", "methods", "students", *but)
    found = {"fingerprint": row.get("fingerprint")}
    for name, value in settings.items():
        if name == "dataset":
            # data are the same by their fingerprint, whatever their folder is called
            params = {key: one for key, one in value["params"].items() if key != "path"}
            value = {**value, "params": params}
        if name not in free:
            inner = value if isinstance(value, dict) else {"": value}
            found |= {f"{name}.{key}".rstrip("."): one for key, one in inner.items()}
    for part in settings.get("students") or []:
        if part["name"] == row["backbone"] and row["role"] == "student":
            found[f"students.{part['name']}"] = part["params"]
    return found


def save_search(folder: Path, found: Row) -> Path:
    """Write what `s2kd sweep` came to, as the results are written."""
    parts = [found[part] for part in ("preset", "backbone", "method", "sampler")]
    name = "-".join([*parts, *found["axes"]]).lower()
    path = folder / "searches" / f"{name}.json"
    write_json(path, {**_short(dict(found)), "recipe": _without_folders(found["recipe"])})
    return path


def read_searches(folder: Path) -> dict[str, dict[str, Any]]:
    """Every search under `folder` by its name, in order."""
    found = {}
    for path in sorted((folder / "searches").glob("*.json")):
        search = read_json(path)
        if not isinstance(search, dict) or not {"trials", "axes", "preset"} <= set(search):
            raise S2KDError(f"{path}: not what `s2kd sweep` writes")
        found[path.stem] = search
    return found


def chosen(rows: Iterable[Row], **wanted: Any) -> list[dict[str, Any]]:
    """The rows whose fields are as wanted."""
    return [dict(row) for row in rows if all(row[name] == value for name, value in wanted.items())]


def _as_written(row: Row) -> dict[str, Any]:
    """A row as its file holds it."""
    return {**_short(dict(row)), "settings": _without_folders(_short(row.get("settings")))}


def _short(value: Any) -> Any:
    """Six significant digits are more than any score is worth, and a third of the size."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_short(inner) for inner in value]
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
