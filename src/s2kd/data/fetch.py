"""Downloads of the official data sets into a folder: `s2kd data fetch`."""

import re
import shlex
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from s2kd.core.console import Progress, Quiet
from s2kd.core.errors import S2KDError
from s2kd.core.files import (
    check_room,
    digest,
    locked,
    read_sealed,
    sealed,
    write_json,
    write_netcdf,
    write_text,
    write_whole,
)
from s2kd.core.registry import nearest
from s2kd.data.readers.weatherbench import BenchmarkField, field_named, open_fields

if TYPE_CHECKING:
    import requests
    import xarray as xr

SUMS, MIB, BLOCK, FRAMES_PER_BLOCK = "SHA256SUMS", 2**20, 2**16, 1024
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each further attempt; every byte that arrives resets them."""
RETRIED = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that is busy or broken for a while."""
YEARS = tuple(range(1979, 2019))
WEATHERBENCH2 = (
    "https://storage.googleapis.com/weatherbench2/datasets/era5/"
    "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"
)
"""The public address of gs://weatherbench2/…, which needs no account and no gcsfs."""
OPENSTL = "https://github.com/chengtan9907/OpenSTL/releases/download/v0.1.0"
PROMETHEUS = "https://huggingface.co/datasets/easylearning/Prometheus/resolve/main"
NCEP = "https://downloads.psl.noaa.gov/Datasets/ncep.reanalysis/surface"
NCEP_YEARS, NCEP_FILE = (2013, 2014), "ncep_air_sig995_6h_2013_2014.nc"
TAXIBJ_RAW = (
    *(f"BJ{year}_M32x32_T30_InOut.h5" for year in (13, 14, 15, 16)),
    "BJ_Meteorology.h5",
    "BJ_Holiday.txt",
)
TAXIBJ_PLUS = tuple(
    f"{split}/{file}" for split in ("train", "valid", "test") for file in ("X_c.npy", "Y.npy")
)


class Unreachable(S2KDError):
    """An address gives no file."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a data set: its path in the folder, and its address or that of its zip archive.

    Files without an address must be downloaded by hand.
    """

    path: str
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set; `files` lists it by variables and mirror ("": the official address).

    `prepare` writes the file that a recipe reads from the downloaded ones, and returns its name.
    """

    files: Callable[[Sequence[str], str], list[RemoteFile]]
    licence: str
    cite: str
    next_command: str
    by_hand: str = ""
    prepare: Callable[[Path], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The files of a data set in its folder, with their terms."""

    folder: Path
    files: tuple[str, ...]
    licence: str
    cite: str
    next_command: str


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
    """Download `name` (ncep_air, weatherbench2, taxibj or prometheus) into the folder `out`.

    Files that are there are checked against `SHA256SUMS`; partial downloads are continued.

    Args:
        name: The data set.
        out: The folder.
        years: `1979-2018` or `2016,2017`, of weatherbench2.
        variables: Fields (`z500`, `temperature@850`), a kind of TaxiBJ (`openstl`, `raw`, `plus`)
            or environments of Prometheus (`a1`, `b3`, `a`, `b`).
        base: The address of a copy.
        shown: Where progress is shown.
        waits: Seconds before each further attempt.

    Raises:
        S2KDError: the disk is too small, an address gives no file, a file has changed, or must be
            downloaded by hand (the message says what, and where to put it).
    """
    out, shown = Path(out).expanduser(), shown or Quiet()
    if name not in SOURCES:
        raise S2KDError(
            f"fetch: no data set called {name!r}{nearest(name, SOURCES)} (there are "
            f"{', '.join(SOURCES)})"
        )
    source = SOURCES[name]
    if years and name != "weatherbench2":
        raise S2KDError(f"fetch {name}: has no files by year, so --years does not apply")
    files = source.files(variables, base)
    selected = parsed_years(years) or YEARS
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise S2KDError(f"{out}: is a file, or lies in one; --out needs a folder") from None
    lock = out / ".lock"
    with locked(lock, S2KDError(f"{out}: another process is downloading into this folder")):
        try:
            if name == "weatherbench2":
                names = (copy_fields(base or WEATHERBENCH2, out, variables, selected, shown),)
            else:
                names = fetch_files(files, out, source.by_hand, shown, waits)
            if source.prepare is not None:
                names = (*names, source.prepare(out))
        finally:
            if [*out.iterdir()] == [lock]:
                shutil.rmtree(out)
    command = source.next_command.format(out=shlex.quote(str(out)))
    return Fetched(
        folder=out, files=names, licence=source.licence, cite=source.cite, next_command=command
    )


