"""Made-up scores of models with a given mean error, for tests of comparisons and tables."""

import numpy as np
import xarray as xr

from s2kd.evaluation.results import describe_model, file_name, join_models

RECIPE = {
    "past": 4,
    "teacher_training": {"epochs": 14},
    "students": [{"name": "unet", "params": {"width": 8}}, {"name": "resnet", "params": {}}],
}


def model(method, mse, seed, *, role="student", backbone="unet", noise=0.05, **fields):
    """One model on 200 windows whose difficulty is that of its seed for every method."""
    difficulty = np.random.default_rng(seed).lognormal(0, 0.3, 200)
    errors = difficulty * np.random.default_rng([seed, len(method)]).normal(1, noise, 200)
    scores = xr.Dataset(
        {
            "window_mse": ("window", (errors * mse / errors.mean()).astype(np.float32)),
            **{n: np.float32(v) for n, v in (("mse", mse), ("mae", mse**0.5 / 2), ("ssim", 0.9))},
        },
        attrs={"windows": 200, "past": 4, "lead": 4, "overlap": 2, "windows_per_time": 1},
    )
    about = {
        "data": "ncep_air", "preset": "small", "variant": "rules", "split": "test",
        "narrator": "rules", "parameters": 1000, "latency_ms": 1.0, "fingerprint": "x",
        "recipe": RECIPE, "versions": {}, "hardware": {"processor": "none", "device": "cpu"},
    }  # fmt: skip
    return describe_model(
        scores, role=role, backbone=backbone, method=method, seed=seed, **(about | fields)
    )


def teacher(mse, seed, **fields):
    """A teacher that reads."""
    return model("teacher", mse, seed, role="teacher", backbone="simvp", **fields)


def some_models(s2kd=0.9, fitnet=0.97, teacher_mse=0.88, seeds=range(5), **fields):
    """Persistence, teacher, and a U-Net by three methods."""
    reference = model("persistence", 2.0, 0, role="reference", backbone="persistence", **fields)
    models = [reference.assign_coords(seed=("model", [-1]), model=["rules/persistence"])]
    for seed in seeds:
        models.append(teacher(teacher_mse, seed, **fields))
        for method, mse in (("baseline", 1.0), ("fitnet", fitnet), ("s2kd", s2kd)):
            models.append(model(method, mse, seed, **fields))
    return models


def results_of(models):
    """As `read_results` returns them."""
    files: dict[str, list[xr.Dataset]] = {}
    for scores in models:
        files.setdefault(file_name(scores).removesuffix(".nc"), []).append(scores)
    return {name: join_models(parts) for name, parts in files.items()}
