"""Decoding of opened datasets beyond CF: attributes, dates of any unit and calendar, texts."""

import datetime
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data.dates import read_dates

if TYPE_CHECKING:
    import xarray as xr

TEXTS = (
    "title", "source", "institution", "history", "units", "calendar", "axis", "coordinates",
    "grid_mapping", "standard_name", "long_name", "cell_methods",
)  # fmt: skip
"""Attributes that are text by CF."""
CALENDARS = {
    "": "standard", "gregorian": "standard", "prolepticgregorian": "proleptic_gregorian",
    **dict.fromkeys(("360", "360day", "360days", "thirtydaymonths"), "360_day"),
    **dict.fromkeys(("365", "365day", "365days", "noleap", "nonleap"), "noleap"),
    **dict.fromkeys(("366", "366day", "366days", "allleap"), "all_leap"),
}  # fmt: skip
"""Calendars by other spellings, in lower-case letters and digits."""
SINCE = re.compile(r"\s*([a-z]+)\s+since\s+(\S.*)", re.IGNORECASE)
MONTHS = {
    **dict.fromkeys(("month", "months", "mon", "mons"), 1),
    **dict.fromkeys(("year", "years", "yr", "yrs"), 12),
}


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
        if variable.dtype.kind in "SUO":
            values = _as_text(variable.values)
            dates, form = _read_dates(values), ""
        else:
            values, (dates, form) = None, _dates(str(name), variable)
        if dates is not None:
            attributes = {k: v for k, v in variable.attrs.items() if k not in ("units", "calendar")}
            dataset = dataset.assign_coords({name: (variable.dims, dates, attributes)})
            notices += [f"{str(name)!r} is read as {form}"] if form else []
        elif values is not None and name in dataset.coords:
            dataset = dataset.assign_coords({name: (variable.dims, values, variable.attrs)})
    dataset = _one_variable_per_name(dataset)
    return dataset.assign_attrs(notices=(*dataset.attrs.get("notices", ()), *notices))


# --- attributes and texts -------------------------------------------------------------------------


def _with_plain_attributes(dataset: "xr.Dataset") -> "xr.Dataset":
    dataset = dataset.copy()
    for item in (dataset, *dataset.variables.values()):
        item.attrs = {str(key): _plain(str(key), value) for key, value in item.attrs.items()}
    return dataset


def _plain(key: str, value: Any) -> Any:
    """Text as one `str` in UTF-8, the distinct ones of a list joined; other values as they are."""
    if isinstance(value, bytes | str):
        content = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content.decode("latin-1")
    items = np.ravel(np.asarray(value, dtype=object)).tolist()
    if key in TEXTS or (items and all(isinstance(item, bytes | str) for item in items)):
        return " ".join(dict.fromkeys(str(_plain("", item)) for item in items))
    return value


def _as_text(values: np.ndarray) -> np.ndarray:
    """With bytes as `str`; objects of other kinds as they are."""
    if values.dtype.kind == "U" or not all(isinstance(v, bytes | str) for v in values.flat):
        return values
    return np.array([_plain("", text) for text in values.flat], str).reshape(values.shape)


def _one_variable_per_name(dataset: "xr.Dataset") -> "xr.Dataset":
    """Fields along a dimension whose only coordinate is text, split by its entries."""
    for dim in dataset.dims:
        along = [v for v in dataset.variables.values() if v.dims == (dim,)]
        fields = [n for n, a in dataset.data_vars.items() if dim in a.dims and a.ndim > 3]
        if not fields or not along or any(v.dtype.kind not in "SUO" for v in along):
            continue
        labels = _as_text(along[0].values).astype(str).tolist()
        for name in fields:
            for number, label in enumerate(labels):
                unique = f"{name}_{label}" if label in dataset or len(fields) > 1 else label
                dataset[unique] = dataset[name].isel({dim: number}, drop=True)
            dataset = dataset.drop_vars(name)
    return dataset


# --- dates ----------------------------------------------------------------------------------------


def _dates(name: str, variable: "xr.Variable") -> tuple[np.ndarray | None, str]:
    """The dates that a variable counts (None: it counts none), and what was assumed."""
    if variable.dtype.kind not in "iuf" or variable.ndim > 2:
        return None, ""
    attributes = variable.attrs
    units = SINCE.fullmatch(str(attributes.get("units", "")))
    if units is None:
        is_time = "time" in (name.lower(), attributes.get("standard_name"))
        dates = _read_dates(variable.values) if is_time and variable.ndim == 1 else None
        return dates, "dates YYYYMMDD"
    unit, origin = units[1].lower(), units[2].strip()
    spelling = str(attributes.get("calendar", ""))
    calendar = CALENDARS.get(re.sub("[^a-z0-9]", "", spelling.lower()), spelling)
    form = ""
    if calendar == "standard" and re.match("0+-", origin):
        calendar = "proleptic_gregorian"
        form = f"{units[0]} in the proleptic Gregorian calendar, which has a year 0"
    missing = ~np.isfinite(variable.values)
    numbers = np.where(missing, 0, variable.values)
    try:
        if unit in MONTHS:
            numbers = _microseconds(numbers * MONTHS[unit], origin, calendar)
            unit, origin = "microseconds", "1970-01-01"
        dates = _decoded_dates(numbers, f"{unit} since {origin}", calendar)
    except (ValueError, OverflowError, ArithmeticError):  # no unit, date or calendar
        return None, ""
    dates[missing] = np.datetime64("NaT") if dates.dtype.kind == "M" else None
    return dates, form


def _read_dates(values: np.ndarray) -> np.ndarray | None:
    """Dates that are written out, or None."""
    try:
        dates, form = read_dates(np.atleast_1d(values), "")
    except (S2KDError, ValueError):
        return None
    is_date = values.dtype.kind not in "iuf" or form.startswith("%")
    return dates.reshape(values.shape) if is_date else None


def _decoded_dates(numbers: np.ndarray, units: str, calendar: str) -> np.ndarray:
    import xarray as xr

    dims = tuple(f"axis{number}" for number in range(numbers.ndim))
    counted = xr.Variable(dims, numbers, {"units": units, "calendar": calendar})
    return np.array(xr.conventions.decode_cf_variable("time", counted).values)


def _microseconds(months: np.ndarray, origin: str, calendar: str) -> np.ndarray:
    """Microseconds since 1970 of dates so many calendar months after `origin`.

    A fraction is one of the days of that month; a day that the month lacks is its last.
    """
    import cftime

    start = cftime.num2date(
        0, f"days since {origin}", calendar=calendar, only_use_cftime_datetimes=True
    )
    dates = []
    for count in np.ravel(months).tolist():
        passed = int(np.floor(count + 1e-6))
        year, month = divmod(12 * start.year + start.month - 1 + passed, 12)
        first = start.replace(year=year, month=month + 1, day=1)
        length = first.daysinmonth
        days = min(start.day, length) - 1 + max(0.0, round(count - passed, 6)) * length
        dates.append(first + datetime.timedelta(days=days))
    counts = cftime.date2num(dates, "microseconds since 1970-01-01", calendar=calendar)
    return np.asarray(counts, np.int64).reshape(months.shape)