def parsed_years(text: str) -> tuple[int, ...]:
    """`1979-1981,2016` as years."""
    years: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        matched = re.fullmatch(r"(\d{4})(?:[-–:](\d{4}))?", part)
        first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (1, 0)
        if last < first:
            raise S2KDError(f"--years {text}: must be years such as 1979-2018 or 2016,2017")
        years |= set(range(first, last + 1))
    return tuple(sorted(years))


# --- the data sets -------------------------------------------------------------------------------


def weatherbench_files(variables: Sequence[str], base: str) -> list[RemoteFile]:
    """WeatherBench's files have no address any more."""
    raise S2KDError(
        "fetch weatherbench: its authors say that the files are not served any more "
        "(https://github.com/pangeo-data/WeatherBench/issues/57); `s2kd data fetch weatherbench2` "
        "gets the same fields on the same grid"
    )


def ncep_files(variables: Sequence[str], base: str) -> list[RemoteFile]:
    """Near-surface air temperature of the globe, one file per year."""
    if variables:
        raise S2KDError("fetch ncep_air: has one variable, so --variables does not apply")
    root = (base or NCEP).rstrip("/")
    names = [f"air.sig995.{year}.nc" for year in NCEP_YEARS]
    return [RemoteFile(path=f"ncep/{name}", url=f"{root}/{name}") for name in names]


def cut_ncep(out: Path) -> str:
    """The two years over North America, as the recipe `ncep_air` reads them."""
    import xarray as xr

    target = out / NCEP_FILE
    paths = [out / "ncep" / f"air.sig995.{year}.nc" for year in NCEP_YEARS]
    with xr.open_mfdataset(paths, combine="nested", concat_dim="time") as globe:
        part = globe[["air"]].sel(lat=slice(75, 15), lon=slice(200, 330))
        if dict(part.sizes) | {"time": 0} != {"time": 0, "lat": 25, "lon": 53}:
            raise S2KDError(
                f"{paths[0].parent}: air.sig995 lies on another grid than NCEP's of 2.5°; its "
                "part over North America must have 25 latitudes and 53 longitudes"
            )
        part = part.astype("float32").load()
    for variable in part.variables.values():
        variable.encoding.clear()  # packed as in the source, the values would be rounded again
    write_netcdf(target, part)
    return target.name


def taxibj_files(variables: Sequence[str], base: str) -> list[RemoteFile]:
    """OpenSTL's archive, or the files of the raw data set or of TaxiBJ+."""
    kind = tuple(variables) or ("openstl",)
    if kind == ("openstl",):
        archive = f"{(base or OPENSTL).rstrip('/')}/taxibj_dataset.zip"
        return [RemoteFile(path="openstl/dataset.npz", url=archive)]
    paths = {("raw",): TAXIBJ_RAW, ("plus",): TAXIBJ_PLUS}.get(kind)
    if paths is None:
        raise S2KDError(
            f"fetch taxibj: --variables must be one of openstl, raw, plus, got {', '.join(kind)}"
        )
    root = f"{base.rstrip('/')}/" if base else ""
    return [RemoteFile(path=path, url=root and f"{root}{path}") for path in paths]


def prometheus_files(variables: Sequence[str], base: str) -> list[RemoteFile]:
    """One array per environment: 25 tunnel fires and 25 pool fires."""
    names = [f"{scenario}{number}" for scenario in "ab" for number in range(1, 26)]
    paths = []
    for variable in variables or ("a", "b"):
        matches = [n for n in names if variable in (n, n[0], {"a": "T", "b": "P"}[n[0]])]
        if not matches:
            raise S2KDError(
                f"fetch prometheus: no environment {variable!r}{nearest(variable, names)} (tunnel "
                "fires are a1 to a25, or all as T; pool fires b1 to b25, or all as P)"
            )
        paths += [f"{'Prometheus-P/' * (n[0] == 'b')}{n}_fds.npy" for n in matches]
    root = (base or PROMETHEUS).rstrip("/")
    return [RemoteFile(path=path, url=f"{root}/{path}") for path in dict.fromkeys(paths)]


