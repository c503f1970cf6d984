"""Datasets by reader name and settings, for tests."""

from s2kd.core.recipe import Keep, Part, Split
from s2kd.data import Dataset, load


def world(name: str, *, split: Split | None = None, keep: Keep | None = None, **params) -> Dataset:
    """The dataset of a reader with these settings."""
    return load(Part(name=name, params=params), split or Split(), keep or Keep())
