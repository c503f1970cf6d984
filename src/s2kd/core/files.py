"""Atomic files and folders, JSON, digests of whatever is read again, and locks."""

import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from s2kd.core.types import S2KDError

if TYPE_CHECKING:
    import xarray as xr


Writer = Callable[[Path, Callable[[Path], object]], None]
"""`write_whole` or `write_sealed`."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then flush and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _part(path)
    try:
        temporary.open("xb").close()
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    """A new hidden name beside `path` that says who writes it."""
    writer = f"{os.getpid()}@{socket.gethostname()}"
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.{writer}.part")


def clear_parts(folder: Path) -> None:
    """Remove what processes of this machine had begun to write in `folder` when they ended."""
    for part in list(folder.rglob(".*@*.part")):
        writer, _, host = part.name.removesuffix(".part").rpartition("@")
        if host != socket.gethostname() or is_alive(int(writer.rpartition(".")[2])):
            continue
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine with this number may run."""
    if os.name == "posix":  # elsewhere, signal 0 is no question
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
    return True


def write_text(path: Path, text: str, write: Writer = write_whole) -> None:
    """`text` as the whole content of `path`."""
    write(path, lambda file: file.write_text(text, encoding="utf-8"))


def json_text(value: object) -> str:
    """`value` as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: object, write: Writer = write_whole) -> None:
    """`value` as indented JSON, in a file."""
    write_text(path, json_text(value), write)


def read_json(path: Path) -> Any:
    """The JSON in `path`, in any UTF; S2KDError names a file that is missing or torn."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise S2KDError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise S2KDError(f"{path}: not readable as JSON ({error})") from None


def write_netcdf(
    path: Path,
    dataset: "xr.Dataset",
    encoding: Mapping[str, Any] | None = None,
    write: Writer = write_whole,
) -> None:
    """A NetCDF-4 file, made in memory first: HDF5 ends the process where a disk is full."""
    content = dataset.to_netcdf(engine="h5netcdf", encoding=encoding)
    write(path, lambda file: file.write_bytes(content))


# --- digests -------------------------------------------------------------------------------------


def digest(value: object) -> str:
    """A short, stable name for a JSON-able value."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return bytes_digest(canonical.encode())


def bytes_digest(content: bytes) -> str:
    """A short, stable name for bytes."""
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON-able data with a digest over all the rest."""
    plain = json.loads(json.dumps(content))
    plain.pop("digest", None)
    return {**plain, "digest": digest(plain)}


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in `path`, which `sealed` made; `remedy` ends the sentence of an error.

    Raises S2KDError where it is torn, no object, or was altered (earlier versions wrote no digest;
    their files are read as they are).
    """
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise S2KDError(f"{path}: holds no JSON object; {remedy}")
    if plain.get("digest", "") not in ("", sealed(plain)["digest"]):
        raise S2KDError(f"{path}: was altered after it was written; {remedy}")
    return plain


@contextmanager
def plain_fields(path: Path, remedy: str) -> Iterator[None]:
    """One sentence where the plain data of `path` lack a field, or have one of another kind."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise S2KDError(f"{path}: a field is absent or wrong ({error!r}); {remedy}") from None


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """`write_whole`, with the digest of the content in a hidden file beside `path`."""
    note = _seal(path)
    digests = note.read_text().split() if note.exists() and path.exists() else []

    def write_and_note(file: Path) -> None:
        write(file)
        # until the rename, the content of an earlier write is there
        digests.append(file_digest(file))
        write_text(note, "\n".join(digests))

    write_whole(path, write_and_note)
    write_text(note, digests[-1])


def seal(path: Path) -> None:
    """Note the digest of a file that is there."""
    write_text(_seal(path), file_digest(path))


def check_seal(path: Path, remedy: str) -> None:
    """Refuse a file that was altered after `write_sealed` wrote it.

    Files of earlier versions have no digest, and pass.
    """
    note = _seal(path)
    digests = note.read_bytes().split() if note.exists() and path.exists() else []
    if digests and file_digest(path).encode() not in digests:
        raise S2KDError(f"{path}: was altered after it was written; {remedy}")


def _seal(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


class BlockDigests:
    """Digests of an array's blocks along its first axis, each checked when it is first read.

    `label` names the array in errors, which end with `remedy`; a block has `length` entries.
    """

    def __init__(self, label: str, length: int, digests: Sequence[str], remedy: str) -> None:
        self.label, self.length, self.digests, self.remedy = label, length, digests, remedy
        self._checked: set[int] = set()

    def unchecked(self, index: Int[np.ndarray, " entry"]) -> list[int]:
        """The blocks of these entries that were not checked yet."""
        return sorted(set((np.unique(index) // self.length).tolist()) - self._checked)

    def check(self, number: int, block: np.ndarray) -> None:
        """Refuse a block that differs from the one that was written."""
        if number in self._checked:
            return
        if number >= len(self.digests) or block_digest(block) != self.digests[number]:
            first = number * self.length
            raise S2KDError(
                f"{self.label}: block {number} (entries {first} to {first + len(block) - 1}) is "
                f"not what was written; {self.remedy}"
            )
        self._checked.add(number)


def block_digest(block: np.ndarray) -> str:
    """Digest of an array's bytes in C order."""
    return hashlib.blake2b(np.ascontiguousarray(block).data, digest_size=8).hexdigest()


# --- folders -------------------------------------------------------------------------------------


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
    from filelock import FileLock, Timeout

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
    temporary = _part(path)
    removed = [temporary]
    try:
        temporary.mkdir()
        yield temporary
        if replace and path.exists():  # the name is free for an instant only
            old = _part(path)
            path.replace(old)
            removed.append(old)
        temporary.replace(path)
    finally:
        for folder in removed:
            shutil.rmtree(folder, ignore_errors=True)
