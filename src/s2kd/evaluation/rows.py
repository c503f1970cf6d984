"""Results as the nested rows of before, for what does not read datasets yet; to be deleted."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from s2kd.core.errors import S2KDError
from s2kd.evaluation.results import _fixed, each_model, settings_of
from s2kd.evaluation.score import HEADLINE

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
    row: dict[str, Any] = {"dataset": model}
    row |= {name: str(one[name].values) for name in texts}
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
