import json
import os

import pytest
from msgspec.structs import replace

from s2kd.core.methods import BUILT_IN, key_form, label, method_named
from s2kd.core.recipe import (
    Method,
    Part,
    Recipe,
    TeacherSpec,
    Term,
    Training,
    completed,
    json_schema,
)
from s2kd.core.types import S2KDError
from s2kd.pipeline import recipes


def tiny(**changes):
    plain = {
        "name": "tiny",
        "dataset": Part(name="blobs", params={"size": 8}),
        "past": 3,
        "lead": 2,
        "teacher": TeacherSpec(backbone=Part(name="simvp", params={"spatial": 4})),
        "students": (Part(name="unet", params={"width": 4}), Part(name="simvp")),
        "methods": recipes.METHODS,
        "seeds": (42, 43),
    }
    return Recipe(**{**plain, **changes})


@pytest.fixture(params=["tiny", *recipes.names()])
def recipe(request):
    """One of our own and every built-in; those that read files want the real data's folder."""
    if request.param == "tiny":
        return tiny()
    if request.param == "demo":
        return recipes.get(request.param)
    data = os.environ.get("S2KD_REAL_DATA", "")
    if not data:
        pytest.skip("S2KD_REAL_DATA is not set: this recipe reads files")
    try:
        return recipes.get(request.param, data=data)
    except S2KDError as error:
        pytest.skip(str(error))


def test_a_recipe_survives_json(recipe):
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    # settings of parts are plain JSON: a tuple in them would come back as a list
    assert again == recipe
    assert again.digest == recipe.digest


