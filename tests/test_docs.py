"""What the documents say is true: commands parse, code runs, links and names lead somewhere."""

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from s2kd.cli import app
from s2kd.data import fetch
from s2kd.pipeline import parts, recipes

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "CITATION.cff"],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
CODE = [*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob("benchmarks/*.py")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, *languages: str) -> list[str]:
    return [body for kind, body in FENCE.findall(path.read_text("utf-8")) if kind in languages]


def commands(path: Path) -> list[list[str]]:
    lines = [line for body in blocks(path, "console") for line in body.splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


ALL = [(path.name, command) for path in DOCUMENTS for command in commands(path)]


def parse(arguments: list[str]) -> None:
    """As the program would, up to the point where it would begin to work."""
    command, name = typer.main.get_command(app), "s2kd"
    while hasattr(command, "commands"):
        default = getattr(command, "default", None)  # a verb that need not be said
        if default and arguments[0] not in command.commands:
            arguments = [default, *arguments]
        name, *arguments = arguments
        assert name in command.commands, f"no verb {name!r}"
        command = command.commands[name]
    command.make_context(name, list(arguments))


def examples(command: object, title: str = "s2kd") -> Iterator[tuple[str, str]]:
    """(verb, example) of every verb in the help, nested ones too."""
    for name, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from examples(inner, f"{title} {name}")
        elif not inner.hidden:
            yield f"{title} {name}", inner.epilog or ""


@pytest.mark.parametrize(("verb", "example"), list(examples(typer.main.get_command(app))))
def test_every_verb_has_an_example_of_itself(verb, example):
    assert example.startswith(f"$ {verb}")
    parse(shlex.split(example)[2:])


def test_documents_hold_commands():
    assert len([c for name, c in ALL if name == "README.md"]) >= 10


@pytest.mark.parametrize("command", [c for _, c in ALL], ids=[" ".join(c) for _, c in ALL])
def test_every_command_in_the_documents_exists(command):
    program, *rest = command
    match Path(program).name:
        case "s2kd":
            parse(rest)
        case "make":
            targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert rest[0] in targets
        case "python" | "python3":
            assert rest[:2] in (["-m", "venv"], ["-m", "pip"], ["-m", "pytest"])
            if rest[1] == "pip":
                _check_pip(rest[2:])
        case _:
            pytest.fail(f"a document runs {program!r}, which this test does not know")


def _check_pip(rest: list[str]) -> None:
    assert rest[0] == "install"
    assert (ROOT / rest[rest.index("-c") + 1]).exists()
    extras = rest[rest.index("-e") + 1].removeprefix(".[").removesuffix("]").split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(known["optional-dependencies"])


@pytest.mark.parametrize("wrong", [["rum"], ["run", "--oout", "x"], ["data", "fetsch"]])
def test_a_command_that_does_not_exist_would_be_noticed(wrong):
    with pytest.raises(Exception, match=r"no verb|[Nn]o such option"):
        parse(wrong)


def test_the_recipes_that_readme_names_exist():
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(table) >= 4
    assert set(table) <= set(recipes.names())


def test_the_downloads_in_the_table_of_recipes_exist():
    rows = re.findall(r"^\| `\w+` \| (.*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    downloads = [line for row in rows for line in re.findall(r"`(s2kd data fetch .*?)`", row)]
    assert downloads
    for line in downloads:
        _, *words = shlex.split(line)
        parse(words)
        assert words[2] in fetch.SOURCES


def test_the_recipe_of_ncep_reads_the_file_that_fetch_writes(tmp_path):
    (tmp_path / fetch.NCEP_FILE).touch()
    recipe = recipes.get("ncep_air", data=str(tmp_path))
    assert Path(recipe.dataset.params["path"]).name == fetch.NCEP_FILE


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8"))
    for link in links:
        if "://" not in link:
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_names_of_code_in_the_documents_exist(path):
    for name in re.findall(r"`(s2kd(?:\.\w+)+)`", path.read_text("utf-8")):
        _resolve(name)
    for name in re.findall(r"`((?:benchmarks|tests|docs|src)/[\w./-]*)`", path.read_text("utf-8")):
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def _resolve(name: str) -> object:
    """The module or object of this dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"no module {name}")


def test_a_name_that_does_not_exist_would_be_noticed():
    with pytest.raises(AttributeError):
        _resolve("s2kd.training.losses.spectral.nothing")


def test_every_equation_has_its_function():
    text = (ROOT / "docs/method.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\d–]+) \|.*`s2kd\.", text, re.MULTILINE)
    told = set()
    for row in rows:
        first, _, last = row.partition("–")
        told |= set(range(int(first), int(last or first) + 1))
    assert told == set(range(1, 15))


def test_readme_python_parses_and_its_imports_exist():
    for body in blocks(ROOT / "README.md", "python"):
        compile(body, "README.md", "exec")
        for module, names in re.findall(r"^from (s2kd[\w.]*) import (.*)$", body, re.MULTILINE):
            for name in names.split(","):
                _resolve(f"{module}.{name.strip()}")


def test_the_generated_reference_names_every_part_and_verb():
    listed, verbs = generate().parts_page(), generate().verbs()
    names = {row["name"] for row in parts.rows()}
    assert set(re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)) == names
    assert "| `cf` |" in listed
    assert "`path`, `variables=()`" in listed
    documented = set(re.findall(r"^## s2kd (.+)$", verbs, re.MULTILINE))
    assert {"demo", "run", "narrate", "forecast", "data describe"} <= documented
    assert "`--precision`" in verbs


DRIVER = """
import json, sys
from pathlib import Path
from s2kd.pipeline import parts
plain = json.loads(Path("blocks.json").read_text())
results = {name: parts.check(name) for name in plain["checks"]}
space = {}
for body in plain["bodies"]:
    exec(compile(body, "extend.md", "exec"), space)
rows = json.loads(Path("runs/waves/scores.json").read_text())
print(json.dumps({"checks": results, "rows": [row["method"] for row in rows]}))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The examples of docs/extend.md in a process of their own: they register parts for good."""
    folder = tmp_path_factory.mktemp("extend")
    bodies = []
    for body in blocks(ROOT / "docs/extend.md", "python"):
        named = re.match(r"# (\w+\.py)\n", body)
        if named:
            (folder / named[1]).write_text(body, "utf-8")
        else:
            bodies.append(body)
    checks = [c[2] for c in commands(ROOT / "docs/extend.md") if c[:2] == ["s2kd", "check"]]
    plain = {"checks": checks, "bodies": bodies}
    (folder / "blocks.json").write_text(json.dumps(plain), "utf-8")
    (entry,) = blocks(ROOT / "docs/extend.md", "toml")
    _pretend_installed(folder, entry)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return checks, json.loads(done.stdout.splitlines()[-1])


def _pretend_installed(folder: Path, entry: str) -> None:
    """The metadata that an installer would write for these entry points."""
    groups = tomllib.loads(entry)["project"]["entry-points"]
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *[f"{name} = {where}" for name, where in points.items()]]
    info = folder / "plugin-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_the_examples_of_new_parts_keep_their_contracts(extended):
    checks, found = extended
    kinds = {row["part"].partition(":")[0] for rows in found["checks"].values() for row in rows}
    assert kinds == {"readers", "backbones", "losses", "narrators", "encoders"}
    for name in checks:
        rows = found["checks"][name]
        assert rows, f"{name}: nothing was checked"
        assert [row for row in rows if row["result"] != "ok"] == []


@pytest.mark.slow
def test_the_examples_of_new_parts_run_together(extended):
    assert {"persistence", "climatology", "teacher", "direction"} <= set(extended[1]["rows"])


def test_nothing_names_the_place_it_was_written_in():
    # joined here, so that this file does not hold them
    words = [
        "/wo" + "rk",
        "sha" + "red/data",
        "py" + "pi.",
        "pytho" + "nhosted",
        "/opt/wh" + "eels",
    ]
    for path in [*DOCUMENTS, *CODE, ROOT / "Makefile", ROOT / "pyproject.toml"]:
        text = path.read_text("utf-8").lower()
        found = [word for word in words if re.search(rf"(?<![\w-]){re.escape(word)}", text)]
        assert not found, f"{path.relative_to(ROOT)} holds {found}"


def generate():
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_numbers_of_the_readme_are_the_generated_ones():
    module = generate()
    page = module.README.read_text(encoding="utf-8")
    assert module.with_numbers(page) == page


def test_the_table_of_sizes_is_the_generated_one():
    module = generate()
    page = module.METHOD.read_text(encoding="utf-8")
    rows = json.loads(module.MEASURED.read_text(encoding="utf-8"))
    assert module.with_sizes(page, rows) == page
    assert f"{rows[0]['parameters'] / 1e6:.2f}" in page