ERA5 = (
    "contains modified Copernicus Climate Change Service information (ERA5): free for any use with "
    "this notice"
)
SOURCES = {
    "ncep_air": Source(
        files=ncep_files,
        licence="public domain (NOAA); NCEP/NCAR Reanalysis 1 by the NOAA PSL, Boulder, USA",
        cite="Kalnay et al. (1996), The NCEP/NCAR 40-year reanalysis project, Bull. Amer. Meteor. "
        "Soc. 77",
        next_command="s2kd distill ncep_air --data {out} --out runs/air",
        by_hand=f"the files are at {NCEP}",
        prepare=cut_ncep,
    ),
    "weatherbench": Source(files=weatherbench_files, licence=ERA5, cite="", next_command=""),
    "weatherbench2": Source(
        files=lambda variables, base: [],
        licence=ERA5,
        cite="Rasp et al. (2024), WeatherBench 2, doi:10.1029/2023MS004019",
        next_command="s2kd compare weatherbench --data {out}/weatherbench2.zarr "
        "--out runs/weatherbench",
    ),
    "taxibj": Source(
        files=taxibj_files,
        licence="research use; no licence is stated by its publishers",
        cite="Zhang, Zheng and Qi (2017), Deep Spatio-Temporal Residual Networks, AAAI; for the "
        "cut windows Tan et al. (2023), OpenSTL, NeurIPS Datasets and Benchmarks",
        next_command="s2kd compare taxibj --data {out} --out runs/taxibj",
        by_hand="TaxiBJ's raw files are at https://1drv.ms/f/s!Akh6N7xv3uVmhOhDKwx3bm5zpHkDOQ "
        "(OneDrive) or http://pan.baidu.com/s/1qYq7ja8 (Baidu), OpenSTL's windows also at "
        "https://pan.baidu.com/s/1fudsBHyrf3nbt-7d42YWWg?pwd=kjfk; TaxiBJ+ is given by the authors "
        "of EarthFarseer (https://github.com/easylearningscores/EarthFarseer)",
    ),
    "prometheus": Source(
        files=prometheus_files,
        licence="none is stated by its publishers: ask them before you pass it on",
        cite="the Prometheus data set of https://github.com/easylearningscores/DGODE_ood",
        next_command="s2kd data describe {out}, which says what to write into prometheus.json",
        by_hand="the files are at https://huggingface.co/datasets/easylearning/Prometheus",
    ),
}


# --- files ---------------------------------------------------------------------------------------


def fetch_files(
    files: Sequence[RemoteFile], out: Path, by_hand: str, shown: Quiet, waits: Sequence[float]
) -> tuple[str, ...]:
    """Check the files that are there, download the others; sums are written after every file."""
    import pooch

    lines = (out / SUMS).read_text("utf-8").splitlines() if (out / SUMS).exists() else []
    pairs = (line.partition("  ") for line in lines if line[0] != "#")
    sums = {path: value for value, _, path in pairs}
    for file in files:
        path = out / file.path
        if path.exists():
            shown.say(f"checking {path}")
        elif file.url:
            try:
                _download(file, out, shown.progress(path.name), waits)
            except Unreachable as error:
                raise S2KDError(f"{error}; by hand: {by_hand}; put {path.name} there") from None
        else:
            continue
        value = pooch.file_hash(path)
        if sums.setdefault(file.path, value) != value:
            raise S2KDError(
                f"{path}: has changed since it was downloaded (its SHA-256 differs from the one in "
                f"{out / SUMS}); delete it and its line there, and the same command downloads it"
            )
        write_text(out / SUMS, "".join(f"{v}  {p}\n" for p, v in sorted(sums.items())))
    if missing := [file.path for file in files if not (out / file.path).exists()]:
        raise S2KDError(
            f"fetch: {', '.join(missing)} must be downloaded by hand into {out}: {by_hand}; the "
            "same command then checks them"
        )
    return tuple(file.path for file in files)


