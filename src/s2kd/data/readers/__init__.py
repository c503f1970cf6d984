"""Registry of readers: a path and settings in, one `xarray.Dataset` out.

A reader is a function with keyword-only settings, decorated with `@readers.register("name")`. It
returns the record lazily or in memory, and knows nothing of splits, gaps or memory:

- dims `time`, `row`, `column`; one numeric data variable per channel with `attrs["units"]`, missing
  values NaN; row 0 is the northernmost (topmost), column 0 the westernmost (leftmost);
- coordinates `time` (datetime64[ns] or cftime); `latitude` (row) and `longitude` (column) where the
  grid is regular; `run` (time), the name of the run where there are several, end to end; `split`
  (time), where the data are published in splits ("" for frames of none); `context` (time), tuples
  of words for narrators; `mask` (row, column), True where a cell exists;
- attributes `domain`, `source`, `name`, and where they apply `local_time`, `wraps`, `simultaneous`,
  `complete_years`, `whole_days` (0 or 1), `step_seconds`, `smallest_gap` (frames between splits),
  `window` (past, lead), `parameters` ({run: {name: value}}), `notices` (sentences), `split` (the
  fields of the default `Split`); of files that follow CF also `axes`, `places`, `history` (for
  forecasts that align with the file) and `stored_frames` (per chunk).

Several readers share: `files` (opening of gridded files), `_array_files` (headers and values of
`.npy`, `.npz` and HDF5), `_record` (the dataset, checks of names and shapes), `_fires` (masks,
crop, pool and even steps of fires).
"""

from typing import TYPE_CHECKING

from s2kd.core.registry import Registry

if TYPE_CHECKING:
    import xarray as xr

readers: "Registry[xr.Dataset]" = Registry("reader", "s2kd.data.readers", group="s2kd.readers")
