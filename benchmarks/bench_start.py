"""Whole processes in units of a process that imports NumPy.

    python benchmarks/bench_start.py [rounds]

Wall time with byte code cached, the least of interleaved rounds: help, a refusal of a recipe, the
list of parts, the description of a small file, and a forecast of it by an untrained student. Exits
1 where one costs more than is wanted of it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from common import compare, save

WANTED = {"--help": 2.0, "refusal": 4.0, "list": 4.0, "data describe": 9.0}


def write_frames(path: Path) -> None:
    """200 frames of 12×16 cells, 6-hourly."""
    import numpy as np
    import xarray as xr

    times = np.datetime64("2020-01-01", "ns") + np.arange(200) * np.timedelta64(6, "h")
    field = 280 + np.random.default_rng(0).standard_normal((200, 12, 16)).cumsum(0)
    axes = {"time": times, "latitude": np.linspace(60, 38, 12), "longitude": np.arange(16) * 2.0}
    array = xr.DataArray(field.astype("f4"), axes, ("time", "latitude", "longitude"), "t2m")
    array.assign_attrs(units="K").to_netcdf(path, engine="h5netcdf")


def main(rounds: int = 7) -> int:
    """Measure, print, save."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "frames.nc"
        write_frames(data)
        verbs = {
            "--help": ["--help"],
            "refusal": ["compare", "absent.nc", "--out", f"{folder}/run"],
            "list": ["list"],
            "data describe": ["data", "describe", str(data)],
        }

        def run(*words: str) -> None:
            subprocess.run([sys.executable, *words], check=False, capture_output=True)

        ways = {name: lambda w=words: run("-m", "s2kd", *w) for name, words in verbs.items()}
        seconds = compare({"numpy": lambda: run("-c", "import numpy"), **ways}, rounds=rounds)
    ratios = {name: seconds[name] / seconds["numpy"] for name in verbs}
    worst = max(ratios[name] / WANTED[name] for name in verbs)
    result = {
        "what": "start of whole processes, the worst over its target",
        "peer": "its target in units of `import numpy`",
        "limit": "imports",
        "ratio": worst,
        "target": "at most 1",
        "met": worst <= 1,
        "seconds": seconds,
        "table": [
            {"command": f"s2kd {n}", "times `import numpy`": f"{r:.1f}", "wanted": f"{WANTED[n]:g}"}
            for n, r in ratios.items()
        ],
    }
    lost = save("bench_start", result, better="lower")
    for name, ratio in ratios.items():
        print(f"s2kd {name}: {ratio:.1f} times import numpy (wanted {WANTED[name]:g})")
    return lost or int(worst > 1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
