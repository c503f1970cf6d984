"""The verb `s2kd narrate`: every window in words, and a page to judge the words by."""

from typing import Annotated, Any

import typer

from s2kd.cli.options import Data, Json, Out, Preset, Set, What, World, opened_run, recipe_of
from s2kd.core.console import print_json, print_table
from s2kd.core.errors import S2KDError


def narrate(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    data: Data = "",
    world: World = None,
    preset: Preset = None,
    set_: Set = None,
    preview: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Narrate only N windows, spread over the training split, and write "
            "preview.html: sheet, narrative and facts side by side.",
        ),
    ] = 0,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Narrate only the I-th of N parts, on one of N machines; then join "
            "their narratives.jsonl with cat.",
        ),
    ] = "",
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check every claim against facts measured on the window."),
    ] = False,
    drop_below: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE", help="With --verify: drop the narratives that score lower (0 to 1)."
        ),
    ] = None,
    ask_again: Annotated[
        int,
        typer.Option(metavar="N", help="With --verify: first ask up to N times for another one."),
    ] = 0,
    claims_by: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="With --verify: a chat model at OPENAI_BASE_URL lists the claims of texts "
            "that came without any.",
        ),
    ] = "",
    max_requests: Annotated[
        int, typer.Option(metavar="N", help="For narrator openai: stop after N requests.")
    ] = 0,
    concurrent: Annotated[
        int, typer.Option(metavar="N", help="For narrator openai: requests in flight.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Write a narrative for every window, and encode it as token states."""
    from s2kd import pipeline

    if (drop_below is not None or ask_again or claims_by) and not verify:
        raise S2KDError("--drop-below, --ask-again and --claims-by are options of --verify")
    if sum(map(bool, (preview, shard, verify))) > 1:
        raise S2KDError("--preview, --shard and --verify are three kinds of work; choose one")
    recipe = recipe_of(what, out, set_, data=data, world=world, preset=preset)
    from s2kd.narration.narrators import narrators
    from s2kd.pipeline import verify as verifying

    part = pipeline.parse_shard(shard) if shard else None
    rows: list[dict[str, Any]] = []
    with opened_run(recipe, out, quiet=as_json) as opened:
        pipeline.limit_requests(opened, max_requests=max_requests, concurrent=concurrent)
        if preview:
            pipeline.preview_run(opened, preview)
        elif part is not None:
            pipeline.narrate_shard(opened, part)
        else:
            if verify:
                ask = narrators.build("openai", model=claims_by).ask if claims_by else None
                rows = verifying.verify_run(
                    opened, drop_below=drop_below, ask_again=ask_again, ask=ask
                )
            pipeline.narrate(opened)
    if as_json:
        print_json(rows)
        return
    if rows:
        print_table(*verifying.table(rows))
        print(verifying.legend(rows))
    print(out / ("preview.html" if preview else "narratives.jsonl"))