def leaves(node, path=()):
    """(path, value) of everything in plain data that holds nothing further."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, dict | list) and value:
            yield from leaves(value, (*path, str(key)))
        else:
            yield ".".join((*path, str(key))), value


def test_every_field_can_be_set_to_what_it_is(recipe):
    settings = [f"{path}={json.dumps(value)}" for path, value in leaves(recipe.to_dict())]
    assert len(settings) > 40
    assert recipe.with_settings(settings) == recipe


def test_settings_change_that_field_and_no_other():
    recipe = tiny()
    changed = recipe.with_settings(
        [
            "student_training.lr=3e-4",
            "seeds=[7]",
            "dataset.params.size=16",
            "dataset.params.fresh=true",
            "students.unet.params.width=8",
            "students.1.params.spatial=2",
            "methods.s2kd.terms.1.weight=0.25",
            "teacher.backbone.params.fuse_at=mid",
            "name=a name with = and spaces",
        ]
    )
    plain = recipe.to_dict()
    plain["student_training"]["lr"] = 3e-4
    plain["seeds"] = [7]
    plain["dataset"]["params"] = {"size": 16, "fresh": True}
    plain["students"][0]["params"]["width"] = 8
    plain["students"][1]["params"]["spatial"] = 2
    plain["methods"][3]["terms"][1]["weight"] = 0.25
    plain["teacher"]["backbone"]["params"]["fuse_at"] = "mid"
    plain["name"] = "a name with = and spaces"
    assert changed.to_dict() == plain
    assert recipe == tiny(), "the recipe itself stays as it was"
    assert changed.digest != recipe.digest


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pst=4", r"--set pst=4: Recipe has no 'pst'; did you mean 'past'\? \(it has name, "),
        ("student_training.lrr=1", r"Training has no 'lrr'; did you mean 'lr'\?"),
        ("students.unett.params.width=8", r"no item 'unett'; did you mean 'unet'\?"),
        ("methods.s2kdd.weight=2", r"no item 's2kdd'; did you mean 's2kd'\?"),
        ("seeds.5=1", "no item '5'"),
        ("past.frames=4", "'frames' is no field of a plain value"),
        ("past", "wants PATH=VALUE"),
        ("past=three", r"past: wants int, got 'three'"),
        ("past=2.5", r"past: wants int, got 2\.5"),
        ("past=true", r"past: wants int, got True"),
        ("past=0", "past: wants int >= 1, got 0"),
        ("student_training.lr=fast", r"student_training\.lr: wants float, got 'fast'"),
        ("student_training.lr=NaN", r"student_training\.lr: wants float > 0\.0, got nan"),
        ("student_training.lr=Infinity", r"lr: wants float <= .*, got inf"),
        ("student_training.weight_decay=-1", r"weight_decay: wants float >= 0\.0, got -1"),
        ("student_training.clip=-0.5", r"clip: wants float >= 0\.0, got -0\.5"),
        ("student_training.clip=NaN", r"clip: wants float >= 0\.0, got nan"),
        ("student_training.plateau_patience=-1", "plateau_patience: wants int >= 0, got -1"),
        ("teacher_training.stop_patience=0", "stop_patience: wants int >= 1, got 0"),
        ("teacher.heads=0", r"teacher\.heads: wants int >= 1, got 0"),
        ("teacher.width=30", "width must be divisible by heads, got width=30 and heads="),
        ("teacher.depth=-1", "depth: wants int >= 0, got -1"),
        ("teacher.dropout=2", r"dropout: wants float < 1\.0, got 2"),
        ("teacher.dropout=NaN", r"dropout: wants float >= 0\.0, got nan"),
        (
            "student_training.schedule=linear",
            "must be one of plateau, cosine, constant, got 'linear'",
        ),
        ("teacher.branches=1", r"teacher\.branches: wants bool, got 1"),
        ("seeds=42", r"seeds: wants a list, got 42"),
        ("seeds=[42,42]", r"seeds lists the same name twice"),
        ("dataset=blobs", r"dataset: wants Part with its fields, got 'blobs'"),
        ("dataset.params=8", r"dataset\.params: wants settings by name, got 8"),
        ('students=[{"nam":"unet"}]', r"students\[0\]: Part has no 'nam'; did you mean 'name'\?"),
        ('students=[{"params":{}}]', r"students\[0\]: Part lacks name"),
        ("students=[]", r"students: wants a list of length >= 1, got \[\]"),
        ("methods.s2kd.teacher=none", "'s2kd': losses need a teacher, or extra windows"),
        (
            "methods.s2kd.teacher=txt",
            r"methods\[3\]\.teacher: must be one of text, .* got 'txt'; did you mean 'text'\?",
        ),
        ("methods.baseline.teacher=text", "'baseline': losses and a teacher go together"),
        ("methods.baseline.hint_epochs=2", "'baseline': .*hint_epochs"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(setting, said):
    with pytest.raises(S2KDError, match=said):
        tiny().with_settings([setting])


def test_a_file_of_something_else_is_refused():
    with pytest.raises(S2KDError, match=r"mine\.json: wants Recipe with its fields, got \[1\]"):
        Recipe.from_dict([1], source="mine.json")
    with pytest.raises(S2KDError, match=r"mine\.json: Recipe lacks name, dataset, past"):
        Recipe.from_dict({}, source="mine.json")


def test_whole_numbers_are_numbers():
    assert tiny().with_settings(["student_training.lr=1"]).student_training.lr == 1.0
    assert isinstance(tiny().with_settings(["student_training.lr=1"]).student_training.lr, float)


def test_the_digest_names_every_field():
    recipe = tiny()
    others = [
        replace(recipe, past=4),
        replace(recipe, predict="change"),
        replace(recipe, seeds=(43, 42)),
        replace(recipe, student_training=Training(clip=1.0)),
        recipe.with_settings(["methods.s2kd.terms.0.loss.params.x=1"]),
    ]
    assert len({recipe.digest, *(other.digest for other in others)}) == 6


def test_the_method_has_the_papers_weights():
    """λ = 1 and β = 0.5 (the paper's settings; eqs. 12 and 14)."""
    method = recipes.s2kd()
    assert method == Method(
        name="s2kd",
        teacher="text",
        weight=1.0,
        terms=(
            Term(loss=Part(name="semantic"), weight=1.0),
            Term(loss=Part(name="spectral"), weight=0.5),
        ),
    )


def test_methods_may_be_given_by_name():
    recipe = tiny().with_settings(['methods=["baseline","review","s2kd"]', "methods.s2kd.weight=2"])
    assert [method.name for method in recipe.methods] == ["baseline", "review", "s2kd"]
    assert recipe.methods[2] == recipes.s2kd(weight=2.0)
    plain = tiny().to_dict()
    mixed = [*(method.name for method in recipes.ALL_METHODS), {"name": "mine"}]
    read = Recipe.from_dict({**plain, "methods": mixed}).methods
    assert read == (*recipes.ALL_METHODS, Method(name="mine"))
    assert Recipe.from_dict({**plain, "methods": [m.name for m in recipes.METHODS]}) == tiny()


def test_a_misspelt_method_is_named_with_the_nearest():
    with pytest.raises(S2KDError, match=r"no method called 'revew'; did you mean 'review'\?"):
        tiny().with_settings(['methods=["baseline","revew"]'])


def test_keys_of_methods_with_blends_stay_as_they_were():
    old = {"name": "mixup", "weight": 1.0, "terms": [], "teacher": "none", "hint_epochs": 0}
    assert key_form(method_named("mixup")) == {**old, "blends": 8}
    named = tiny().with_settings(["methods.s2kd.extra=blends"]).methods
    method = next(method for method in named if method.name == "s2kd")
    assert key_form(method)["blends"] == 8
    assert key_form(method_named("output_capture"))["extra"]["name"] == "capture"
    assert key_form(method_named("s2kd_no_text"))["name"] == "s2kd_blind"


def test_stored_recipes_get_the_fields_that_are_newer():
    """As plain data too: what results hold is compared with it."""
    new = tiny().to_dict()
    old = {k: v for k, v in new.items() if k not in ("given", "captures", "unlabelled", "split")}
    assert completed({**old, "methods": [m["name"] for m in new["methods"]]}) == new


def test_every_built_in_method_has_a_label_of_its_own():
    labels = [entry.label for entry in BUILT_IN]
    assert len(set(labels)) == len(labels) == 20
    assert label("s2kd_plus") == "S²-KD plus (ours)"
    assert label("mine") == "mine"
    assert label("s2kd_rollouts_unlabelled") == "S²-KD, roll-outs, unlabelled frames"


def test_the_schema_holds_bounds_and_choices():
    fields = json_schema()["$defs"]["Training"]["properties"]
    assert fields["lr"]["exclusiveMinimum"] == 0
    assert fields["epochs"]["minimum"] == 1
    assert set(fields["schedule"]["enum"]) == {"plateau", "cosine", "constant"}
    methods = json_schema()["$defs"]["Recipe"]["properties"]["methods"]["items"]["anyOf"]
    assert "s2kd_plus" in methods[1]["enum"]
    with pytest.raises(S2KDError, match="only recipes have a schema"):
        json_schema("backbones")


@pytest.mark.parametrize(
    "name", ["../../data", "a/b", "a\\b", "", ".hidden", "a b", "a\0b", "a\n", "x" * 81]
)
@pytest.mark.parametrize("place", ["methods", "students", "dataset"])
def test_a_name_that_could_be_a_path_is_refused(name, place):
    plain = tiny().to_dict()
    part = plain[place][0] if place != "dataset" else plain["dataset"]
    part["name"] = name
    with pytest.raises(S2KDError, match=r"wants a name of letters, digits"):
        Recipe.from_dict(plain)


@pytest.mark.parametrize(
    "setting",
    [
        "student_training.lr=1e38",
        "seeds=[10000000000000000000000]",
        "past=1000000000",
        "seeds=[-1]",
    ],
)
def test_numbers_without_sense_are_refused(setting):
    with pytest.raises(S2KDError, match=setting.partition("=")[0].partition(".")[0]):
        tiny().with_settings([setting])
