"""Reading of plain data as typed values, with errors that name field, value and way out."""

import re
import types
import typing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from s2kd.core.errors import S2KDError, nearest

Size = Annotated[int, Meta(ge=1)]
Blocks = Annotated[int, Meta(ge=2)]
Even = Annotated[int, Meta(ge=2, multiple_of=2)]
EvenOrZero = Annotated[int, Meta(ge=0, multiple_of=2)]
AtLeastZero = Annotated[int, Meta(ge=0)]
Above = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0, lt=1)]
"""Bounds of the settings of parts, which their registry checks."""


def read(kind: Any, plain: Any, source: str) -> Any:
    """Plain data as a `kind`; an error names `source`, the field, its value and what is allowed."""
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        problem, _, path_text = str(error).partition(" - at `$")
    path = re.findall(r"[^.\[\]`]+", path_text)
    value = plain
    for key in path:
        kind = field_type(kind, key)
        value = value[int(key)] if isinstance(value, list | tuple) else value[key]
    name = path_text.strip("`").removeprefix(".")
    field = f"{source}: {name}" if name else source
    raise S2KDError(f"{field}: {_explained(problem, bare(kind), value)}")


def _explained(problem: str, kind: Any, value: Any) -> str:
    """A message of msgspec with the value that came and the way out."""
    unknown = re.fullmatch("Object contains unknown field `(.*)`", problem)
    if unknown:
        return unknown_field(kind, unknown[1])
    if problem.startswith("Object missing"):
        needed = [field.name for field in msgspec.structs.fields(kind) if field.required]
        return f"{kind.__name__} lacks {', '.join(n for n in needed if n not in value)}"
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        near = nearest(value, choices) if isinstance(value, str) else ""
        return f"must be one of {', '.join(map(str, choices))}, got {value!r}{near}"
    if is_struct(kind) and not isinstance(value, dict):
        return f"wants {kind.__name__} with its fields, got {value!r}"
    if "matching regex" in problem:
        return (
            "wants a name of letters, digits, '.', '_' and '-', at most 80 and no dot first, "
            f"got {value!r}"
        )
    expected = problem.partition(", got")[0].replace("`", "").removeprefix("Expected ")
    expected = expected.replace("array", "a list").replace("object", "settings by name")
    return f"wants {expected}, got {value!r}"


def unknown_field(kind: Any, name: str) -> str:
    """A message on a field that a struct does not have."""
    fields = kind.__struct_fields__
    return f"{kind.__name__} has no {name!r}{nearest(name, fields)} (it has {', '.join(fields)})"


def is_struct(kind: Any) -> bool:
    """Whether a type is a msgspec struct."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def bare(kind: Any) -> Any:
    """A type without its bounds and without `| None`."""
    if typing.get_origin(kind) is Annotated:
        return bare(typing.get_args(kind)[0])
    if isinstance(kind, types.UnionType):
        return bare(next(k for k in typing.get_args(kind) if k is not types.NoneType))
    return kind


def field_type(kind: Any, key: str) -> Any:
    """The type of a struct's field or of a list's items; Any inside free settings."""
    kind = bare(kind)
    if is_struct(kind):
        return typing.get_type_hints(kind, include_extras=True)[key]
    return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else Any
