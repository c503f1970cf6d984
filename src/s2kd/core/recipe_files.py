"""Recipes in files: JSON, YAML or TOML, in UTF-8 or UTF-16."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Recipe

LARGEST = 2**20
"""Bytes of a recipe's file."""


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file, alone or in what a run or `s2kd data describe --json` wrote.

    Raises S2KDError naming the file, and the field where one does not fit.
    """
    plain = _content(path)
    if isinstance(plain, dict) and "recipe" in plain:
        plain = plain["recipe"]
        if plain is None:
            raise S2KDError(f"{path}: holds no recipe: none fits the file that it describes")
    return Recipe.from_dict(plain, source=str(path))


def _content(path: Path) -> Any:
    if path.stat().st_size > LARGEST:
        raise S2KDError(f"{path}: larger than {LARGEST} bytes, so no recipe")
    content, (load, name) = path.read_bytes(), FORMATS[path.suffix.lower()]
    try:
        # json tells UTF-8, 16 and 32 apart, with a byte order mark or without; dates become text
        return to_builtins(load(content.decode(json.detect_encoding(content))), str_keys=True)
    except (ValueError, RecursionError) as error:
        raise S2KDError(f"{path}: not readable as {name} ({error})") from None


def _load_yaml(text: str) -> Any:
    """YAML without aliases, by which a short file can stand for gigabytes; 1e-3 is a number."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?\d+[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
            raise ValueError("aliases (*name) are not read; write the value again")
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


FORMATS = {
    ".json": (json.loads, "JSON"),
    ".yaml": (_load_yaml, "YAML"),
    ".yml": (_load_yaml, "YAML"),
    ".toml": (tomllib.loads, "TOML"),
}
"""How a file is read, and as what, by its ending."""
