"""Datasets: one file each; decorate a keyword-only function with `@datasets.register("name")`.

A dataset part returns an `s2kd.dataset.Dataset`.
"""

from s2kd.dataset import Dataset
from s2kd.registry import Registry

datasets: Registry[Dataset] = Registry("dataset", "s2kd.data")
