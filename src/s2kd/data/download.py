"""Large files over HTTP: resumed where they stopped, whole or not there at all."""

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path

from s2kd.core.errors import S2KDError
from s2kd.core.files import locked, write_json

BLOCK = 2**20
TIMEOUT_SECONDS = 30.0
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each further attempt; a byte that arrives starts them anew."""

LONGEST_WAIT = 120.0
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of a server that is busy or ill, which may be well again soon."""

STARTS = {
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".npy": (b"\x93NUMPY",),
    ".npz": (b"PK\x03\x04",),
    ".h5": (b"\x89HDF\r\n\x1a\n",),
    ".nc": (b"\x89HDF\r\n\x1a\n", b"CDF"),
}
FAULTS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, OSError)

Report = Callable[[int, int], None]
"""Told the bytes that are there and those that there will be (0: not known)."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """What a server says of a file.

    `size` is in bytes (0: it does not say). `validator` tells versions apart: a strong ETag, else
    the date of the last change, else empty.
    """

    url: str
    size: int = 0
    validator: str = ""


class Unreachable(S2KDError):
    """Nothing at this address gives the file; `status` is the server's answer (0: none)."""

    status = 0


def look(url: str, *, waits: Sequence[float] = WAITS) -> Remote:
    """Ask for the size without the content: HEAD, or the first byte where HEAD is refused."""

    def head() -> Remote:
        with _open(url, method="HEAD") as answer:
            _refuse_page(url, answer.headers)
            return _remote(url, answer.headers, _length(answer.headers))

    def first_byte() -> Remote:
        with _open(url, headers={"Range": "bytes=0-0"}) as answer:
            _refuse_page(url, answer.headers)
            whole = answer.status != 206
            size = _length(answer.headers) if whole else _content_range(answer.headers)[1]
            return _remote(url, answer.headers, size)

    try:
        found = _repeated(url, head, waits)
    except _Refused as refused:
        if refused.status not in (400, 403, 404, 405, 501):
            raise
        return _repeated(url, first_byte, waits)
    return found if found.size else _repeated(url, first_byte, waits)


def download(
    remote: Remote, path: Path, *, report: Report | None = None, waits: Sequence[float] = WAITS
) -> None:
    """Write what is at `remote.url` to `path`, which exists only when it is complete.

    Until then it grows as `PATH.part`, beside a note of its version. What is there is kept when
    the connection is cut or the process killed, and the rest is asked for (`Range`, `If-Range`);
    a server that ignores this, or has another version by now, makes it begin again. Raises
    `S2KDError` for a refusal, for a web page instead of a file, for a length that is not the one
    announced, and when nothing more arrives after all `waits`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    note = path.with_name(path.name + ".part.json")
    part.touch()
    with locked(part, S2KDError(f"{part}: another process is fetching this file")):
        if _noted(note) != asdict(remote):
            os.truncate(part, 0)
            write_json(note, asdict(remote))
        _fetch(remote, part, report or (lambda done, total: None), waits)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    note.unlink(missing_ok=True)


def sha256(path: Path, *, report: Report | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
            done += len(block)
            if report:
                report(done, total)
    return found.hexdigest()


# --- one file ------------------------------------------------------------------------------------


def _fetch(remote: Remote, part: Path, report: Report, waits: Sequence[float]) -> None:
    """Attempts until the part is whole; a longer part than before is no failure."""
    failures, best = 0, part.stat().st_size
    while True:
        try:
            _attempt(remote, part, report)
            return
        except _Again as again:
            have = part.stat().st_size
            failures = 0 if have > best else failures + 1
            best = max(best, have)
            if failures > len(waits):
                raise S2KDError(
                    f"{remote.url}: gave up after {failures} attempts ({again.reason}) with "
                    f"{_of(have, remote.size)} in {part}; the same command goes on from there"
                ) from None
            wait = waits[max(0, failures - 1)] if waits else 0.0
            time.sleep(max(wait, again.seconds))


def _attempt(remote: Remote, part: Path, report: Report) -> None:
    """One request for what is lacking."""
    have = part.stat().st_size
    if remote.size and have == remote.size:
        return
    if have > remote.size > 0:
        os.truncate(part, 0)
        have = 0
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if remote.validator:
            headers["If-Range"] = remote.validator
    try:
        with _open(remote.url, headers=headers) as answer:
            _take(remote, answer, part, have, report)
    except _Refused as refused:
        if refused.status == 416:  # nothing lies after what is there: it is of another version
            os.truncate(part, 0)
            raise _Again("the server has no such range") from None
        raise


def _take(
    remote: Remote, answer: http.client.HTTPResponse, part: Path, have: int, report: Report
) -> None:
    """Append the answer to the part, or begin again where it is the whole file."""
    _refuse_page(remote.url, answer.headers)
    resumed = answer.status == 206
    if resumed:
        first, size = _content_range(answer.headers)
        if first != have or (remote.size and size and size != remote.size):
            os.truncate(part, 0)
            raise _Again(f"the server answered with bytes from {first} of {size}")
    length = _length(answer.headers)
    total = (have if resumed else 0) + length if length else remote.size
    if remote.size and total != remote.size:
        raise Unreachable(
            f"{remote.url}: the server announced {remote.size} bytes and now sends {total}; "
            "run the same command again, and choose another address if it stays so"
        )
    with part.open("ab" if resumed else "wb") as file:
        done = have if resumed else 0
        for block in _blocks(answer):
            if done == 0:
                _check_start(remote.url, block)
            file.write(block)
            done += len(block)
            if total and done > total:
                file.truncate(0)
                raise Unreachable(f"{remote.url}: sends more than the {total} bytes it announced")
            report(done, total)
    if done < total:
        raise _Again(f"the connection ended after {_of(done, total)}")


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What arrives; a connection that breaks off is worth another attempt."""
    while True:
        try:
            block = answer.read1(BLOCK)
        except http.client.IncompleteRead as cut:
            block = cut.partial
            if not block:
                raise _Again("the connection was cut") from None
        except FAULTS as error:
            raise _Again(f"the connection was cut ({_reason(error)})") from None
        if not block:
            return
        yield block


