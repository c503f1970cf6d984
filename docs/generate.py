"""Write the reference of parts, recipes and verbs from the code itself, to build/docs/.

    python docs/generate.py [FOLDER]
    python docs/generate.py sheets

Nothing in it is typed by hand, so it is made anew rather than kept. The tables of sizes in
docs/method.md are made here too, from results/backbones.json, which is what
`benchmarks/backbones.py` measures. The prompts in
docs/narration.md are the code's; its sheets and the words beside them are made by the second line,
from windows of the simulated worlds.
"""

import json
import sys
from pathlib import Path

import typer

from s2kd.pipeline import parts
from s2kd.cli import app

FOLDER = Path(__file__).parent.parent / "build" / "docs"


def parts_page() -> str:
    """A section a kind: every part, what it is, its settings with their defaults."""
    lines = ["# Parts and recipes", ""]
    for kind in parts.KINDS:
        lines += [f"## {kind}", "", "| name | what it is | settings |", "|---|---|---|"]
        for row in parts.rows(kind):
            settings = _cell(", ".join(_settings(kind, row["name"])))
            lines.append(f"| `{row['name']}` | {_cell(row['about'])} | {settings} |")
        lines.append("")
    return "\n".join(lines)


def _settings(kind: str, name: str) -> list[str]:
    """Each setting with its default; one without has none."""
    if kind not in parts.REGISTRIES:
        return []
    options = parts.REGISTRIES[kind].options(name)
    return [
        f"`{key}`" if option.default is option.empty else f"`{key}={option.default!r}`"
        for key, option in options.items()
    ]


def verbs() -> str:
    """The help text of every verb."""
    lines = ["# Verbs", ""]
    for words, command in _leaves(typer.main.get_command(app), ("s2kd",)):
        lines += [f"## {' '.join(words)}", "", command.help or "", ""]
        lines += ["| option | what it does |", "|---|---|"]
        for option in command.params:
            shown = ", ".join(f"`{name}`" for name in option.opts)
            lines.append(f"| {shown} | {_cell(getattr(option, 'help', None) or '')} |")
        lines.append("")
    return "\n".join(lines)


def _leaves(command, words):  # noqa: ANN001
    """(words, command) of every verb, nested ones too."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, (*words, name))


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent.parent / "results"


def with_numbers(page: str) -> str:
    """`page` with the size, speed and skill of the best student on air temperature."""
    from s2kd.evaluation.results import read_results
    from s2kd.paper.experiment import experiments
    from s2kd.paper.page import summary_numbers

    results = read_results(RESULTS)
    best = summary_numbers(experiments(results), results)["best"]
    text = (
        f"Forecasting air temperature over North America (`{best['place']}`), the best of the "
        f"compared students has **{best['parameters']} parameters**, needs "
        f"**{best['latency']} ms** per forecast on one thread ({best['machine']}), and closes **{best['share']} %** of the gap "
        f"between a student without distillation and the teacher; its error is "
        f"{best['of_persistence']} % of that of persistence ({best['student']}, {best['method']}; "
        "[results](docs/results.md))."
    )
    return between(page, "numbers", text)


METHOD = Path(__file__).parent / "method.md"
MEASURED = Path(__file__).parent.parent / "results" / "backbones.json"


def sizes(rows: list[dict]) -> str:
    """The table of parameters and costs, with where they were measured."""
    lines = [
        "| backbone | preset | role | frames | grid | parameters (M) | multiply-adds (G) "
        "| activations (MiB) | latency (ms) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        costs = "– | – | –"
        if "latency" in r:
            costs = (
                f"{r['multiply_adds'] / 1e9:.2f} | {r['activation_bytes'] / 2**20:.0f} "
                f"| {r['latency_ms']:.1f}"
            )
        lines.append(
            f"| `{r['name']}` | {r['preset']} | {r['role']} | {r['frames']} | {r['grid']} "
            f"| {r['parameters'] / 1e6:.2f} | {costs} |"
        )
    measured = next(r for r in rows if "latency" in r)
    spent, where = measured["latency"], measured["hardware"]
    lines += [
        "",
        f"Two channels; teachers with their alignment, without the frozen text encoder. One window "
        f"at a time on {where.get('gpu', where['processor'])} ({spent['device']}, "
        f"{spent['dtype']}, {spent['threads']} threads), median of {spent['repeats']}. "
        "Activations are what a training step keeps for one window.",
    ]
    return "\n".join(lines)


def with_sizes(page: str, rows: list[dict]) -> str:
    """`page` with the table between its two marks."""
    return between(page, "sizes", sizes(rows))


NARRATION = Path(__file__).parent / "narration.md"
SHOWN = Path(__file__).parent.parent / "results" / "sheets.json"
WORLDS = {"weather": "atmosphere", "fire": "plume"}


def between(page: str, what: str, text: str) -> str:
    """`page` with `text` between the two marks of `what`."""
    start, end = f"<!-- {what}: made by docs/generate.py -->", f"<!-- end of {what} -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"no marks of {what!r}")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"


def with_prompts(page: str) -> str:
    """`page` with every domain's template as it is in the code."""
    from s2kd.narration.prompts import ORDER, RULES, TEMPLATES, VERSION

    lines = [f"Version `{VERSION}`.", ""]
    for domain, template in TEMPLATES.items():
        lines += [f"**{domain}**", "", f"> {template}", ""]
    lines += [f"`{{order}}` is: {ORDER}", "", f"`{{rules}}` is: {RULES}"]
    return between(page, "prompts", "\n".join(lines))


