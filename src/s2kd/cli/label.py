"""The verb `label`: what a teacher says of data, once, to pass on."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2kd.cli.options import Accelerator, Data, Frames, Json, Preset, Set, recipe_of
from s2kd.core.console import print_json, print_table, shown

if TYPE_CHECKING:
    from s2kd.training.labels import Labels


def label(
    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER",
            help="package.module:callable, a .onnx file, or the folder of a model or run.",
        ),
    ],
    what: Frames,
    out: Annotated[
        Path,
        typer.Option(metavar="ZARR", help="The .zarr to write; an unfinished one is continued."),
    ],
    latents: Annotated[
        bool, typer.Option("--latents", help="Also store latents, which S²-KD needs.")
    ] = False,
    without_inputs: Annotated[
        bool, typer.Option("--without-inputs", help="Store no past frames; a capture needs them.")
    ] = False,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this split, as train, val or test; repeatable. Default: the whole record.",
        ),
    ] = None,
    stride: Annotated[
        int, typer.Option(metavar="N", min=1, help="Frames from one window to the next.")
    ] = 1,
    past: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of past frames; 0: the teacher's.")
    ] = 0,
    lead: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of lead frames; 0: the teacher's.")
    ] = 0,
    accelerator: Accelerator = "auto",
    data: Data = "",
    preset: Preset = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Store a teacher's forecasts of any data, to teach from; continues where it stopped."""
    from s2kd import pipeline

    recipe = recipe_of(what, out, set_, data=data, preset=preset)
    with shown(quiet=as_json) as console:
        labels = pipeline.label(
            teacher,
            recipe,
            out=out,
            latents=latents,
            inputs=not without_inputs,
            splits=split or ("all",),
            stride=stride,
            past=past,
            lead=lead,
            machine=pipeline.Machine(accelerator=accelerator),
            progress=console.progress,
            say=console.say,
        )
    print_labels(labels, as_json)


def print_labels(labels: "Labels", as_json: bool) -> None:
    """What a label store holds."""
    facts = labels.describe()
    if as_json:
        print_json(facts)
        return
    print(f"{labels.path}: label store, {facts['windows']} windows by {facts['teacher']['name']}")
    columns = ["inputs", "forecast"] if "inputs" in facts["channels"][0] else ["forecast"]
    rows = [
        [channel["name"], channel["units"], *(_range(channel[view]) for view in columns)]
        for channel in facts["channels"]
    ]
    print_table(["channel", "units", *columns], rows)
    print(
        f"times: {facts['first_time']} to {facts['last_time']}, {facts['step_seconds']:g} s apart"
    )
    print(f"frames: {facts['past']} past, {facts['lead']} lead")
    print(f"grid: {facts['rows']} × {facts['columns']} (rows × columns)")
    print(f"latent: {facts['latent_width'] or 'none'}")
    print(f"digest: {facts['digest']}")
    print(f"Next: s2kd distill DATA --capture {shlex.quote(str(labels.path))} --out DIR")


def _range(values: Any) -> str:
    return f"{values[0]:.6g} … {values[1]:.6g}"
