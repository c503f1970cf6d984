"""Reader of CF data that Python code passes as an xarray object."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from s2kd.core.types import Domain, S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers.cf import fields_of, joined
from s2kd.data.readers.files import IN_MEMORY

if TYPE_CHECKING:
    import xarray as xr


@readers.register("memory")
def memory(
    data: "xr.Dataset | xr.DataArray | None" = None,
    *,
    variables: Sequence[str] = (),
    domain: Domain = "weather",
    local_time: bool = False,
) -> "xr.Dataset":
    """An `xarray.Dataset` or `DataArray` passed from Python, prepared as `cf` prepares a file.

    A recipe holds only the settings, which are those of `cf`. Raises S2KDError where a later stage
    opens the recipe without the object.
    """
    if data is None:
        raise S2KDError(
            "dataset 'memory': the data were an xarray object in memory, which a recipe does not "
            "hold; pass the same object again, or write it to NetCDF and set dataset to 'cf' with "
            "its path"
        )
    record = joined(IN_MEMORY, fields_of(data), variables)
    return record.assign_attrs(domain=domain, local_time=int(local_time))


memory.needs = "the xarray object itself"
