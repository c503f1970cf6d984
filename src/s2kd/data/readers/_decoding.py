"""Decoding of opened datasets beyond CF: attributes, dates of any unit and calendar, texts."""

import datetime
import re
from typing import TYPE_CHECKING, Any

import numpy as np

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
DATE = re.compile(r"\d{4}-\d\d-\d\d([ T_]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?Z?")


def decoded(raw: "xr.Dataset") -> "xr.Dataset":
    """A dataset as stored: missing values, packing, coordinates, then as `conformed`."""
    import xarray as xr

    return conformed(xr.decode_cf(_with_plain_attributes(raw), decode_times=False))


def conformed(dataset: "xr.Dataset") -> "xr.Dataset":
    """Numbers with units "… since …", and dates as text, become dates; texts become `str`.

    A date that is missing becomes NaT (None in calendars of cftime); numbers in units that name no
    date stay as they are. A dimension of names becomes one variable per name. The attribute
    `notices` holds sentences on what was assumed.
    """
    dataset, notices = _with_plain_attributes(dataset), []
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "SO" and name in dataset.coords:
            dataset = dataset.assign_coords({name: (variable.dims, *_as_text(variable))})
    for name, variable in dataset.variables.items():
        dates, notice = _dates(variable)
        if dates is not None:
            dataset = dataset.assign_coords({name: (variable.dims, dates, variable.attrs)})
            for key in ("units", "calendar"):
                dataset[name].attrs.pop(key, None)
            notices += [f"{str(name)!r} {notice}"] if notice else []
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


def _as_text(variable: "xr.Variable") -> tuple[np.ndarray, dict[str, Any]]:
    """Values with bytes as `str`, and attributes."""
    values = variable.values
    texts = [_plain("", v) if isinstance(v, bytes) else v for v in values.ravel().tolist()]
    is_text = all(isinstance(text, str) for text in texts)
    array = np.array(texts, dtype=None if is_text else object)
    return array.reshape(values.shape), variable.attrs


def _one_variable_per_name(dataset: "xr.Dataset") -> "xr.Dataset":
    """Fields along a dimension whose only coordinate is text, split by its entries."""
    for dim in dataset.dims:
        along = [v for v in dataset.variables.values() if v.dims == (dim,)]
        fields = [n for n, a in dataset.data_vars.items() if dim in a.dims and a.ndim > 3]
        if not fields or not along or any(v.dtype.kind not in "US" for v in along):
            continue
        labels = [str(_plain("", label)) for label in along[0].values.tolist()]
        for name in fields:
            for number, label in enumerate(labels):
                unique = f"{name}_{label}" if label in dataset or len(fields) > 1 else label
                dataset[unique] = dataset[name].isel({dim: number}, drop=True)
            dataset = dataset.drop_vars(name)
    return dataset


# --- dates ----------------------------------------------------------------------------------------


def _dates(variable: "xr.Variable") -> tuple[np.ndarray | None, str]:
    """The dates that a variable counts or spells (None: neither), and what was assumed."""
    if variable.dtype.kind in "USO":
        return _spelled(variable), ""
    units = SINCE.fullmatch(str(variable.attrs.get("units", "")))
    if units is None or variable.dtype.kind not in "iuf" or variable.ndim > 2:
        return None, ""
    unit, origin = units[1].lower(), units[2].strip()
    name = str(variable.attrs.get("calendar", ""))
    calendar, notice = CALENDARS.get(re.sub("[^a-z0-9]", "", name.lower()), name), ""
    if calendar == "standard" and re.match("0+-", origin):
        calendar = "proleptic_gregorian"
        notice = f"counts from a year 0 ({units[0]}): the proleptic Gregorian calendar is assumed"
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
    return dates, notice


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


def _spelled(variable: "xr.Variable") -> np.ndarray | None:
    """Dates written as 2020-01-31_00:00:00 (WRF) or by ISO 8601; None for other texts."""
    texts = [str(_plain("", text)).strip(" \0") for text in np.ravel(variable.values).tolist()]
    if variable.ndim > 1 or not texts or not all(map(DATE.fullmatch, texts)):
        return None
    plain = [re.sub("[ _]", "T", text.removesuffix("Z")) for text in texts]
    return np.array(plain, "datetime64[ms]").reshape(variable.shape).astype("datetime64[ns]")
