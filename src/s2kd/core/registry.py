"""Registries of parts: a decorated class or function is built by its name and settings."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from s2kd.core.declared import Declaration, declarations
from s2kd.core.errors import S2KDError, nearest
from s2kd.core.reading import read

PLAIN = (str, bool, int, float, list, tuple, dict, type(None))
"""Values as JSON has them; only these are checked against the annotation of a setting."""

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., object])


IMPORT = "S2KD_IMPORT"
"""The environment variable that names modules with parts of the user's own, by comma."""


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
    the environment variable `S2KD_IMPORT`. A module of ours is imported when its part is used;
    names and settings are read from its source, as the import may take seconds.
    """

    def __init__(self, kind: str, package: str, *, group: str) -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self._entries: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator that registers a part under `name`."""
        return lambda part: self._add(name, part)

    def _add(self, name: str, part: C) -> C:
        home = part.__module__
        if name in self._entries:
            home = self._entries[name].__module__
        elif name in self._declared:
            home = self._declared[name].module
        if name in self._entries or home != part.__module__:
            raise S2KDError(f"two {self.kind}s are called {name!r}: {home} and {part.__module__}")
        self._entries[name] = part
        return part

    def names(self) -> tuple[str, ...]:
        """Every part's name, sorted."""
        self._import_own()
        return tuple(sorted({*self._declared, *self._plugins, *self._entries}))

    def get(self, name: str) -> Callable[..., T]:
        """The part itself; an unknown name is an error that suggests the nearest."""
        names = self.names()
        if name not in names:
            raise S2KDError(
                f"no {self.kind} called {name!r}{nearest(name, names)}"
                f" (there are {', '.join(names)}); one of your own is found where its "
                f"module is named in {IMPORT}, as in {IMPORT}=my_parts"
            )
        if name in self._declared:
            importlib.import_module(self._declared[name].module)
        if name in self._plugins:
            part = self._plugins[name].load()  # which may itself register it, by the decorator
            if self._entries.get(name) is not part:
                self._add(name, part)
        return self._entries[name]

    def about(self, name: str) -> str:
        """The first line of a part's docstring."""
        if name in self._declared:
            return self._declared[name].about
        return (inspect.getdoc(self.get(name)) or "").partition("\n")[0]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword-only settings of a part, by name."""
        parameters = self._declared[name].settings() if name in self._declared else None
        if parameters is None:
            parameters = inspect.signature(self.get(name)).parameters
        return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    def resolved(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """`params` with every default of the part written out."""
        defaults = {k: p.default for k, p in self.options(name).items() if p.default is not p.empty}
        return {**defaults, **params}

    def check(self, name: str, params: Mapping[str, object]) -> None:
        """Refuse a setting that the part does not have, or whose value has another type."""
        options = self.options(name)
        for key, value in params.items():
            if key not in options:
                raise S2KDError(
                    f"{self.kind} {name!r} has no setting {key!r}{nearest(key, options)}"
                    f" (it has {', '.join(options) or 'none'})"
                )
            kind = options[key].annotation
            if isinstance(value, PLAIN) and kind is not inspect.Parameter.empty:
                try:
                    read(kind, value, f"{self.kind} {name!r}: {key}")
                except TypeError:  # an annotation that no JSON value can have, or text
                    continue

    def build(self, name: str, /, *args: object, **params: object) -> T:
        """Make the part; a setting it does not know, or one that is missing, is an error."""
        part = self.get(name)
        self.check(name, params)
        try:
            inspect.signature(part).bind(*args, **params)
        except TypeError as error:
            raise S2KDError(f"{self.kind} {name!r}: {error}") from None
        return part(*args, **params)

    @cached_property
    def _declared(self) -> dict[str, Declaration]:
        return declarations(self.package)

    @cached_property
    def _plugins(self) -> dict[str, Any]:
        return {plugin.name: plugin for plugin in entry_points(group=self.group)}

    def _import_own(self) -> None:
        for module in os.environ.get(IMPORT, "").split(","):
            if module.strip():
                import_own(module.strip())
