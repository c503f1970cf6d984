"""Data: readers give one `xarray.Dataset`; `load` splits it and keeps its frames for training."""

from s2kd.data.dataset import Dataset
from s2kd.data.loading import check_part, load, load_frames, prepare, read_record
from s2kd.data.readers import readers

__all__ = ["Dataset", "check_part", "load", "load_frames", "prepare", "read_record", "readers"]