def with_sheets(page: str, shown: dict) -> str:
    """`page` with the example windows: sheet, prompt, and what `rules` says of them."""
    lines = []
    for domain, one in shown.items():
        lines += [f"![The sheet of a window of `{one['dataset']}`](sheet-{domain}.png)", ""]
        lines += [f"The prompt: *{one['prompt']}*", "", f"`rules` says: *{one['rules']}*", ""]
    return between(page, "sheets", "\n".join(lines).rstrip())


def sheets() -> None:
    """Draw one window of each simulated world, and keep what is said of it."""
    from s2kd.core.recipe import Part
    from s2kd.data import load
    from s2kd.core.files import write_json
    from s2kd.narration.narrators import narrators
    from s2kd.narration.prompts import VERSION, prompt
    from s2kd.narration.sheet import Sheets, png
    from s2kd.data.statistics import statistics
    from s2kd.data.windows import WindowDataset

    shown, draw = {}, Sheets()
    for domain, world in WORLDS.items():
        dataset = load(Part(name=world))
        windows = WindowDataset(dataset, "train", past=12, lead=6)
        past = windows.past_of(len(windows) // 2, statistics(dataset, lead=6))
        (NARRATION.parent / f"sheet-{domain}.png").write_bytes(png(draw(past)))
        (told,) = narrators.build("rules").narrate([past])
        shown[domain] = {
            "dataset": world,
            "versions": f"{draw.version} {VERSION}",
            "prompt": prompt(past),
            "rules": told,
        }
    write_json(SHOWN, shown)


def narration() -> None:
    """Renew the made parts of docs/narration.md."""
    page = NARRATION.read_text(encoding="utf-8")
    shown = json.loads(SHOWN.read_text(encoding="utf-8"))
    NARRATION.write_text(with_sheets(with_prompts(page), shown), encoding="utf-8")


def main(folder: Path = FOLDER) -> None:
    """Write both pages, and the generated parts of README.md, docs/method.md and docs/narration.md."""
    if folder == Path("sheets"):
        sheets()
        narration()
        return
    narration()
    README.write_text(with_numbers(README.read_text(encoding="utf-8")), encoding="utf-8")
    if MEASURED.exists():
        rows = json.loads(MEASURED.read_text(encoding="utf-8"))
        page = with_sizes(METHOD.read_text(encoding="utf-8"), rows)
        METHOD.write_text(page, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in (("parts.md", parts_page()), ("verbs.md", verbs())):
        (folder / name).write_text(page.rstrip() + "\n", encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
