"""Zip archives into a folder that is whole or not there, and nowhere else."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from s2kd.core.errors import S2KDError
from s2kd.core.files import whole_folder

BLOCK = 2**20
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unzip(
    archive: Path,
    folder: Path,
    *,
    keep: Callable[[str], bool] = lambda name: True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, ...]:
    """Unpack the files that `keep` wants into `folder`; gives their paths.

    Files go to a folder beside it first. A new `folder` appears at once by its renaming; files
    are moved into one that exists, each whole. One folder that holds all of the archive is left
    out of the paths. Refused before anything is written: paths that lead out of the folder, links,
    the same name twice, and more than the disk has room for. `report` is told bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            chosen = _chosen(archive, opened.infolist(), keep)
            _check_room(archive, folder, sum(member.file_size for member, _ in chosen))
            with whole_folder(folder) as beside:
                _extract(opened, chosen, beside, report)
                if folder.exists():
                    _merge(beside, folder, [path for _, path in chosen])
                    raise _Merged  # so that the emptied folder goes and is not renamed
    except _Merged:
        pass
    except BROKEN as error:
        raise _damaged(archive, error) from None
    return tuple(folder / path for _, path in chosen)


def names_in(archive: Path) -> tuple[str, ...]:
    """The names of the files in an archive, as it gives them."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return tuple(m.filename for m in opened.infolist() if not m.is_dir())
    except BROKEN as error:
        raise _damaged(archive, error) from None


def _damaged(archive: Path, error: Exception) -> S2KDError:
    return S2KDError(f"{archive}: a damaged archive ({error}); delete it and fetch it again")


class _Merged(Exception):
    """The files lie in a folder that was there before."""


def _chosen(
    archive: Path, members: Sequence[zipfile.ZipInfo], keep: Callable[[str], bool]
) -> list[tuple[zipfile.ZipInfo, Path]]:
    """The members wanted, with the paths they get; a hostile name refuses the whole archive."""
    files = [member for member in members if not member.is_dir()]
    for member in members:
        _check_name(archive, member)
    top = {PurePosixPath(member.filename).parts[0] for member in files}
    deep = all(len(PurePosixPath(member.filename).parts) > 1 for member in files)
    skip = 1 if len(top) == 1 and deep else 0
    found = [(m, Path(*PurePosixPath(m.filename).parts[skip:])) for m in files if keep(m.filename)]
    names = [path for _, path in found]
    if len(set(names)) < len(names):
        twice = next(path for path in names if names.count(path) > 1)
        raise S2KDError(f"{archive}: holds {twice} twice, so it is not unpacked")
    if not found:
        held = ", ".join(member.filename for member in files[:4])
        raise S2KDError(
            f"{archive}: holds none of the files asked for (it has {held or 'none'}, …)"
        )
    return found


def _check_name(archive: Path, member: zipfile.ZipInfo) -> None:
    """No absolute path, no way up, no drive, no link."""
    name = member.filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    if outside or not path.parts:
        raise S2KDError(f"{archive}: holds {name!r}, which leads out of its folder: not unpacked")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise S2KDError(f"{archive}: holds {name!r}, which is a link or device: not unpacked")


def _check_room(archive: Path, folder: Path, size: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < size:
        raise S2KDError(
            f"{folder.parent}: {size / 2**30:.1f} GiB are needed to unpack {archive.name}, "
            f"{free / 2**30:.1f} GiB are free"
        )


def _extract(
    opened: zipfile.ZipFile,
    chosen: Sequence[tuple[zipfile.ZipInfo, Path]],
    beside: Path,
    report: Callable[[int, int], None],
) -> None:
    """Write every member; its checksum is verified as its end is read."""
    done, total = 0, sum(member.file_size for member, _ in chosen)
    for member, path in chosen:
        target = beside / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, target.open("xb") as sink:
            while block := source.read(BLOCK):
                sink.write(block)
                done += len(block)
                report(done, total)


def _merge(beside: Path, folder: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (beside / path).replace(folder / path)
