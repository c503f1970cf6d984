"""The verbs about parts and recipes: `list` and `check`."""

from typing import Annotated

import typer

from s2kd.cli.options import Json
from s2kd.core.console import print_json, print_table


def list_(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="recipes, methods, readers, …; default: all.")
    ] = "",
    preset: Annotated[str, typer.Option(metavar="NAME", help="For backbones: this one.")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print recipes' JSON Schema.")] = False,
    as_json: Json = False,
) -> None:
    """List recipes, methods and parts; for backbones, every preset with its size."""
    from s2kd.pipeline import parts

    if schema:
        from s2kd.core.recipe import json_schema

        print_json(json_schema(kind))
        return

    if kind == "backbones":
        rows = parts.preset_rows(preset)
        cells = [[r["name"], r["preset"], f"{r['parameters'] / 1e6:.2f}"] for r in rows]
        print_json(rows) if as_json else print_table(["backbone", "preset", "M parameters"], cells)
        return
    rows = parts.rows(kind)
    if as_json:
        print_json(rows)
        return
    print_table(["kind", "name", "what it is"], [[r["kind"], r["name"], r["about"]] for r in rows])


def check(
    part: Annotated[str, typer.Argument(metavar="[KIND:]NAME", help="Default: all parts.")] = "",
    as_json: Json = False,
) -> None:
    """Check a part, or your own part (MODULE:NAME), against the contract of its kind."""
    from s2kd.pipeline import parts

    rows = parts.check(part)
    if as_json:
        print_json(rows)
    else:
        print_table(
            ["part", "check", "result"], [[r["part"], r["check"], r["result"]] for r in rows]
        )
    if any(row["result"] != "ok" for row in rows):
        raise typer.Exit(1)
