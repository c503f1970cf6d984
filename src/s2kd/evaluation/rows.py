"""Results as the nested rows of before, for what does not read datasets yet; to be deleted."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from s2kd.core.types import S2KDError
from s2kd.evaluation.results import NEW_NAMES, _fixed, describe_model, each_model, settings_of

HEADLINE = (
    "mse", "mae", "rmse", "ssim", "mse_sum_per_frame", "mae_sum_per_frame",
    "latitude_weighted_rmse", "relative_quantile_error", "relative_quantile_error_low",
    "log_spectral_distance", "high_frequency_ratio",
)  # fmt: skip
CONVENTIONS = (
    "windows", "past", "lead", "step_seconds", "overlap", "normalised", "ssim", "climatology",
    "spectra",
)  # fmt: skip


def rows(results: Mapping[str, xr.Dataset] | Iterable[xr.Dataset]) -> list[dict[str, Any]]:
    """One nested dict per model."""
    files = results.values() if isinstance(results, Mapping) else results
    return [_row(model) for file in files for model in each_model(file)]


def _row(model: xr.Dataset) -> dict[str, Any]:
    one = model.isel(model=0)
    about = {name: one.attrs.get(name) or None for name in CONVENTIONS}
    channels = [str(name) for name in one["channel"].values]
    about |= {
        "split": str(one["split"].values),
        "channels": channels,
        "units": [str(unit) for unit in one["unit"].values],
        "at_once": int(one.attrs["windows_per_time"]),
    }
    texts = ("data", "preset", "variant", "split", "role", "backbone", "method", "narrator",
             "narrator_version", "key", "fingerprint")  # fmt: skip
    row: dict[str, Any] = {name: str(one[name].values) for name in texts}
    row["seed"] = None if int(one["seed"]) < 0 else int(one["seed"])
    row["reads_future"] = bool(one["reads_future"])
    row["parameters"] = int(one["parameters"])
    row["latency_ms"] = _number(one["latency_ms"])
    row["validation"] = _number(one["validation"])
    for name in ("versions", "hardware", "latency"):
        row[name] = json.loads(str(one[name].values))
    row["settings"] = settings_of(model)
    row["metrics"] = {name: _number(one[name]) for name in HEADLINE if name in one}
    leads = {n.removesuffix("_by_lead"): one[n] for n in one.data_vars if n.endswith("_by_lead")}
    row["scores"] = {
        "metrics": row["metrics"],
        "window_mse": one["window_mse"].values.astype(float).tolist(),
        "conventions": about,
        "by_lead": _by_channel(leads),
        "physical": {
            channel: {
                "relative_quantile_error": float(
                    leads["relative_quantile_error"].sel(channel=channel).mean()
                )
            }
            for channel in channels
        },
        "by_group": _by_group(one),
        "spectra": _spectra(one, leads),
        "cell_extremes": _events(one),
        "peaks": {},
        "extremes": {},
    }
    if "rollout_mse" in one and not np.isnan(one["rollout_mse"].values).all():
        row["long_horizon"] = _rollout(one)
    return row


def _number(value: xr.DataArray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _by_channel(leads: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    channels = next(iter(leads.values()))["channel"].values
    return {
        str(c): {n: v.sel(channel=c).values.astype(float).tolist() for n, v in leads.items()}
        for c in channels
    }


def _by_group(one: xr.Dataset) -> dict[str, Any]:
    if "run" not in one.dims:
        return {}
    return {
        str(run): {"windows": int(one["windows_by_run"].sel(run=run))}
        | {n: float(one[f"{n}_by_run"].sel(run=run)) for n in ("mse", "mae", "rmse", "ssim")}
        for run in one["run"].values
    }


def _spectra(one: xr.Dataset, leads: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    if "spectrum_forecast" not in one:
        return {}
    names = ("log_spectral_distance", "high_frequency_ratio")
    return {
        str(c): {
            "wavenumber": one["wavenumber"].values.tolist(),
            "lead": one["lead"].values.tolist(),
            "forecast": one["spectrum_forecast"].sel(channel=c).values.tolist(),
            "truth": one["spectrum_truth"].sel(channel=c).values.tolist(),
            **{name: leads[name].sel(channel=c).values.tolist() for name in names},
        }
        for c in one["channel"].values
    }


def _events(one: xr.Dataset) -> dict[str, Any]:
    if "hits" not in one:
        return {}
    sides = (one["hits"], one["observed"] - one["hits"], one["false_alarms"])
    counts = np.stack([side.values.astype(np.int64) for side in sides], -1)
    cells, leads = one["event_cells"], one.sizes["lead"]
    return {
        "events": one["event"].values.tolist(),
        "scores": {
            str(c): {
                str(e): {"cells": [int(cells.sel(channel=c, event=e))] * leads}
                for e in one["event"].values
            }
            for c in one["channel"].values
        },
        "counts": counts,
    }


def _rollout(one: xr.Dataset) -> dict[str, Any]:
    single = ("stable", "finite", "beyond_limit", "largest_ratio", "ahead_of_persistence",
              "ahead_of_climatology", "climatology_variance")  # fmt: skip
    return {
        **{n: one.attrs[f"rollout_{n}"] for n in ("horizon", "limit", "windows", "skipped")},
        "steps": one.sizes["step"],
        "words": None,
        "rmse": {str(c): one["rollout_rmse"].sel(channel=c).values.tolist()
                 for c in one["channel"].values},
        **{name: float(one[f"rollout_{name}"]) for name in single},
        **{n: one[f"rollout_{n}"].values.astype(float).tolist()
           for n in ("mse", "persistence_mse", "climatology_mse")},
    }  # fmt: skip


# --- the other way -------------------------------------------------------------------------------


def from_row(row: Mapping[str, Any]) -> xr.Dataset:
    """The dataset of one nested row."""
    scores, about = row["scores"], row["scores"]["conventions"]
    channels, values = about["channels"], {}
    for name, value in row["metrics"].items():
        values[name] = ((), _floats(value))
    values["window_mse"] = (("window",), _floats(scores["window_mse"]))
    for name in next(iter(scores["by_lead"].values())):
        listed = [_floats(scores["by_lead"][channel][name]) for channel in channels]
        values[f"{name}_by_lead"] = (("lead", "channel"), np.stack(listed, -1))
    coords: dict[str, Any] = {
        "lead": np.arange(1, about["lead"] + 1),
        "channel": channels,
        "unit": ("channel", about["units"]),
    }
    if groups := scores["by_group"]:
        coords["run"] = list(groups)
        for name in ("mse", "mae", "rmse", "ssim"):
            listed = [group[name] for group in groups.values()]
            values[f"{name}_by_run"] = (("run",), _floats(listed))
        counts = np.array([group["windows"] for group in groups.values()], np.int32)
        values["windows_by_run"] = (("run",), counts)
    if spectra := scores["spectra"]:
        coords["wavenumber"] = next(iter(spectra.values()))["wavenumber"]
        for name in ("forecast", "truth"):
            listed = [_floats(spectra[channel][name]) for channel in channels]
            values[f"spectrum_{name}"] = (("lead", "channel", "wavenumber"), np.stack(listed, 1))
        for name in ("log_spectral_distance", "high_frequency_ratio"):
            listed = [_floats(spectra[channel][name]) for channel in channels]
            values[f"{name}_by_lead"] = (("lead", "channel"), np.stack(listed, -1))
    attrs = {name: about[name] or "" for name in CONVENTIONS}
    attrs["windows_per_time"] = about["at_once"]
    if events := scores["cell_extremes"]:
        from s2kd.evaluation.cell_events import _unpacked

        kept = [i for i, name in enumerate(events["events"]) if "surge" not in name]
        counts = _unpacked(events["counts"])[..., kept, :].astype(np.int32)
        coords["event"] = [events["events"][i] for i in kept]
        dims = ("window", "lead", "channel", "event")
        values["hits"] = (dims, counts[..., 0])
        values["false_alarms"] = (dims, counts[..., 2])
        values["observed"] = (dims, counts[..., 0] + counts[..., 1])
        cells = [[events["scores"][c][e]["cells"][0] for e in coords["event"]] for c in channels]
        values["event_cells"] = (("channel", "event"), np.array(cells, np.int32))
        first = next(iter(events["scores"][channels[0]].values()))
        attrs["cells"] = first["cells"][0] + first["left_out"][0]
    rolled = row.get("long_horizon") or {}
    if rolled.get("windows") and rolled.get("words") is None:
        coords["step"] = np.arange(1, rolled["steps"] + 1)
        for name in ("mse", "persistence_mse", "climatology_mse"):
            values[f"rollout_{name}"] = (("step",), _floats(rolled[name], np.inf))
        listed = [_floats(rolled["rmse"][channel], np.inf) for channel in channels]
        values["rollout_rmse"] = (("step", "channel"), np.stack(listed, -1))
        for name in ("stable", "finite", "beyond_limit", "largest_ratio", "climatology_variance",
                     "ahead_of_persistence", "ahead_of_climatology"):  # fmt: skip
            values[f"rollout_{name}"] = ((), _floats(rolled[name], np.inf))
        names = ("horizon", "limit", "windows", "skipped")
        attrs |= {f"rollout_{name}": rolled[name] for name in names}
    names = ("data", "preset", "variant", "split", "role", "backbone", "seed", "narrator",
             "narrator_version", "reads_future", "parameters", "latency_ms", "validation", "key",
             "fingerprint", "versions", "hardware", "latency")  # fmt: skip
    return describe_model(
        xr.Dataset(values, coords, attrs),
        method=NEW_NAMES.get(row["method"], row["method"]),
        recipe=row.get("settings"),
        **{name: row.get(name) for name in names},
    )


def _floats(value: Any, missing: float = np.nan) -> np.ndarray:
    def filled(inner: Any) -> Any:
        if isinstance(inner, list):
            return [filled(part) for part in inner]
        return missing if inner is None else inner

    return np.asarray(filled(value), np.float32)


# --- selection and comparison of rows ------------------------------------------------------------


def chosen(listed: Iterable[Mapping[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    """The rows whose fields are as wanted."""
    return [dict(row) for row in listed if all(row[n] == value for n, value in fields.items())]


def one_recipe(listed: Iterable[Mapping[str, Any]], *, but: Any = ()) -> None:
    """`results.one_recipe` of rows."""
    values: dict[str, tuple[Any, str]] = {}
    for row in listed:
        name = "/".join(str(row[n]) for n in ("data", "variant", "split", "backbone", "method"))
        fixed = _fixed(row["settings"] or {}, row["fingerprint"], row["backbone"], row["role"], but)
        for field, value in fixed.items():
            before, earlier = values.setdefault(field, (value, name))
            if before != value:
                raise S2KDError(
                    f"{earlier} was made with {field}={before}, {name} with {field}={value}: not "
                    "to be compared; train again what is out of date, or move it away"
                )
