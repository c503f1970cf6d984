"""Trial reading of HDF5 and GRIB files, in a process of its own that may crash: `_foreign`.

Paths come on standard input; each gets one line of JSON: null, or what is wrong with the file.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

MEMORY_BYTES = 2**32
READ_BYTES = 2**26
"""Of an array that is larger, the first and the last entry are read."""
LARGE_BYTES, LARGEST_RATIO = 2**28, 10_000
"""More values than that per stored byte were never written: no codec packs data so small."""


def is_hollow(size: int, stored: int) -> bool:
    """Whether an array of `size` bytes is large, and nearly all of it was never written."""
    return size > LARGE_BYTES and size > LARGEST_RATIO * stored


def hdf5_problem(file: str | BinaryIO) -> str | None:
    """What lies in another file, or is claimed and was never written."""
    import h5py

    def of_link(name: str, link: Any) -> str | None:
        return f"{name} lies in another file" if isinstance(link, h5py.ExternalLink) else None

    def of_item(name: str, item: Any) -> str | None:
        list(item.attrs.items())
        if not isinstance(item, h5py.Dataset):
            return None
        sources = item.virtual_sources() if item.is_virtual else ()
        if item.external or any(source.file_name != "." for source in sources):
            return f"the values of {name} lie in another file"
        size = item.size * item.dtype.itemsize if item.shape else 0
        if is_hollow(size, item.id.get_storage_size()):
            return f"{name} claims {size / 2**30:.3g} GiB that were never written"
        if item.shape and size:
            entries = [item[()]] if size < READ_BYTES else [item[:1], item[-1:]]
            del entries
        return None

    with h5py.File(file) as opened:
        return opened.visititems_links(of_link) or opened.visititems(of_item)


def _grib_problem(path: str) -> None:
    sys.modules["xarray"] = None  # cfgrib does without it, and is here four times as fast
    import eccodes
    from cfgrib import dataset

    # without names and units, which are looked up in tables of a second's length
    index = [*dataset.DATA_TIME_KEYS, *dataset.ALL_REF_TIME_KEYS, "stepUnits", "stepType", "level"]
    shape = [*dataset.GRID_TYPE_KEYS, "md5GridSection", "latitudes", "longitudes"]
    remaining, number = 4 * READ_BYTES, 0
    with Path(path).open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            names = [
                *index,
                *(["values"] if remaining > 0 else []),
                *(shape if number < 20 else []),
            ]
            number += 1
            for name in names:
                with contextlib.suppress(eccodes.CodesInternalError):
                    remaining -= 8 * len(eccodes.codes_get_array(message, name))
            eccodes.codes_release(message)


def _problem(path: str) -> str | None:
    """What is wrong, but for what the reader itself will say in its own words."""
    with Path(path).open("rb") as file:
        is_grib = file.read(4) == b"GRIB"
    try:
        return _grib_problem(path) if is_grib else hdf5_problem(path)
    except MemoryError:
        return f"a part of it needs more than {MEMORY_BYTES / 2**30:g} GiB"
    except Exception:
        return None


def _main() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path in json.load(sys.stdin):
        print(json.dumps(_problem(path)), flush=True)


if __name__ == "__main__":
    _main()
