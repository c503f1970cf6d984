"""Recipes in JSON, YAML and TOML, in the encodings that editors and shells write."""

import codecs
import json

import pytest
import yaml

from s2kd.core.recipe import Recipe
from s2kd.core.recipe_files import LARGEST, read_recipe
from s2kd.core.types import S2KDError

PLAIN = {
    "name": "mine",
    "dataset": {"name": "cf", "params": {"path": "höhe.nc"}},
    "split": {"train": ["2013-01-01", "2013-12-31"], "val": ["2014-01-01", "2014-06-30"]},
    "past": 4,
    "lead": 4,
    "teacher": {"backbone": {"name": "simvp", "params": {"preset": "small"}}},
    "students": [{"name": "unet", "params": {"width": 12}}],
    "methods": ["baseline", "s2kd"],
    "student_training": {"lr": 1e-3, "epochs": 20},
}
YAML = """
name: mine
dataset: {name: cf, params: {path: höhe.nc}}
split:
  train: [2013-01-01, 2013-12-31]  # dates without quotes
  val: [2014-01-01, 2014-06-30]
past: 4
lead: 4
teacher: {backbone: {name: simvp, params: {preset: small}}}
students: [{name: unet, params: {width: 12}}]
methods: [baseline, s2kd]
student_training: {lr: 1e-3, epochs: 20}
"""
TOML = """
name = "mine"
past = 4
lead = 4
methods = ["baseline", "s2kd"]
students = [{name = "unet", params = {width = 12}}]
[dataset]
name = "cf"
params.path = "höhe.nc"
[split]
train = [2013-01-01, 2013-12-31]
val = [2014-01-01, 2014-06-30]
[teacher.backbone]
name = "simvp"
params.preset = "small"
[student_training]
lr = 1e-3
epochs = 20
"""
TEXTS = {
    "recipe.json": json.dumps(PLAIN, ensure_ascii=False),
    "run.json": json.dumps({"recipe": PLAIN, "s2kd": "0.1.0"}),
    "recipe.yaml": YAML,
    "recipe.yml": yaml.safe_dump(PLAIN),
    "recipe.toml": TOML,
}
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_format_and_encoding_holds_the_same_recipe(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(ENCODINGS[encoding] + TEXTS[name].encode(encoding))
    assert read_recipe(path) == Recipe.from_dict(PLAIN)


LAUGHS = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in ("ab", "bc", "cd"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", LAUGHS, "not readable as YAML .aliases"),
        ("a.yaml", "past: !!python/object/apply:os.getcwd []", "not readable as YAML .*python"),
        ("a.yaml", "{[a]: b}", "not readable as YAML"),
        ("a.yaml", "past: [", "not readable as YAML .*line 1"),
        ("a.yaml", "[" * 3000, "not readable as YAML"),
        ("a.yaml", "pst: 4", "a.yaml: Recipe (lacks|has no)"),
        ("a.yaml", YAML.replace("past: 4", "past: four"), "a.yaml: past: wants int, got 'four'"),
        ("a.yaml", "", "a.yaml: wants Recipe"),
        ("a.toml", "past = four", "not readable as TOML .*line 1"),
        ("a.toml", "a = " + "[" * 3000, "not readable as TOML"),
        ("a.json", "[" * 100_000, "not readable as JSON"),
        ("a.json", "{" + " " * LARGEST, "larger than 1048576 bytes"),
        ("a.json", "\udcff", "not readable as JSON"),
    ],
)
def test_a_broken_or_hostile_file_is_refused_by_name(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(S2KDError, match=said) as refusal:
        read_recipe(path)
    assert str(path) in str(refusal.value)
