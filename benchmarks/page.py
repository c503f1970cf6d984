"""docs/performance.md from the latest results of the benchmarks: `python benchmarks/page.py`."""

import json
from pathlib import Path

from common import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
HEAD = """# Performance

Ratios measured side by side in one run, by `make bench` on {machine}. Each is compared with the
stored baseline in `benchmarks/results/`; a loss of more than 15 % fails. This page is made by
`python benchmarks/page.py`.

| measured | divided by | ratio | wanted | met | baseline | what limits it |
|---|---|---|---|---|---|---|
"""


def line(path: Path) -> str:
    """One row: the latest result beside its baseline."""
    latest = json.loads(path.read_text("utf-8"))
    baseline = json.loads((RESULTS / path.name).read_text("utf-8"))
    cells = (
        f"{latest['what']} (`{path.stem}.py`)",
        latest["peer"],
        f"{latest['ratio']:.2f}",
        latest["target"],
        "yes" if latest["met"] else "**no**",
        f"{baseline['ratio']:.2f}",
        latest["limit"],
    )
    return "| " + " | ".join(cells) + " |\n"


def cases(path: Path) -> str:
    """The cases of a benchmark that has several, with the numbers of each."""
    latest = json.loads(path.read_text("utf-8"))
    rows = latest.get("table")
    if not rows:
        return ""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"\n## {latest['what']}\n\n{body}\n"


def main() -> None:
    """Write the page."""
    paths = sorted((RESULTS / "latest").glob("*.json"))
    device = json.loads(paths[0].read_text("utf-8"))["hardware"]
    head = HEAD.format(machine=f"{device['processor']}, {device['threads']} thread(s)")
    PAGE.write_text(head + "".join(map(line, paths)) + "".join(map(cases, paths)), "utf-8")


if __name__ == "__main__":
    main()
