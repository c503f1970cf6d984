"""The one error that users see, and the hint at a misspelt name."""

import difflib
from collections.abc import Iterable


class S2KDError(Exception):
    """Anything the user can put right; the command line prints it without a traceback."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
