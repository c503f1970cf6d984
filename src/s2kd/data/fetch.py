"""The official data sets from their addresses to a folder: `s2kd data fetch`."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from s2kd.core.console import Quiet
from s2kd.core.errors import S2KDError
from s2kd.core.files import locked, write_text
from s2kd.core.registry import nearest
from s2kd.data.download import WAITS, Remote, Unreachable, download, look, sha256
from s2kd.data.unpack import names_in, unzip

SUMS = "SHA256SUMS"
FEWER = 3
"""Attempts again while nothing is fetched yet: an address that is dead should be told soon."""

YEARS = tuple(range(1979, 2019))
YEAR = re.compile(r"_(\d{4})_")
TUM = "https://dataserv.ub.tum.de/s/m1524895/download"
WEATHERBENCH2 = (
    "https://storage.googleapis.com/weatherbench2/datasets/era5/"
    "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"
)
"""The public address of gs://weatherbench2/…, which needs no account and no gcsfs."""

OPENSTL = "https://github.com/chengtan9907/OpenSTL/releases/download/v0.1.0"
PROMETHEUS = "https://huggingface.co/datasets/easylearning/Prometheus/resolve/main"
TAXIBJ_RAW = (
    *(f"BJ{year}_M32x32_T30_InOut.h5" for year in (13, 14, 15, 16)),
    "BJ_Meteorology.h5",
    "BJ_Holiday.txt",
)
TAXIBJ_PLUS = tuple(
    f"{split}/{file}" for split in ("train", "valid", "test") for file in ("X_c.npy", "Y.npy")
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file at an address, relative to the folder; `folder` is where an archive's files go."""

    url: str
    path: str
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What there is now, and what goes with it."""

    folder: Path
    files: tuple[str, ...]
    licence: str
    cite: str
    then: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: `items` gives its files by variables and mirror ("": official)."""

    items: Callable[[Sequence[str], str], list[Item]]
    licence: str
    cite: str
    then: str
    gone: str
    yearly: bool = False


def fetch(
    name: str,
    out: Path | str,
    *,
    years: str = "",
    variables: Sequence[str] = (),
    base: str = "",
    shown: Quiet | None = None,
    waits: Sequence[float] = WAITS,
) -> Fetched:
    """Fetch `name` (weatherbench, weatherbench2, taxibj or prometheus) into the folder `out`.

    `years` is `1979-2018` or `2016,2017`; `variables` are fields (`z500`, `temperature@850`),
    kinds of TaxiBJ (`openstl`, `raw`, `plus`) or Prometheus's environments (`a1`, `b3`, `a`, `b`);
    `base` replaces the official address. What is there is checked against `SHA256SUMS`, what is
    partly there is gone on with. Raises `S2KDError` where the disk is too small, an address gives
    no file, a file has changed, or a person has to fetch it (it says what, and to where).
    """
    out, shown = Path(out).expanduser(), shown or Quiet()
    source = _source(name)
    chosen = _years(name, years, source)
    with _alone(out):
        if name == "weatherbench2":
            files = _copy_store(out, variables, chosen, base, shown, waits)
        else:
            files = _fetch_items(name, source, out, variables, chosen, base, shown, waits)
    then = source.then.format(out=shlex.quote(str(out)))  # a command to be pasted
    return Fetched(folder=out, files=files, licence=source.licence, cite=source.cite, then=then)


# --- what there is to fetch ----------------------------------------------------------------------


def _weatherbench(variables: Sequence[str], base: str) -> list[Item]:
    """Single-level folders where the server has them (Z500, T850), else all 13 levels."""
    from s2kd.data._weatherbench import field_named

    wanted = [field_named(one) for one in variables or ("geopotential@500", "temperature@850")]
    single = ("geopotential@500", "temperature@850")
    folders = [f.channel.replace("@", "_") if f.channel in single else f.name for f in wanted]
    items = []
    for folder in dict.fromkeys(folders):
        archive = f"{folder}_5.625deg.zip"
        official = f"{TUM}?path=%2F5.625deg%2F{folder}&files={archive}"
        url = f"{base.rstrip('/')}/{folder}/{archive}" if base else official
        items.append(Item(url=url, path=archive, folder=folder))
    return items


def _taxibj(variables: Sequence[str], base: str) -> list[Item]:
    kind = tuple(variables) or ("openstl",)
    if kind == ("openstl",):
        url = f"{(base or OPENSTL).rstrip('/')}/taxibj_dataset.zip"
        return [Item(url=url, path="taxibj_dataset.zip", folder="openstl")]
    files = {("raw",): TAXIBJ_RAW, ("plus",): TAXIBJ_PLUS}.get(kind)
    if files is None:
        raise S2KDError(
            f"fetch taxibj: --variables must be one of openstl, raw, plus, got {', '.join(kind)}"
        )
    return [Item(url=f"{base.rstrip('/')}/{one}" if base else "", path=one) for one in files]


def _prometheus(variables: Sequence[str], base: str) -> list[Item]:
    names = [f"{scenario}{number}" for scenario in "ab" for number in range(1, 26)]
    wanted = []
    for one in variables or ("a", "b"):
        found = [n for n in names if one in (n, n[0], {"a": "T", "b": "P"}[n[0]])]
        if not found:
            raise S2KDError(
                f"fetch prometheus: no environment {one!r}{nearest(one, names)} (tunnel fires are "
                "a1 to a25, or all as T; pool fires b1 to b25, or all as P)"
            )
        wanted += found
    paths = {n: f"Prometheus-P/{n}_fds.npy" if n[0] == "b" else f"{n}_fds.npy" for n in wanted}
    root = (base or PROMETHEUS).rstrip("/")
    return [Item(url=f"{root}/{path}", path=path) for path in paths.values()]


ERA5 = (
    "contains modified Copernicus Climate Change Service information (ERA5): free for any use with "
    "this notice"
)
SOURCES = {
    "weatherbench": Source(
        items=_weatherbench,
        yearly=True,
        licence=f"{ERA5}; WeatherBench's own terms are at https://mediatum.ub.tum.de/1524895",
        cite="Rasp et al. (2020), WeatherBench, doi:10.1029/2020MS002203",
        then="s2kd run weatherbench --data {out} --out runs/weatherbench",
        gone="WeatherBench's authors say that its files are not served any more "
        "(https://github.com/pangeo-data/WeatherBench/issues/57). The same fields on the same "
        "grid: s2kd data fetch weatherbench2 --out {out}. If you have the files, put the folders "
        "geopotential_500 and temperature_850 with one NetCDF file a year into {out}, or name a "
        "copy with --from URL, where URL/geopotential_500/geopotential_500_5.625deg.zip lies.",
    ),
    "weatherbench2": Source(
        items=lambda variables, base: [],
        yearly=True,
        licence=ERA5,
        cite="Rasp et al. (2024), WeatherBench 2, doi:10.1029/2023MS004019",
        then="s2kd run weatherbench --data {out}/weatherbench2.zarr --out runs/weatherbench",
        gone="",
    ),
    "taxibj": Source(
        items=_taxibj,
        licence="research use; no licence is stated by its publishers",
        cite="Zhang, Zheng and Qi (2017), Deep Spatio-Temporal Residual Networks, AAAI; for the "
        "cut windows Tan et al. (2023), OpenSTL, NeurIPS Datasets and Benchmarks",
        then="s2kd run taxibj --data {out} --out runs/taxibj",
        gone="By hand: OpenSTL's windows (taxibj_dataset.zip) are also at "
        "https://pan.baidu.com/s/1fudsBHyrf3nbt-7d42YWWg?pwd=kjfk; put dataset.npz into "
        "{out}/openstl. Another copy: --from URL, where URL/taxibj_dataset.zip lies.",
    ),
    "prometheus": Source(
        items=_prometheus,
        licence="none is stated by its publishers: ask them before you pass it on",
        cite="the Prometheus data set of https://github.com/easylearningscores/DGODE_ood",
        then="s2kd data describe {out}, which says what to write into prometheus.json",
        gone="By hand: download a1_fds.npy … a25_fds.npy (tunnel fires) and "
        "Prometheus-P/b1_fds.npy … b25_fds.npy (pool fires) from "
        "https://huggingface.co/datasets/easylearning/Prometheus and put them, with these names, "
        "into {out}. Another copy: --from URL, where URL/a1_fds.npy lies.",
    ),
}
BY_HAND = {
    "raw": "TaxiBJ's raw files lie in cloud folders that want a person. Download {files} from "
    "https://1drv.ms/f/s!Akh6N7xv3uVmhOhDKwx3bm5zpHkDOQ (OneDrive) or "
    "http://pan.baidu.com/s/1qYq7ja8 (Baidu) and put them into {out}; the same command then checks "
    "them. OpenSTL's cut windows come by themselves: s2kd data fetch taxibj --out {out}",
    "plus": "TaxiBJ+ has no public address that is known to work; its users have it from the "
    "authors of EarthFarseer (https://github.com/easylearningscores/EarthFarseer). Put {files} "
    "into {out}; the same command then checks them",
}


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise S2KDError(
            f"fetch: no data set called {name!r}{nearest(name, SOURCES)} (there are "
            f"{', '.join(SOURCES)})"
        )
    return SOURCES[name]


def _years(name: str, text: str, source: Source) -> tuple[int, ...]:
    """`1979-1981,2016` as years; all of the benchmark's where nothing is said."""
    if text and not source.yearly:
        raise S2KDError(f"fetch {name}: has no files by year, so --years does not apply")
    found: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        matched = re.fullmatch(r"(\d{4})(?:[-–:](\d{4}))?", part)
        first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (1, 0)
        if last < first:
            raise S2KDError(f"--years {text}: wants years such as 1979-2018 or 2016,2017")
        found |= set(range(first, last + 1))
    return tuple(sorted(found)) if found else YEARS if source.yearly else ()


# --- files ---------------------------------------------------------------------------------------


def _fetch_items(
    name: str,
    source: Source,
    out: Path,
    variables: Sequence[str],
    years: Sequence[int],
    base: str,
    shown: Quiet,
    waits: Sequence[float],
) -> tuple[str, ...]:
    """Check what is there, then fetch what is not; sums are written after every item."""
    items = source.items(variables, base)
    sums = _read_sums(out)
    for item in items:
        for half in out.glob(f".{item.folder}.*.part") if item.folder else ():
            shutil.rmtree(half)  # of an unpacking that was killed
    todo = []
    for item in items:
        held = _held_files(item, out, sums, years)
        if held:
            _verify(out, held, sums, shown)
        else:
            todo.append(item)
    _by_hand(name, todo, out, variables, sums)
    try:
        remotes = _sizes(todo, out, shown, waits)
        for item, remote in remotes:
            sums |= _fetch_item(item, remote, out, years, sums, shown, waits)
            _write_sums(out, sums)
    except Unreachable as error:
        remedy = "" if base else f". {source.gone.format(out=out)}"
        raise S2KDError(f"{error}{remedy}") from None
    return tuple(f for item in items for f in _held_files(item, out, sums, years))


def _held_files(
    item: Item, out: Path, sums: dict[str, str], years: Sequence[int]
) -> tuple[str, ...]:
    """The recorded files of an item, if all of it is there; none otherwise."""
    if not item.folder:
        return (item.path,) if item.path in sums and (out / item.path).exists() else ()
    own = [one for one in sums if one.startswith(f"{item.folder}/") and (out / one).exists()]
    wanted = [one for one in own if _is_of(one, years)]
    found = {_year(one) for one in wanted}
    return tuple(wanted) if wanted and set(years) <= found else ()


def _year(name: str) -> int | None:
    matched = YEAR.search(Path(name).name)
    return int(matched[1]) if matched else None


def _is_of(name: str, years: Sequence[int]) -> bool:
    year = _year(name)
    return not years or year is None or year in years


def _verify(out: Path, files: Sequence[str], sums: dict[str, str], shown: Quiet) -> None:
    for one in files:
        told = _in_mib(shown.report(f"checking {Path(one).name}"))
        if sha256(out / one, report=told) != sums[one]:
            raise S2KDError(
                f"{out / one}: is not what was first fetched (its SHA-256 differs from the one in "
                f"{out / SUMS}); delete it, and the same command fetches it again"
            )


def _by_hand(
    name: str, todo: list[Item], out: Path, variables: Sequence[str], sums: dict[str, str]
) -> None:
    """Files without an address: record those that a person has put there, ask for the others."""
    for item in [item for item in todo if not item.url]:
        if (out / item.path).exists():
            sums[item.path] = sha256(out / item.path)
            todo.remove(item)
    _write_sums(out, sums)
    lacking = [item.path for item in todo if not item.url]
    if lacking:
        text = BY_HAND[variables[0]].format(files=", ".join(lacking), out=out)
        raise S2KDError(f"fetch {name}: {text}")


def _sizes(
    items: Sequence[Item], out: Path, shown: Quiet, waits: Sequence[float]
) -> list[tuple[Item, Remote]]:
    """Ask for all sizes, say them, and see that the disk has room, before anything is fetched."""
    found, needed = [], 0
    for item in items:
        shown.say(f"asking {item.url}")
        remote = look(item.url, waits=waits[:FEWER])
        found.append((item, remote))
        part = out / f"{item.path}.part"
        there = next((p.stat().st_size for p in (out / item.path, part) if p.exists()), 0)
        left = max(0, remote.size - there)
        # an archive's files lie beside it for a while; fields of floats hardly shrink in it
        needed += left + (remote.size if item.folder else 0)
        size = _gib(remote.size) if remote.size else "of unknown size"
        shown.say(f"{item.path}: {size}{f', {_gib(there)} of it is there' if there else ''}")
    free = shutil.disk_usage(out).free
    if needed > free:
        raise S2KDError(
            f"{out}: about {_gib(needed)} are needed, {_gib(free)} are free; choose a larger disk "
            "or fewer --variables"
        )
    return found


def _fetch_item(
    item: Item,
    remote: Remote,
    out: Path,
    years: Sequence[int],
    sums: dict[str, str],
    shown: Quiet,
    waits: Sequence[float],
) -> dict[str, str]:
    """Fetch one file, unpack it if it is an archive; the sums to record."""
    path = out / item.path
    if not path.exists():
        download(remote, path, report=_in_mib(shown.report(path.name)), waits=waits)
    elif remote.size and path.stat().st_size != remote.size:
        raise S2KDError(
            f"{path}: has {path.stat().st_size} bytes, the file at {item.url} has {remote.size}; "
            "delete it, and the same command fetches it"
        )
    found = sha256(path, report=_in_mib(shown.report(f"checksum of {path.name}")))
    if sums.get(item.path, found) != found:
        path.unlink()
        raise S2KDError(
            f"{item.url}: is not the file that was first fetched (its SHA-256 differs from the one "
            f"in {out / SUMS}); remove that line if the publisher has a new version"
        )
    if not item.folder:
        return {item.path: found}
    lacking = sorted(set(years) - {_year(one) for one in names_in(path)})
    if lacking:
        from s2kd.data._weatherbench import in_words

        raise S2KDError(f"{path}: holds no file of {in_words(lacking)}; set --years")
    told = _in_mib(shown.report(f"unpacking {path.name}"))
    files = unzip(path, out / item.folder, keep=lambda one: _is_of(one, years), report=told)
    recorded = {one.relative_to(out).as_posix(): sha256(one) for one in files}
    path.unlink()
    return {item.path: found, **recorded}


def _copy_store(
    out: Path,
    variables: Sequence[str],
    years: Sequence[int],
    base: str,
    shown: Quiet,
    waits: Sequence[float],
) -> tuple[str, ...]:
    """WeatherBench 2: the chosen fields out of a Zarr store at an address."""
    from s2kd.data._weatherbench import field_named
    from s2kd.data.fetch_zarr import copy_fields

    fields = [field_named(one) for one in variables or ("geopotential@500", "temperature@850")]
    target, sums = out / "weatherbench2.zarr", _read_sums(out)
    told = shown.report("frames")
    new = copy_fields(
        base or WEATHERBENCH2,
        target,
        fields,
        years,
        report=lambda done, total: told(done, total, ""),
        say=shown.say,
        waits=waits,
    )
    files = [p.relative_to(out).as_posix() for p in sorted(target.rglob("*")) if p.is_file()]
    recorded = [one for one in sums if one.startswith(f"{target.name}/")]
    if new or not recorded:
        _write_sums(out, sums | {one: sha256(out / one) for one in files})
    else:
        _verify(out, recorded, sums, Quiet())
    return (target.name,)


# --- what they share -----------------------------------------------------------------------------


def _read_sums(out: Path) -> dict[str, str]:
    """Recorded sums by path; of an archive that is gone by now, too (its line is a comment)."""
    path = out / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    matched = [re.fullmatch(r"(?:# )?([0-9a-f]{64})  (.+)", line) for line in lines]
    return {one[2]: one[1] for one in matched if one}


def _write_sums(out: Path, sums: dict[str, str]) -> None:
    """As `sha256sum -c` reads them; what is not there any more as comments."""
    if not sums:
        return
    lines = [
        f"{'' if (out / name).exists() else '# '}{value}  {name}"
        for name, value in sorted(sums.items())
    ]
    write_text(out / SUMS, "\n".join(lines) + "\n")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One fetch a folder at a time."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise S2KDError(f"{out}: is a file, or lies in one; --out wants a folder") from None
    lock = out / ".lock"
    with locked(lock, S2KDError(f"{out}: another fetch is at work in this folder")):
        try:
            yield
        finally:
            if [*out.iterdir()] == [lock]:  # nothing came of it
                shutil.rmtree(out)


def _in_mib(told: Callable[[int, int, str], None]) -> Callable[[int, int], None]:
    """Told once a MiB, and of the last one only at the end; an unknown total is one more."""
    last = -1

    def report(done: int, total: int) -> None:
        nonlocal last
        whole = -(-total // 2**20) if total else done // 2**20 + 1
        now = whole if total and done >= total else min(done // 2**20, whole - 1)
        if now != last:
            last = now
            told(now, whole, "MiB")

    return report


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"