def _download(file: RemoteFile, out: Path, progress: Progress, waits: Sequence[float]) -> None:
    """One file, complete or not there; from an archive, its member of that name."""
    import pooch

    archive = file.url.endswith(".zip") and not file.path.endswith(".zip")
    target = out / (PurePosixPath(file.url).name if archive else file.path)
    part = target.with_name(f"{target.name}.part")
    downloader = partial(resume, part=part, progress=progress, waits=waits)
    _check_links(out, target, part, out / file.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    pooch.utils.get_logger().setLevel("WARNING")
    pooch.retrieve(file.url, None, fname=target.name, path=target.parent, downloader=downloader)
    if archive:
        unpack(target, out / file.path)
        target.unlink()


def _check_links(out: Path, *targets: Path) -> None:
    """Refuse to write through symbolic links below `out`, which may lead anywhere."""
    for path in {path for target in targets for path in (target, *target.parents)}:
        if out in path.parents and path.is_symlink():
            raise S2KDError(f"{path}: is a symbolic link; remove it, or choose another --out")


def resume(
    url: str,
    output_file: str,
    pooch: Any = None,
    *,
    part: Path,
    progress: Progress,
    waits: Sequence[float] = WAITS,
) -> None:
    """A downloader for pooch that continues `part` where an earlier call stopped."""
    import requests

    passing = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    failures, best, note = 0, 0, part.with_name(f"{part.name}.json")
    while True:
        try:
            _append(url, part, note, progress)
            break
        except passing as error:
            reason = str(error)
        except requests.RequestException as error:
            raise Unreachable(f"{url}: {error}") from None
        size = part.stat().st_size if part.exists() else 0
        failures = 0 if size > best else failures + 1
        best = max(best, size)
        if failures > len(waits):
            raise Unreachable(
                f"{url}: gave up after {failures} attempts without progress ({reason}) with "
                f"{size} bytes in {part}; the same command continues from there"
            )
        time.sleep(waits[failures - 1] if failures else 0.0)
    part.replace(output_file)
    note.unlink()


def session_for(url: str) -> "requests.Session":
    """A session that follows redirects to http(s) alone, and never from https to http."""
    import requests

    session = requests.Session()
    if url.startswith("https:"):
        del session.adapters["http://"]
    return session


def _append(url: str, part: Path, note: Path, progress: Progress) -> None:
    """One request for the rest of a file; ConnectionError where another attempt may help."""
    import requests

    from s2kd import __version__

    begun = read_sealed(note, f"delete {part}") if part.exists() and note.exists() else {}
    size = part.stat().st_size if begun.get("url") == url else 0
    headers = {"User-Agent": f"s2kd/{__version__}", "Accept-Encoding": "identity"}
    if size:
        validator = begun.get("validator")
        headers |= {"Range": f"bytes={size}-"} | ({"If-Range": validator} if validator else {})
    with (
        session_for(url) as session,
        session.get(url, headers=headers, stream=True, timeout=30) as answer,
    ):
        status = answer.status_code
        if status in RETRIED or status == 416:
            if status == 416:  # nothing follows: the part is of another version, or complete
                part.unlink()
            raise requests.ConnectionError(f"the server answers {status}")
        if not answer.ok:
            raise Unreachable(f"{url}: the server answers {status} {answer.reason}")
        content_range = answer.headers.get("Content-Range", "")
        if status == 206 and not content_range.startswith(f"bytes {size}-"):
            part.unlink()
            raise requests.ConnectionError("the server answers with other bytes")
        size = size if status == 206 else 0
        length = answer.headers.get("Content-Length", "")
        total = size + (int(length) if length.isdecimal() else 0)
        check_room(part.parent, total - size)
        etag = answer.headers.get("ETag", "")
        weak = not etag or etag.startswith("W/")
        validator = answer.headers.get("Last-Modified", "") if weak else etag
        write_json(note, sealed({"url": url, "validator": validator}))
        with part.open("ab" if size else "wb") as file:
            for block in answer.iter_content(BLOCK):
                if size == 0 and block[:200].lstrip().lower().startswith((b"<!doctype", b"<html")):
                    raise Unreachable(f"{url}: gives a web page instead of a file")
                file.write(block)
                size += len(block)
                progress(size // MIB, -(-max(total, size) // MIB), "MiB")
        if length and size != total:
            raise requests.ConnectionError(f"{size} of {total} bytes came")


def unpack(archive: Path, path: Path) -> None:
    """Write the member of a zip archive that is called like `path` to `path`.

    Raises S2KDError where there is none, or where the archive is damaged, which is then removed.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if Path(m.filename).name == path.name]
            if not members:
                raise S2KDError(f"{archive}: holds no {path.name}")
            check_room(path.parent, members[0].file_size)

            def copy(part: Path) -> None:
                with opened.open(members[0]) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)

            write_whole(path, copy)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        archive.unlink()
        raise S2KDError(f"{archive}: was a damaged archive ({error}); fetch it again") from None


# --- WeatherBench 2 ------------------------------------------------------------------------------


def copy_fields(
    address: str, out: Path, variables: Sequence[str], years: Iterable[int], shown: Quiet
) -> str:
    """Copy fields and years of the Zarr store at an address, block by block; the store's name.

    Every field becomes a variable `geopotential_500` (time, latitude, longitude) in float32,
    north first. An interrupted copy is continued at the last complete block.
    """
    fields = [field_named(name) for name in variables or ("geopotential@500", "temperature@850")]
    selection = {"fields": [field.channel for field in fields], "years": list(years)}
    target, key = out / "weatherbench2.zarr", digest([address, selection])
    part, note = target.with_name(f".{target.name}.part"), out / f".{target.name}.json"
    record = read_sealed(note, "delete it to start again") if note.exists() else {}
    if target.exists():
        if record.get("selection") != selection:
            raise S2KDError(
                f"{target}: holds {record.get('selection') or 'another selection'}; give another "
                "--out, or delete it"
            )
        return target.name
    _check_links(out, target, part)
    shown.say(f"opening {address}")
    data = _selected(address, fields, selection["years"])
    done = record.get("done", 0) if record.get("key") == key and part.exists() else 0
    frames = data.sizes["time"]
    if not done:
        check_room(out, data.nbytes)
        shutil.rmtree(part, ignore_errors=True)
        chunks = (min(128, frames), *[data.sizes[name] for name in ("latitude", "longitude")])
        encoding = {name: {"chunks": chunks} for name in data.data_vars}
        data.to_zarr(
            part,
            compute=False,
            zarr_format=2,
            consolidated=False,
            encoding=encoding,
            safe_chunks=False,
        )
    progress = shown.progress(target.name)
    for first in range(done, frames, FRAMES_PER_BLOCK):
        stop = min(first + FRAMES_PER_BLOCK, frames)
        for wait in (*WAITS[:4], None):
            try:
                block = data.isel(time=slice(first, stop)).load()
                break
            except Exception as error:  # every file system raises its own kinds
                if wait is None:
                    raise S2KDError(
                        f"{address}: cannot be read ({error}); the same command continues from "
                        f"frame {first} of {frames}"
                    ) from None
                time.sleep(wait)
        block = block.drop_vars(["latitude", "longitude"])
        block.to_zarr(part, region={"time": slice(first, stop)}, consolidated=False)
        write_json(note, sealed({"key": key, "selection": selection, "done": stop}))
        progress(stop, frames)
    part.replace(target)
    return target.name


def _selected(address: str, fields: Sequence[BenchmarkField], years: Sequence[int]) -> "xr.Dataset":
    """These fields and years of a store, lazily, one variable per field and level."""
    record = open_fields(address, fields).drop_attrs(deep=False)
    record = record.rename({field.channel: field.flat for field in fields})
    record = record.swap_dims(row="latitude", column="longitude")
    inside = record.time.dt.year.isin(years).to_numpy()
    if missing := sorted(set(years) - set(record.time.dt.year.to_numpy().tolist())):
        raise S2KDError(f"{address}: holds no frames of {', '.join(map(str, missing))}")
    record = record.isel(time=inside.nonzero()[0]).astype("float32")
    for array in record.variables.values():
        array.encoding.clear()
    return record
