"""Error on validation windows, and latency, of a student in any format."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from s2kd.core.hardware import call_times
from s2kd.core.recipe import Recipe
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import Dataset, load
from s2kd.data.windows import WindowDataset
from s2kd.deploy.forecaster import Future, Past, Step

BATCH = 16


def sample_windows(
    dataset: Dataset, metadata: Mapping[str, Any], split: str, count: int
) -> tuple[Past, Future]:
    """At most `count` windows of a split of a student's data, evenly spread, physical units."""
    windows = WindowDataset(dataset, split, past=metadata["past"], lead=metadata["lead"])
    numbers = np.unique(np.linspace(0, len(windows) - 1, count).round().astype(np.int64))
    batch = windows.gather(torch.from_numpy(numbers))
    return batch.past.numpy(), batch.future.numpy()


def rmse(step: Step, past: Past, future: Future, metadata: Mapping[str, Any]) -> float:
    """Root mean square error over windows, leads, channels and existing cells.

    In units of each channel's training standard deviation.
    """
    starts = range(0, len(past), BATCH)
    predicted = np.concatenate([step(past[start : start + BATCH]) for start in starts])
    std = np.array(metadata["statistics"]["std"])[:, None, None]
    error = ((predicted - future) / std)[..., GridSpec.from_dict(metadata["grid"]).exists]
    return float(np.sqrt(np.mean(error**2)))


def training_data(metadata: Mapping[str, Any]) -> Dataset:
    """The data that a student was trained on, read again.

    Raises S2KDError where its metadata hold no recipe, or the data are gone or have changed.
    """
    if "recipe" not in metadata:
        raise S2KDError("the student's metadata hold no recipe, so its data cannot be read again")
    recipe = Recipe.from_dict(metadata["recipe"])
    dataset = load(recipe.dataset, recipe.split, recipe.keep)
    if dataset.fingerprint != metadata["fingerprint"]:
        raise S2KDError(f"{dataset.name}: the data have changed since the student was trained")
    return dataset


def latency_ms(call: Callable[[], object]) -> float:
    """Median wall time of 40 calls after 5 others, in milliseconds."""
    return statistics.median(call_times(call, warmup=5, repeats=40))