def _check_start(url: str, block: bytes) -> None:
    """A page or a text where a file should begin is refused before it is written."""
    if block[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise Unreachable(f"{url}: gives a web page instead of a file")
    kinds = STARTS.get(_ending(url))
    if kinds and not any(block.startswith(kind[: len(block)]) for kind in kinds):
        raise Unreachable(
            f"{url}: gives no {_ending(url)} file (it starts with {bytes(block[:8])!r})"
        )


def _ending(url: str) -> str:
    """`.zip` of the address's path, or of the `files` that it asks a cloud folder for."""
    parts = urllib.parse.urlsplit(url)
    named = urllib.parse.parse_qs(parts.query).get("files", [parts.path])[-1]
    return Path(named).suffix.lower()


# --- asking --------------------------------------------------------------------------------------


class _Refused(Unreachable):
    """A status that no repetition changes."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"{url}: the server answers {status} {reason}".rstrip())
        self.status = status


class _Again(Exception):
    """Worth another attempt, after `seconds` at least."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.seconds = reason, min(seconds, LONGEST_WAIT)


def _repeated(url: str, ask: Callable[[], Remote], waits: Sequence[float]) -> Remote:
    for wait in (*waits, None):
        try:
            return ask()
        except _Again as again:
            if wait is None:
                raise Unreachable(
                    f"{url}: gave up after {len(waits) + 1} attempts ({again.reason})"
                ) from None
            time.sleep(max(wait, again.seconds))
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _open(
    url: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """An answer of 2xx; anything else is `_Again` or `_Refused`."""
    from s2kd import __version__

    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Unreachable(f"{url}: must be an http:// or https:// address")
    told = {"User-Agent": f"s2kd/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
    try:
        request = urllib.request.Request(url, method=method, headers=told)
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in AGAIN:
            raise _Again(
                f"the server answers {error.code} {error.reason}", _retry_after(error.headers)
            ) from None
        raise _Refused(url, error.code, str(error.reason)) from None
    except ValueError as error:
        raise Unreachable(f"{url}: no address ({error})") from None
    except FAULTS as error:
        raise _Again(f"no connection ({_reason(error)})") from None
    with answer:
        if url.startswith("https:") and not answer.geturl().startswith("https:"):
            raise Unreachable(f"{url}: leads to {answer.geturl()}, which is not encrypted")
        yield answer


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner) or type(inner).__name__


def _retry_after(headers: Message) -> float:
    said = str(headers.get("Retry-After", ""))
    return float(said) if said.isdigit() else 0.0


def _remote(url: str, headers: Message, size: int) -> Remote:
    etag = str(headers.get("ETag", ""))
    weak = etag.startswith("W/") or not etag
    validator = str(headers.get("Last-Modified", "")) if weak else etag
    return Remote(url=url, size=size, validator=validator)


def _length(headers: Message) -> int:
    said = str(headers.get("Content-Length", ""))
    return int(said) if said.isdigit() else 0


def _content_range(headers: Message) -> tuple[int, int]:
    """First byte and whole size out of `bytes 0-0/1234`; -1 and 0 where it does not say."""
    kind, _, rest = str(headers.get("Content-Range", "")).partition(" ")
    span, _, size = rest.partition("/")
    first = span.partition("-")[0]
    if kind.lower() != "bytes" or not first.isdigit():
        return -1, 0
    return int(first), int(size) if size.isdigit() else 0


def _refuse_page(url: str, headers: Message) -> None:
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise Unreachable(f"{url}: gives a web page instead of a file")


def _of(done: int, total: int) -> str:
    return f"{done} of {total} bytes" if total else f"{done} bytes"


def _noted(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
