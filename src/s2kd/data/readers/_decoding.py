"""Decoding of opened datasets beyond CF: attributes, dates of any unit and calendar, texts."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data.dates import counted_dates, read_dates

if TYPE_CHECKING:
    import xarray as xr

TEXTS = (
    "title", "source", "institution", "history", "units", "calendar", "axis", "coordinates",
    "grid_mapping", "standard_name", "long_name", "cell_methods",
)  # fmt: skip
"""Attributes that are text by CF."""
YEAR_0 = ", by the proleptic Gregorian calendar, which has a year 0, unless it names another"


def decoded(raw: "xr.Dataset") -> "xr.Dataset":
    """A dataset as stored: missing values, packing, coordinates, then as `conformed`."""
    import xarray as xr

    return conformed(xr.decode_cf(_with_plain_attributes(raw), decode_times=False))


def conformed(dataset: "xr.Dataset") -> "xr.Dataset":
    """Numbers with units "… since …", and dates as text or as YYYYMMDD, become dates.

    Other texts become `str`. A date that is missing becomes NaT (None in calendars of cftime);
    numbers in units that name no date stay as they are. A dimension of names becomes one variable
    per name. The attribute `notices` holds sentences on what was assumed.
    """
    dataset, notices = _with_plain_attributes(dataset), []
    for name, variable in dataset.variables.items():
        texts = _texts(variable)
        dates, form = _dates(str(name), variable if texts is None else texts)
        if dates is not None:
            attributes = {k: v for k, v in variable.attrs.items() if k not in ("units", "calendar")}
            dataset = dataset.assign_coords({name: (variable.dims, dates, attributes)})
            notices += [f"{str(name)!r} is read as {form}"] if form else []
        elif texts is not None and name in dataset.coords:
            dataset = dataset.assign_coords({name: texts})
    dataset = _one_variable_per_name(dataset)
    return dataset.assign_attrs(notices=(*dataset.attrs.get("notices", ()), *notices))


# --- attributes and texts -------------------------------------------------------------------------


def _with_plain_attributes(dataset: "xr.Dataset") -> "xr.Dataset":
    dataset = dataset.copy()
    for item in (dataset, *dataset.variables.values()):
        attributes = {str(key): value for key, value in item.attrs.items() if value is not None}
        item.attrs = {key: _plain(key, value) for key, value in attributes.items()}
    return dataset


def _plain(key: str, value: Any) -> Any:
    """Text as one `str` in UTF-8, the distinct ones of a list joined; other values as they are."""
    if isinstance(value, bytes | str):
        content = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content.decode("latin-1")
    if isinstance(value, bool | dict):  # of JSON, which NetCDF has not
        return str(value)
    items = np.ravel(np.asarray(value, dtype=object)).tolist()
    if key in TEXTS or (items and all(isinstance(item, bytes | str) for item in items)):
        return " ".join(dict.fromkeys(str(_plain("", item)) for item in items))
    return value


def _texts(variable: "xr.Variable") -> "xr.Variable | None":
    """With bytes as `str`; None where anything else is in it."""
    is_text = variable.dtype.kind in "SUO"
    values = variable.values if is_text else np.zeros(0)
    if not is_text or not all(isinstance(text, bytes | str) for text in values.flat):
        return None
    texts = np.array([_plain("", text).strip(" \0") for text in values.flat], str)
    return variable.copy(data=texts.reshape(values.shape))


def _one_variable_per_name(dataset: "xr.Dataset") -> "xr.Dataset":
    """Fields along a dimension whose only coordinate is text, split by its entries."""
    for dim in dataset.dims:
        along = [_texts(v) for v in dataset.variables.values() if v.dims == (dim,)]
        fields = [n for n, a in dataset.data_vars.items() if dim in a.dims and a.ndim > 3]
        if not fields or not along or any(texts is None for texts in along):
            continue
        for name in fields:
            for number, label in enumerate(along[0].values.tolist()):
                unique = f"{name}_{label}" if label in dataset or len(fields) > 1 else label
                dataset[unique] = dataset[name].isel({dim: number}, drop=True)
            dataset = dataset.drop_vars(name)
    return dataset


# --- dates ----------------------------------------------------------------------------------------


def _dates(name: str, variable: "xr.Variable") -> tuple[np.ndarray | None, str]:
    """The dates that a variable counts or spells (None: neither), and what was assumed."""
    units = str(variable.attrs.get("units", ""))
    is_count = " since " in units.lower() and variable.ndim < 3
    is_number = variable.dtype.kind in "iuf"
    is_time = "time" in (name.lower(), variable.attrs.get("standard_name"))
    try:
        if is_number and is_count:
            calendar = str(variable.attrs.get("calendar", ""))
            dates = counted_dates(variable.values, name, units, calendar)
            has_year_0 = re.search(r"since\s+0+-", units.lower())
            return dates, f"{units}{YEAR_0}" if has_year_0 else ""
        if variable.ndim < 2 and ((is_time and is_number) or variable.dtype.kind == "U"):
            dates, form = read_dates(np.atleast_1d(variable.values), name)
            if form.startswith("%") or not is_number:
                return dates.reshape(variable.shape), f"dates {form}" if form else ""
    except S2KDError:
        pass  # the file holds no dates there
    return None, ""
