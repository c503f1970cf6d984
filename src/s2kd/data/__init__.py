"""Datasets: one file each; decorate a keyword-only function with `@datasets.register("name")`.

A dataset part returns an `s2kd.data.dataset.Dataset`.
"""

from s2kd.core.registry import Registry
from s2kd.data.dataset import Dataset

datasets: Registry[Dataset] = Registry("dataset", "s2kd.data", group="s2kd.data")
