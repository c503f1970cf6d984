"""The one error that users see, apart from all that is slow to import."""


class S2KDError(Exception):
    """Anything the user can put right; the command line prints it without a traceback."""
