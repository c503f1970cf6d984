"""Names for parts: define one, decorate it, and it can be asked for by name."""

import difflib
import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args

from s2kd.core.types import S2KDError

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., object])


IMPORT = "S2KD_IMPORT"
"""The environment variable that names modules with parts of the user's own, by comma."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def import_own(module: str) -> ModuleType:
    """A module of the user's own, from the current folder or installed.

    Whatever goes wrong in it is an S2KDError that says what and in which line.
    """
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:  # an installed program does not look there
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except S2KDError as error:
        raise S2KDError(f"cannot import {module!r}: {error}") from None
    except (Exception, SystemExit) as error:  # the user's code may fail in any way
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise S2KDError(
                f"cannot import {module!r}: neither in {folder} nor installed"
            ) from None
        raise S2KDError(f"cannot import {module!r}: {_failure(error, folder)}") from None


def _failure(error: BaseException, folder: str) -> str:
    """`Type: message (file:line)`, the line being the last one of the user's own."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{kind}: {error.msg} ({Path(error.filename or '').name}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    frame = ([entry for entry in frames if entry.filename.startswith(folder)] or frames)[-1]
    return f"{kind}: {error} ({Path(frame.filename).name}:{frame.lineno})"


class Registry(Generic[T]):
    """Parts of one kind, found in one package of ours, in installed plugins and in `S2KD_IMPORT`.

    A part is a callable with keyword-only arguments. Someone else's package offers one by an
    entry point in `group`, for example `s2kd.backbones`; a file that is not installed is named in
    the environment variable `S2KD_IMPORT`.
    """

    def __init__(self, kind: str, package: str, *, group: str) -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self._entries: dict[str, Callable[..., T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator: from now on this part can be asked for by `name`."""
        return lambda part: self._add(name, part)

    def _add(self, name: str, part: C) -> C:
        if name in self._entries:
            raise S2KDError(
                f"two {self.kind}s are called {name!r}: "
                f"{self._entries[name].__module__} and {part.__module__}"
            )
        self._entries[name] = part
        return part

    def names(self) -> tuple[str, ...]:
        """Every part's name, sorted."""
        self._load()
        return tuple(sorted(self._entries))

    def get(self, name: str) -> Callable[..., T]:
        """The part itself; an unknown name is an error that suggests the nearest."""
        self._load()
        if name not in self._entries:
            raise S2KDError(
                f"no {self.kind} called {name!r}{nearest(name, self._entries)}"
                f" (there are {', '.join(self.names())}); one of your own is found where its "
                f"module is named in {IMPORT}, as in {IMPORT}=my_parts"
            )
        return self._entries[name]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword-only settings of a part, by name."""
        parameters = inspect.signature(self.get(name)).parameters
        return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    def resolved(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """`params` with every default of the part written out."""
        defaults = {k: p.default for k, p in self.options(name).items() if p.default is not p.empty}
        return {**defaults, **params}

    def check(self, name: str, given: Mapping[str, object]) -> None:
        """Refuse a setting that the part does not have, or that must be a number and is none."""
        options = self.options(name)
        for key in given:
            if key not in options:
                raise S2KDError(
                    f"{self.kind} {name!r} has no setting {key!r}{nearest(key, options)}"
                    f" (it has {', '.join(options) or 'none'})"
                )
        for key, value in given.items():
            kind = options[key].annotation
            kinds = set(get_args(kind)) if isinstance(kind, UnionType) else {kind}
            if not kinds <= {int, float, NoneType} or (value is None and NoneType in kinds):
                continue
            base, noun = (Real, "number") if float in kinds else (Integral, "whole number")
            if isinstance(value, bool) or not isinstance(value, base):  # NumPy's will do too
                raise S2KDError(f"{self.kind} {name!r}: {key}={value!r} must be a {noun}")

    def build(self, name: str, /, *args: object, **params: object) -> T:
        """Make the part; a setting it does not know, or one that is missing, is an error."""
        part = self.get(name)
        self.check(name, params)
        try:
            inspect.signature(part).bind(*args, **params)
        except TypeError as error:
            raise S2KDError(f"{self.kind} {name!r}: {error}") from None
        return part(*args, **params)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for plugin in entry_points(group=self.group):
            part = plugin.load()  # which may itself register it, by the decorator
            if self._entries.get(plugin.name) is not part:
                self._add(plugin.name, part)
        for module in os.environ.get(IMPORT, "").split(","):
            if module.strip():
                import_own(module.strip())
