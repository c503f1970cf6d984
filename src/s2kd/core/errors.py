"""The one error that users see, and the hint at a misspelt name."""

import difflib
from collections.abc import Iterable


class S2KDError(Exception):
    """Anything the user can put right; the command line prints it without a traceback.

    A message is one line: of the many that libraries write, the first two are kept.
    """

    def __init__(self, message: object = "") -> None:
        first, *rest = str(message).splitlines() or [""]
        text = " ".join([first, *(line.strip() for line in rest[:1])])
        super().__init__(f"{text} (and {len(rest) - 1} more lines)" if len(rest) > 1 else text)


def first_line(error: BaseException) -> str:
    """What an error of a library says first; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
