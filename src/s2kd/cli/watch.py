"""The verb `s2kd watch`: a run as it grows, in the terminal or as a page; it only reads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from s2kd.core.errors import S2KDError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from s2kd.evaluation.progress import RunProgress

PAUSE = 2.0
"""Seconds between two looks at the files."""


def watch(
    out: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run folder, which may still be missing.")
    ],
    web: Annotated[
        bool, typer.Option("--web", help="Also serve a page that renews itself, on 127.0.0.1.")
    ] = False,
    port: Annotated[int, typer.Option(metavar="N", min=0, help="Port of the page; 0: any.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Print the state once and exit.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Go on after the run has ended.")] = False,
) -> None:
    """Show the leaderboard and curves of a run as they grow; start and stop it at any time."""
    from rich.console import Console
    from rich.live import Live

    from s2kd.evaluation.progress import RENEWAL, read_progress

    console, progress = Console(markup=False), read_progress(out)
    if once:
        if progress is None:
            raise S2KDError(f"{out}: holds no recipe.json, so not the folder of a run")
        console.print(_view(out, progress))
        return
    with served(out, port) if web else nullcontext("") as address:
        if address:
            console.print(f"Page: {address}", highlight=False)
        with Live(_view(out, progress), console=console, auto_refresh=False) as live:
            while stay or progress is None or not progress.ended:
                time.sleep(PAUSE)
                progress = _look(out)
                live.update(_view(out, progress), refresh=True)
        if web:
            time.sleep(2 * RENEWAL)  # the next reading of an open page is the report
    console.print(f"Report: {out / 'report.html'}", highlight=False)


def _look(out: Path) -> "RunProgress | None":
    """The progress; where a file was just being replaced, that of a moment later."""
    from s2kd.evaluation.progress import read_progress

    try:
        return read_progress(out)
    except (FileNotFoundError, S2KDError):
        time.sleep(PAUSE)
        return read_progress(out)


def _view(out: Path, progress: "RunProgress | None") -> "RenderableType":
    """Name and last message of the run above its trainings; of a finished search, the answer."""
    from rich.console import Group
    from rich.text import Text

    from s2kd.core.files import read_json
    from s2kd.evaluation.answer import Answer, headline, leaderboard
    from s2kd.evaluation.progress import progress_table

    if progress is None:
        return Text(f"Waiting for a run in {out}")
    parts = [Text(f"{progress.name}: {progress.message}"), progress_table(progress)]
    if progress.ended and (out / "answer.json").exists():
        answer = Answer.from_dict(read_json(out / "answer.json"))
        parts += [Text(headline(answer)), leaderboard(answer)]
    return Group(*parts)


def _page(out: Path) -> str:
    """The report of a run that has ended; of others, the page of their progress."""
    from s2kd.evaluation.page import render
    from s2kd.evaluation.progress import RENEWAL, progress_page

    progress = _look(out)
    if progress is None:
        return render(title=f"Waiting for a run in {out}", refresh=RENEWAL)
    if progress.ended:
        return (out / "report.html").read_text(encoding="utf-8")
    return progress_page(progress)


@contextmanager
def served(out: Path, port: int) -> Iterator[str]:
    """A server of the page on the loopback interface; gives its address."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = _page(out).encode() if self.path == "/" else b""
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *message: object) -> None:
            """Requests are not shown: the terminal shows the run."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
