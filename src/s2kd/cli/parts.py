"""The verbs about parts and recipes: `list` and `check`."""

from typing import Annotated, Any

import typer

from s2kd.cli.options import Json
from s2kd.core.console import print_json, print_table


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="recipes, methods, readers, backbones, …; default: all kinds."
        ),
    ] = "",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="For backbones: also multiply-adds, activation memory and latency of every "
            "preset on this machine.",
        ),
    ] = False,
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="For backbones: this preset only.")
    ] = "",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="With --measure: cpu or cuda.")
    ] = "cpu",
    schema: Annotated[
        bool,
        typer.Option("--schema", help="For recipes: print the JSON Schema of a recipe's file."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List recipes, methods and parts; for backbones, every preset with its size."""
    from s2kd.pipeline import parts

    if schema:
        from s2kd.core.recipe import json_schema

        print_json(json_schema(kind))
        return

    if kind == "backbones":
        rows = _backbone_rows(measure, preset, device, quiet=as_json)
        print_json(rows) if as_json else _print_backbones(rows, measure)
        return
    rows = parts.rows(kind)
    if as_json:
        print_json(rows)
        return
    print_table(["kind", "name", "what it is"], [[r["kind"], r["name"], r["about"]] for r in rows])


def _backbone_rows(measure: bool, preset: str, device: str, *, quiet: bool) -> list[dict[str, Any]]:
    from s2kd.core import console
    from s2kd.core.errors import S2KDError
    from s2kd.models import costs
    from s2kd.models.backbones import PRESETS

    if preset and preset not in PRESETS:
        raise S2KDError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")
    sizes = [size for size in costs.sizes() if preset in ("", size.preset)]
    if not measure:
        return [costs.row(size) for size in sizes]
    rows = []
    with console.shown(quiet=quiet) as shown:
        progress = shown.progress("measure")
        for number, size in enumerate(sizes, 1):
            rows.append(costs.measured(size, device=device))
            progress(number, len(sizes), f"{size.name} {size.preset}")
    return rows


def _print_backbones(rows: list[dict[str, Any]], measured: bool) -> None:
    head = ["backbone", "preset", "role", "frames", "grid", "M par."]
    cells = [
        [r["name"], r["preset"], r["role"], r["frames"], r["grid"], f"{r['parameters'] / 1e6:.2f}"]
        for r in rows
    ]
    if not measured:
        print_table(head, cells)
        return
    for line, row in zip(cells, rows, strict=True):
        line += [
            f"{row['multiply_adds'] / 1e9:.2f}",
            f"{row['activation_bytes'] / 2**20:.0f}",
            f"{row['latency_ms']:.1f}",
        ]
    print_table([*head, "G MACs", "MiB", "ms"], cells)
    timing, hardware = rows[0]["latency"], rows[0]["hardware"]
    print(
        "Parameters in millions, multiply-adds in thousand millions, MiB of activations of a "
        f"training step. One window at a time on {hardware.get('gpu', hardware['processor'])} "
        f"({timing['device']}, {timing['dtype']}, {timing['threads']} threads), median of "
        f"{timing['repeats']}."
    )


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
