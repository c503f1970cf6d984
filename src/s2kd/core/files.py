"""Atomic files and folders, JSON, digests and locks."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from s2kd.core.types import S2KDError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then flush and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` as the whole content of `path`."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in `path`; a file that is missing or torn is an S2KDError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise S2KDError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise S2KDError(f"{path}: not readable as JSON ({error})") from None


def digest(value: object) -> str:
    """A short, stable name for a JSON-able value."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(canonical.encode(), digest_size=12).hexdigest()


def check_room(
    folder: Path, size: int, *, remedy: str = "choose a folder on a larger disk"
) -> None:
    """Refuse a folder that cannot be written, or a disk with less than `size` bytes free.

    `remedy` ends the sentence on the disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror
        raise S2KDError(f"{folder}: cannot be written ({reason}); choose another folder") from None
    free = shutil.disk_usage(folder).free
    if free < size:
        raise S2KDError(
            f"{folder}: {size / 2**30:.3g} GiB are needed, {free / 2**30:.3g} GiB are free; "
            f"{remedy}"
        )


@contextmanager
def locked(path: Path, busy: S2KDError) -> Iterator[None]:
    """Lock `path`, made if need be, for this process alone; raises `busy` if another has it."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder beside `path` to fill, renamed to `path` on success.

    A folder that is at `path` already is only taken away where `replace` says so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    removed = [temporary]
    try:
        yield temporary
        temporary.chmod(0o755)
        if (
            replace and path.exists()
        ):  # the name is free for an instant only: the old folder is removed later
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            path.replace(old)
            removed.append(old)
        temporary.replace(path)
    finally:
        for folder in removed:
            shutil.rmtree(folder, ignore_errors=True)
