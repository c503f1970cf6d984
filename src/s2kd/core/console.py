"""Output of the command line: progress bars or plain lines, tables, JSON."""

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Where torchrun, Fabric and SLURM write which of several processes this is."""


def first_process(processes: int = 0) -> bool:
    """Whether this is the one of several processes that speaks, and holds the lock for all.

    Given how many `processes` the work is shared among (below 0: as many as there are), SLURM's
    number counts only where so many tasks were started: tasks may also work each by itself.
    """
    tasks = os.environ.get("SLURM_NTASKS", "1")
    is_single = processes > 0 and (processes == 1 or tasks != str(processes))
    names = [name for name in RANKS if name != "SLURM_PROCID" or not is_single]
    return all(os.environ.get(name, "0") == "0" for name in names)


@runtime_checkable
class Progress(Protocol):
    """Called while one stage is at work: how much is done, of how much, and a short note."""

    def __call__(self, done: int, total: int, word: str = "") -> None: ...


class Quiet:
    """Nothing is shown."""

    def progress(self, stage: str) -> Progress:
        """The progress of one stage."""
        return lambda done, total, word="": None

    def say(self, text: str) -> None:
        """Not said."""


class Lines(Quiet):
    """For logs and pipes: a line when a stage ends, and every 30 seconds meanwhile."""

    def progress(self, stage: str) -> Progress:
        start = last = time.monotonic()

        def show(done: int, total: int, word: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done >= total or now - last > 30:
                last = now
                tail = f" ({word})" if word else ""
                self.say(f"{stage}: {done} of {total} in {now - start:.0f} s{tail}")

        return show

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bars(Quiet):
    """For terminals: one bar a stage, with time left."""

    def __init__(self, bars: "RichProgress") -> None:
        self._bars = bars

    def progress(self, stage: str) -> Progress:
        task = None

        def show(done: int, total: int, word: str = "") -> None:
            nonlocal task
            if task is None:
                task = self._bars.add_task(stage, total=total, word=word)
            # a training that stops early never reaches its total
            self._bars.update(task, completed=done, total=total, word=word)

        return show

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False)


class Overall(Quiet):
    """One line for a job of many stages, its time left, and a log file of every message.

    `seconds` is the time that the job may take; what is done of it is the time gone by.
    """

    def __init__(self, shown: Quiet, log: Path, seconds: float) -> None:
        self._shown, self._log, self._seconds = shown, log, max(1, round(seconds))
        self._start, self._line = time.monotonic(), shown.progress("distill")

    def progress(self, stage: str) -> Progress:
        last = 0.0

        def show(done: int, total: int, word: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if done < total and now - last < 0.5:
                return
            last = now
            spent = min(round(now - self._start), self._seconds - 1)
            note = f"{stage}: {done} of {total}" + (f", {word}" if word else "")
            self._line(spent, self._seconds, note)
            if done >= total:
                self._write(note)

        return show

    def say(self, text: str) -> None:
        self._shown.say(text)
        self._write(text)

    def _write(self, text: str) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Quiet]:
    """Bars on a terminal, lines elsewhere; all of it on standard error."""
    if quiet:
        yield Quiet()
        return
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[word]}"),
        console=Console(stderr=True, markup=False),
    )
    with bars:
        yield Bars(bars)


def escape_what_a_terminal_lacks() -> None:
    """Print characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(value: object) -> None:
    """`value` on standard output, indented; ASCII where the terminal has no UTF-8."""
    ascii_only = not str(sys.stdout.encoding).lower().startswith("utf")
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only, default=str))


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    justify: Literal["left", "right"] = "left",
) -> None:
    """A table on standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in head:
        table.add_column(name, justify=justify)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
