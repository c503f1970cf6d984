"""Kills, flipped bytes, mutants and full disks: the table of docs/reliability.md (`make fuzz`).

Everything is drawn from `--seed`; how much is tried depends on `--minutes`. Each trial runs in a
forked process. One fails that ends in a traceback, a signal, more than LIMIT seconds or MEMORY
bytes, in other weights than an undisturbed run, or with an altered file used unnoticed.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the sums of all processes are made in one order

import cfgrib  # noqa: F401
import lightning_fabric  # noqa: F401
import numpy as np
import road
import xarray as xr
from msgspec import structs
from test_faults import READERS, equal

import s2kd
from s2kd.core.recipe import Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import load
from s2kd.data.describe import describe
from s2kd.models.checkpoint import load_student  # noqa: F401
from s2kd.pipeline.recipes import for_data

LIMIT, MEMORY = 600, 2**30
UNNOTICED = 99
"""Exit status where an altered file was read as if it were whole."""
SURVIVED = ("fine", "refused")
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)


def forked(work: Callable[[], object], log: Path, until: Callable[[], bool] | None = None) -> str:
    """How `work` ends in a process of its own: fine, refused, or a failure in a few words.

    It is killed as soon as `until` says so, which is no failure.
    """
    process = os.fork()
    if process == 0:
        with log.open("w") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        status = 0
        try:
            work()
        except (S2KDError, SystemExit) as error:
            status = error.code if isinstance(error, SystemExit) else 2
            print(error, flush=True)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status or 0)
    end = time.monotonic() + LIMIT
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        is_killed = until is not None and until()
        if is_killed or time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            os.wait4(process, 0)
            return "killed" if is_killed else "hang"
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    if 1024 * used.ru_maxrss > MEMORY + BASE:
        return "memory"
    outcomes = {0: "fine", 2: "refused", UNNOTICED: "used unnoticed"}
    return outcomes.get(os.WEXITSTATUS(status), "traceback")


BASE = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- mutants of foreign files --------------------------------------------------------------------


def waves() -> xr.Dataset:
    """Five days of a wave on 8×12 cells."""
    hour, row, column = np.ogrid[:120, :8, :12]
    values = 280 + 10 * np.sin(2 * np.pi * (column / 12 - hour / 24)) + np.cos(row + hour / 11)
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})},
        {
            "time": np.datetime64("2020-01-01", "ns") + hour[:, 0, 0] * np.timedelta64(1, "h"),
            "lat": ("lat", np.linspace(50, 43, 8), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(0, 11, 12), {"units": "degrees_east"}),
        },
    )


def write_grib(path: Path, data: xr.Dataset) -> None:
    """One GRIB 2 message per hour."""
    import eccodes

    with path.open("wb") as file:
        for hour, values in enumerate(data["t2m"].values):
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            keys = {"Ni": 12, "Nj": 8, "latitudeOfFirstGridPointInDegrees": 50.0}
            keys |= {"latitudeOfLastGridPointInDegrees": 43.0, "dataDate": 20200101 + hour // 24}
            keys |= {"longitudeOfFirstGridPointInDegrees": 0.0, "dataTime": hour % 24 * 100}
            keys |= {"longitudeOfLastGridPointInDegrees": 11.0, "shortName": "2t"}
            keys |= {"iDirectionIncrementInDegrees": 1.0, "jDirectionIncrementInDegrees": 1.0}
            for key, value in keys.items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, values.astype(float).ravel())
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)


def sources(folder: Path) -> dict[str, Path]:
    """The same waves in every format."""
    data = waves()
    names = ("packed.nc", "plain.nc", "classic.nc", "two.zarr", "three.zarr", "a.npz", "a.npy")
    paths = {name: folder / name for name in (*names, "a.h5", "a.grib")}
    packing = {"t2m": {"zlib": True, "dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0}}
    data.to_netcdf(paths["packed.nc"], engine="h5netcdf", encoding=packing)
    data.to_netcdf(paths["plain.nc"], engine="h5netcdf")
    data.to_netcdf(paths["classic.nc"], engine="scipy", format="NETCDF3_CLASSIC")
    data.to_zarr(paths["two.zarr"], zarr_format=2, consolidated=True)
    data.to_zarr(paths["three.zarr"], zarr_format=3, consolidated=False)
    np.savez_compressed(paths["a.npz"], t2m=data["t2m"].values, time=data["time"].values)
    np.save(paths["a.npy"], data["t2m"].values)
    import h5py

    with h5py.File(paths["a.h5"], "w") as file:
        file.create_dataset("t2m", data=data["t2m"].values, chunks=(8, 8, 12), compression="gzip")
    write_grib(paths["a.grib"], data)
    return paths


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four changes, half of them within its first kilobyte."""
    changed = bytearray(content)
    tokens = list(re.finditer(rb"-?\d+|null|true|\"[^\"]*\"", content))
    if content[:1] == b"{" and tokens:  # JSON: another number or word
        token = chance.choice(tokens)
        values = (b"0", b"-1", b"null", b"[]", b"{}", b"1e9", b"999999999999", b'"x"', b"NaN")
        return content[: token.start()] + chance.choice(values) + content[token.end() :]
    for _ in range(chance.randrange(1, 5)):
        reach = len(changed) if chance.random() < 0.5 else min(len(changed), 1024)
        place = chance.randrange(max(1, reach))
        match chance.choice(("flip", "flip", "number", "number", "cut", "drop", "repeat")):
            case "flip":
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case "number":
                width = chance.choice((1, 2, 4, 8))
                number = chance.choice(EXTREMES) % 256**width
                order = chance.choice(("little", "big"))
                changed[place : place + width] = number.to_bytes(width, order)
            case "cut":
                del changed[place + len(changed) // 2 :]
            case "drop":
                del changed[place : place + chance.randrange(1, 64)]
            case "repeat":
                changed[place:place] = changed[place : place + chance.randrange(1, 256)]
    return bytes(changed)


def mutant(source: Path, target: Path, chance: random.Random) -> None:
    """A changed copy of a file, or of a folder in which one file is changed."""
    if source.is_file():
        target.write_bytes(mutated(source.read_bytes(), chance))
        return
    shutil.copytree(source, target)
    file = chance.choice(sorted(path for path in target.rglob("*") if path.is_file()))
    file.write_bytes(mutated(file.read_bytes(), chance))


def read(path: Path) -> None:
    """What `describe` and a training would read of a file."""
    describe(path)
    recipe = for_data(path)
    load(recipe.dataset, recipe.split, recipe.keep)


def mutants(folder: Path, chance: random.Random) -> Iterator[tuple[str, str, Path]]:
    """(kind, outcome, input) of one trial after another, in turn over all formats."""
    originals = sources(folder)
    for name, path in originals.items():
        outcome = forked(lambda path=path: read(path), folder / "log")
        yield f"original {name}", outcome if outcome == "fine" else f"unread: {outcome}", path
    number = 0
    while True:
        for name, path in originals.items():
            number += 1
            target = folder / f"{number}-{name}"
            mutant(path, target, chance)
            yield (
                f"mutant {name}",
                forked(lambda target=target: read(target), folder / "log"),
                target,
            )


# --- flips, kills and full disks of one tiny run -------------------------------------------------


def verb(*arguments: object, largest_file: int = 0) -> Callable[[], None]:
    """`s2kd ARGUMENTS`, on a disk that takes no larger file."""

    def run() -> None:
        import torch

        from s2kd.cli import main

        torch.set_num_threads(1)
        sys.dont_write_bytecode = True
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        main(list(map(str, arguments)))

    return run


class Runs:
    """Runs of one tiny recipe on the waves, compared with an undisturbed one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.data = folder, folder / "log", folder / "waves.nc"
        waves().to_netcdf(self.data, engine="h5netcdf")
        part = Part(name="cf", params={"path": str(self.data)})
        tiny = road.tiny()
        recipe = structs.replace(tiny, dataset=part, split=Split(gap=5), methods=tiny.methods[-1:])
        self.recipe, self.undisturbed = road.saved_recipe(folder, recipe), folder / "undisturbed"
        started = time.monotonic()
        outcome = forked(self.work(self.undisturbed), self.log)
        if outcome != "fine":
            raise SystemExit(f"the undisturbed run ends with {outcome}: {self.log.read_text()}")
        self.seconds, self.weights = time.monotonic() - started, road.weights(self.undisturbed)

    def work(self, out: Path, largest_file: int = 0) -> Callable[[], None]:
        """`s2kd compare` of the recipe, with a checkpoint after every step."""
        options = ("--save-every", "0", "--accelerator", "cpu", "--until", "evaluate")
        return verb("compare", self.recipe, "--out", out, *options, largest_file=largest_file)

    def finished(self, out: Path) -> str:
        """How the run goes on to its end."""
        outcome = forked(self.work(out), self.log)
        if outcome == "fine" and road.weights(out) != self.weights:
            outcome = "other weights"
        if outcome == "fine" and list(out.rglob("*.part")):
            outcome = "parts left over"
        shutil.rmtree(out, ignore_errors=True)
        return outcome

    def killed(self, chance: random.Random) -> str:
        """A run that is killed once to three times, then goes on to its end."""
        out = self.folder / "killed"
        for _ in range(chance.randrange(1, 4)):
            end = time.monotonic() + chance.uniform(0, self.seconds)
            outcome = forked(self.work(out), self.log, lambda end=end: time.monotonic() > end)
            if outcome not in ("killed", "fine"):
                return outcome
        return self.finished(out)

    def disk_full(self, chance: random.Random) -> str:
        """A run on a full disk, then with room again."""
        out = self.folder / "full"
        outcome = forked(self.work(out, int(10 ** chance.uniform(3.5, 5.5))), self.log)
        return self.finished(out) if outcome in SURVIVED else outcome

    def forecast_on_full_disk(self, chance: random.Random) -> str:
        """A forecast that leaves a whole file, or nothing."""
        target = self.folder / f"forecast{chance.choice(('.nc', '.zarr'))}"
        limit, before = int(10 ** chance.uniform(3, 4.5)), set(self.folder.iterdir())
        forecast = ("forecast", self.undisturbed, self.data, "--out", target)
        outcome = forked(verb(*forecast, largest_file=limit), self.log)
        new = set(self.folder.iterdir()) - before
        if outcome == "fine":
            xr.open_dataset(target).load().close()
        elif outcome == "refused" and new:
            outcome = "something left behind"
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return outcome

    def flipped(self, name: str, chance: random.Random) -> str:
        """What the reader of an artefact makes of it with one byte changed."""
        path = self.undisturbed / name
        content, before = path.read_bytes(), READERS[name](self.undisturbed)
        altered = bytearray(content)
        altered[chance.randrange(len(content) - 1)] ^= chance.randrange(1, 256)
        path.write_bytes(altered)

        def read_again() -> None:
            if not equal(READERS[name](self.undisturbed), before):
                os._exit(UNNOTICED)

        outcome = forked(read_again, self.log)
        path.write_bytes(content)
        return outcome


def trials(folder: Path, chance: random.Random) -> Iterator[tuple[float, Iterator[tuple]]]:
    """(share of the time, trials) of every kind; a trial is (kind, outcome, input to keep)."""
    runs, endless = Runs(folder), iter(int, 1)
    names = [name for name in READERS if not name.startswith("prepared")]
    yield 0.15, ((f"flip {n}", runs.flipped(n, chance), None) for _ in endless for n in names)
    yield 0.25, (("kill a run", runs.killed(chance), None) for _ in endless)
    yield 0.1, (("full disk, run", runs.disk_full(chance), None) for _ in endless)
    full = (("full disk, forecast", runs.forecast_on_full_disk(chance), None) for _ in endless)
    yield 0.1, full
    yield 0.4, mutants(folder, chance)


def table(counts: Counter) -> str:
    """Kind, tried, survived and failed, as Markdown."""
    rows = ["| kind | tried | survived | failed |", "|---|---:|---:|---|"]
    for kind in sorted({kind for kind, _ in counts}):
        outcomes = {outcome: n for (k, outcome), n in counts.items() if k == kind}
        tried, survived = sum(outcomes.values()), sum(outcomes.pop(o, 0) for o in SURVIVED)
        failed = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items()) or "0"
        rows.append(f"| {kind} | {tried} | {survived} | {failed} |")
    return "\n".join(rows)


def main() -> None:
    """Try for the time given, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=Path("docs/reliability.md"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="s2kd-fuzz-"))
    chance, counts, failures = random.Random(options.seed), Counter(), 0
    for share, kind in trials(folder, chance):
        end = time.monotonic() + 60 * options.minutes * share
        for name, outcome, source in kind:
            counts[name, outcome] += 1
            if outcome not in SURVIVED:
                failures += 1
                print(f"{name}: {outcome} {source or ''}", flush=True)
                print((folder / "log").read_text(errors="replace")[-800:], flush=True)
            elif source is not None and name.startswith("mutant"):
                shutil.rmtree(source) if source.is_dir() else source.unlink()
            if time.monotonic() > end:
                break
    facts = f"s2kd {s2kd.__version__}, {options.minutes:g} minutes, seed {options.seed}"
    start, _, rest = options.page.read_text(encoding="utf-8").partition("<!-- table -->")
    content = f"{start}<!-- table -->\n{facts}\n\n{table(counts)}\n<!-- end -->"
    options.page.write_text(content + rest.partition("<!-- end -->")[2], encoding="utf-8")
    if not failures:
        shutil.rmtree(folder)
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
