"""Limits of valid values that a variable declares (CF 2.5.1): values beyond them are missing."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

LIMITS = ("valid_range", "valid_min", "valid_max")


def valid_limits(variable: "xr.Variable") -> tuple[tuple[float, float] | None, str]:
    """The smallest and largest valid value, unpacked, and why declared ones are not applied.

    None where nothing is declared, where limits of packed values are in unpacked units, or where
    most values of the first and the last frame lie beyond them.
    """
    declared = [np.atleast_1d(variable.attrs[key]) for key in LIMITS if key in variable.attrs]
    if not declared or any(limits.dtype.kind not in "iuf" for limits in declared):
        return None, ""
    low, high = _declared(variable.attrs, -np.inf, np.inf)
    packing = variable.encoding
    scale, offset = packing.get("scale_factor", 1.0), packing.get("add_offset", 0.0)
    stored = np.dtype(packing.get("dtype", variable.dtype))
    text = f"declares valid values from {low:g} to {high:g}"
    if {"scale_factor", "add_offset"} & packing.keys():
        if stored.kind in "iu" and any(limits.dtype.kind == "f" for limits in declared):
            return None, f"{text} in unpacked units, though it is packed: they are not applied"
        if str(packing.get("_Unsigned", "")).lower() == "true":
            low, high = (_unsigned(limit, stored) for limit in (low, high))
        half = 0.5 * abs(scale)  # what rounding may change
        low, high = sorted((low * scale + offset, high * scale + offset))
        low, high = low - half, high + half
    ends = variable[{variable.dims[0]: [0, -1]}].values
    finite = ends[np.isfinite(ends)]
    if finite.size and ((finite >= low) & (finite <= high)).mean() < 0.5:
        return None, f"{text}, where most of its values are not: they are not applied"
    return (low, high), ""


def _declared(attributes: Mapping[Hashable, Any], low: float, high: float) -> tuple[float, float]:
    """`valid_range`, or `valid_min` and `valid_max`, either of which may be absent."""
    if "valid_range" in attributes:
        low, high = np.ravel(attributes["valid_range"])[[0, -1]]
    low, high = attributes.get("valid_min", low), attributes.get("valid_max", high)
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])


def _unsigned(limit: float, stored: np.dtype) -> float:
    """A limit that is stored as a signed integer of the same bits."""
    return limit if limit >= 0 or np.isinf(limit) else limit + 2.0 ** (8 * stored.itemsize)
