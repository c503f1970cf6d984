"""Cold start of `s2kd forecast` against a bare script of xarray and ONNX Runtime.

    python benchmarks/bench_forecast.py

Both read the last frames of a NetCDF file, run the exported U-Net of the paper's size (5.1 M
parameters, 25×53, 12 to 12 frames) and write NetCDF, each in a fresh process with compiled modules.
Processor time and peak resident memory are compared.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FRAMES, HEIGHT, WIDTH, PAST = 300, 25, 53, 12
WANTED_RATIO, WANTED_MIB = 1.5, 220
BARE = """
import sys
import numpy as np, onnxruntime, xarray as xr
model, latest, out = sys.argv[1:]
latest = xr.open_dataset(latest, engine="h5netcdf").isel(time=slice(-12, None))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
future = session.run(["future"], {"past": latest["air"].values[None, :, None]})[0][0, :, 0]
times = latest["time"].values[-1] + np.timedelta64(6, "h") * np.arange(1, 13)
places = {name: latest[name] for name in ("lat", "lon")}
forecast = xr.Dataset({"air": (("time", "lat", "lon"), future)}, {"time": times, **places})
forecast.to_netcdf(out, engine="h5netcdf", encoding={"air": {"zlib": True, "complevel": 4}})
"""


def make_student(folder: Path) -> None:
    """In `folder`: `latest.nc`, noise, and an untrained `student` of it with its `export`."""
    import numpy as np
    import torch
    import xarray as xr

    from s2kd.core.recipe import Part, Split
    from s2kd.data import load
    from s2kd.data.statistics import statistics
    from s2kd.deploy.export import export_student
    from s2kd.models.checkpoint import Setting, build_student, metadata_of, save_model

    noise = np.random.default_rng(0).standard_normal((FRAMES, HEIGHT, WIDTH))
    times = np.datetime64("2020-01-01", "ns") + np.timedelta64(6, "h") * np.arange(FRAMES)
    fields = {"air": (("time", "lat", "lon"), (280 + 10 * noise).astype("f4"), {"units": "K"})}
    places = {
        "lat": ("lat", np.linspace(75, 15, HEIGHT), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(200, 330, WIDTH), {"units": "degrees_east"}),
    }
    latest = folder / "latest.nc"
    xr.Dataset(fields, {"time": times, **places}).to_netcdf(latest, engine="h5netcdf")
    part, unet = Part(name="cf", params={"path": str(latest)}), Part(name="unet")
    dataset = load(part, Split(gap=24, fractions=(0.5, 0.2, 0.3)))
    setting = Setting(
        grid=dataset.grid, past=PAST, lead=PAST, statistics=statistics(dataset, lead=PAST)
    )
    student = build_student(unet, setting)
    student.train()
    with torch.no_grad():  # running statistics of the batch normalisation
        student(torch.from_numpy(dataset.frames[: 4 * PAST]).unflatten(0, (4, PAST)))
    origin = {"dataset": {"name": part.name, "params": part.params}, "validation": 1.0}
    save_model(folder / "student", student, metadata_of("student", unet, setting, **origin))
    export_student(folder / "student", dataset=dataset, say=print)


def cost(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Processor seconds and peak resident memory in MiB of a child."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: failed with {child.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 2**20


def main(rounds: int = 7) -> int:
    """Measure both in turn and keep the least of each; 0 where the targets are met."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in another process: a child's peak is at least the memory of its parent
        subprocess.run([sys.executable, __file__, "--make", name], check=True)
        latest, exported = folder / "latest.nc", folder / "student" / "export"
        metadata = json.loads((exported / "config.json").read_text(encoding="utf-8"))
        model = exported / metadata["formats"][metadata["default"]]["file"]
        out = ["--out", str(folder / "ours.nc")]
        commands = {
            "bare": [sys.executable, "-c", BARE, str(model), str(latest), str(folder / "bare.nc")],
            "s2kd": [sys.executable, "-m", "s2kd", "forecast", str(exported), str(latest), *out],
        }
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        costs: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
        for _ in range(rounds + 1):
            for label, command in commands.items():
                costs[label].append(cost(command, environment))
    seconds, mebibytes = (
        {label: min(pair[part] for pair in pairs[1:]) for label, pairs in costs.items()}
        for part in (0, 1)
    )
    result = {
        "what": f"`s2kd forecast` over a bare script, U-Net of 5.1 M, {metadata['default']}",
        "seconds": seconds,
        "mebibytes": mebibytes,
        "formats": metadata["formats"],
        "ratio": seconds["s2kd"] / seconds["bare"],
        "target": f"ratio at most {WANTED_RATIO}, at most {WANTED_MIB} MiB",
    }
    result["met"] = result["ratio"] <= WANTED_RATIO and mebibytes["s2kd"] <= WANTED_MIB
    print({key: result[key] for key in ("seconds", "mebibytes", "ratio", "met")})
    from common import save

    lost = save("bench_forecast", result, better="lower", packages=("onnxruntime", "xarray"))
    return lost or int(not result["met"])


if __name__ == "__main__":
    if "--make" in sys.argv:
        make_student(Path(sys.argv[-1]))
    else:
        sys.exit(main())
