"""Blended windows: made by hand, labelled by the teacher, learned from beside the real ones."""

import pytest
import road
import torch
from msgspec import structs
from test_train import built, setting_of, states, taught, windows

from s2kd.core.recipe import Part, Recipe, method_named
from s2kd.core.types import S2KDError
from s2kd.pipeline.checks import check_parts
from s2kd.training.extra import Material, extra_windows
from s2kd.training.extra.blends import Blends
from s2kd.training.losses import losses
from s2kd.training.objectives import (
    Distilling,
    Forecasting,
    Weighted,
    concatenated,
    prediction_loss,
)
from s2kd.training.targets import ForecastsOnly, LiveTargets, StoredTargets, store_targets

TWO = torch.tensor([3, 20])
TWICE = Part(name="blends", params={"copies": 2})


def material(data, *, seed=1, **more):
    setting = setting_of(data)
    return Material(
        windows=windows(data),
        statistics=setting.statistics,
        normaliser=setting.normaliser,
        seed=seed,
        **more,
    )


@pytest.fixture
def blends(blobs):
    return Blends(material(blobs), copies=3)


def test_a_blend_is_the_weighted_mean_of_two_windows_frame_by_frame(blobs, blends):
    real, count = windows(blobs), len(windows(blobs))
    assert len(blends) == 3 * count
    number = 2 * count + 5
    share, partner = float(blends.share[number]), int(blends.partner[number])
    one, other = real.gather(torch.tensor([5])), real.gather(torch.tensor([partner]))
    got = blends.gather(torch.tensor([number]))
    torch.testing.assert_close(got.past, other.past + share * (one.past - other.past))
    torch.testing.assert_close(got.future, other.future + share * (one.future - other.future))
    assert got.index.tolist() == [5]  # the words are the larger part's
    assert bool((blends.share >= 0.5).all())
    assert bool((blends.share < 1).all())
    assert blends.share.std() > 0.1
    assert len(set(blends.partner.tolist())) == count


def test_every_epoch_has_another_blend_until_the_copies_are_through(blobs, blends):
    count = len(windows(blobs))
    turns = [blends.of(TWO, epoch).tolist() for epoch in range(4)]
    assert turns == [[3, 20], [count + 3, count + 20], [2 * count + 3, 2 * count + 20], [3, 20]]


def test_they_are_the_same_for_a_seed_and_others_for_another(blobs, blends):
    again, other = (Blends(material(blobs, seed=seed), copies=3) for seed in (1, 2))
    assert torch.equal(again.share, blends.share)
    assert torch.equal(again.partner, blends.partner)
    assert not torch.equal(other.share, blends.share)
    assert not torch.equal(other.partner, blends.partner)


def test_the_teacher_labels_a_blend_with_the_words_of_its_larger_part(blobs, blends, tmp_path):
    teacher, words = taught(blobs), states(len(windows(blobs)))
    store_targets(tmp_path, teacher, blends, words, key="one")
    number = blends.of(TWO, 1)
    got = StoredTargets(tmp_path).gather(number, "cpu")
    past = blends.gather(number).past
    want = teacher.eval()(past, words.tokens(TWO))
    torch.testing.assert_close(got.latent, want.latent, rtol=2**-10, atol=1e-4)
    forecast = teacher.normaliser.decoded(want.future, past)
    torch.testing.assert_close(got.forecast, forecast, rtol=2**-10, atol=1e-3)
    other = teacher(past, words.tokens(TWO + 1)).latent
    assert (other - want.latent).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["output", "semantic"])
def test_distillation_is_over_both_and_the_forecast_error_over_the_real_ones(blobs, blends, name):
    real, words = windows(blobs), states(len(windows(blobs)))
    teacher, student = taught(blobs), built(blobs)
    terms = [Weighted(name, 1.0, losses.build(name), losses.compares(name))]
    labels = LiveTargets(teacher, real, words), LiveTargets(teacher, blends, words)
    torch.manual_seed(5)  # P
    objective = Distilling(
        student,
        real,
        labels[0],
        terms,
        teacher_width=teacher.latent_width,
        weight=1.0,
        extra=(blends, labels[1]),
    ).eval()  # so that batch norm does not mix the windows of a batch
    objective.epoch = 4
    error, ((_, _, value),) = objective.parts(TWO)

    number = blends.of(TWO, 4)
    said = [labels[0].gather(TWO, "cpu"), labels[1].gather(number, "cpu")]
    pasts = [real.gather(TWO).past, blends.gather(number).past]
    single = []
    for past, target in zip(pasts, said, strict=True):
        own = student.eval()(past)
        if name == "output":
            difference = student.normaliser.decoded(own.future, past) - target.forecast
        else:
            difference = objective.project(own.latent) - target.latent
        single.append(difference.square().mean())
    torch.testing.assert_close(value, (single[0] + single[1]) / 2)
    assert (single[0] - single[1]).abs() > 1e-5
    plain = prediction_loss(
        student(pasts[0]).future, real.gather(TWO).future, student.normaliser, None
    )
    torch.testing.assert_close(error, plain)


def test_without_a_teacher_the_truth_is_blended_too(blobs, blends):
    student, real = built(blobs).eval(), windows(blobs)
    objective = Forecasting(student, real, None, extra=blends).eval()
    objective.epoch = 1
    value, _ = objective(TWO)
    both = real.gather(TWO), blends.gather(blends.of(TWO, 1))
    errors = [
        prediction_loss(student(one.past).future, one.future, student.normaliser, None)
        for one in both
    ]
    torch.testing.assert_close(value, (errors[0] + errors[1]) / 2)


def test_a_term_is_over_the_windows_whose_targets_hold_it(blobs, blends):
    """The own windows' teacher gives no latent: L_output is over both, L_semantic over blends."""
    real, teacher = windows(blobs), taught(blobs, reads=False)
    student = built(blobs).eval()
    terms = [Weighted(n, 1.0, losses.build(n), losses.compares(n)) for n in ("output", "semantic")]
    own, extra = ForecastsOnly(LiveTargets(teacher, real)), LiveTargets(teacher, blends)

    def values(targets):
        torch.manual_seed(5)  # P
        objective = Distilling(
            student, real, targets, terms, teacher_width=16, weight=1.0, extra=(blends, extra)
        )
        return {name: value for name, _, value in objective.eval().parts(TWO)[1]}, objective

    (mixed, objective), (alone, _) = values(own), values(None)
    number = blends.of(TWO, 0)
    past, target = blends.gather(number).past, extra.gather(number, "cpu")
    semantic = (objective.project(student(past).latent) - target.latent).square().mean()
    torch.testing.assert_close(mixed["semantic"], semantic)
    torch.testing.assert_close(alone["semantic"], semantic)
    decoded = student.normaliser.decoded(student(past).future, past)
    torch.testing.assert_close(alone["output"], (decoded - target.forecast).square().mean())
    assert (mixed["output"] - alone["output"]).abs() > 1e-5


def test_pyramids_are_joined_level_by_level():
    levels = torch.zeros(2, 1, 2, 2), torch.zeros(2, 3, 1, 1)
    assert [len(x) for x in concatenated(levels, levels)] == [4, 4]


@pytest.mark.parametrize("copies", [0, -1])
def test_no_copies_are_refused(blobs, copies):
    with pytest.raises(S2KDError, match="copies: wants int >= 1, got"):
        extra_windows.build("blends", material(blobs), copies=copies)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"teacher": "stored", "extra": "blends"}, "need a teacher that answers new windows"),
        ({"teacher": "none", "extra": "rollouts"}, "teacher 'none' does not"),
        ({"extra": "rollouts", "terms": []}, "have no truth"),
        ({"extra": "capture"}, r"name them with --set 'captures="),
        ({"extra": {"name": "blends", "params": {"copy": 2}}}, "no setting 'copy'; did you mean"),
        ({"extra": {"name": "mixture", "params": {"parts": [{"name": "blends"}]}}}, "at least two"),
        ({"teacher": "given"}, "given=MODULE"),
    ],
)
def test_extra_windows_that_nobody_can_answer_are_refused(method, message):
    output = [{"loss": {"name": "output"}}]
    plain = {**road.tiny().to_dict(), "stored": {"path": "f.nc"}}
    method = {"name": "mine", "terms": output, "teacher": "none", **method}
    with pytest.raises(S2KDError, match=message):
        check_parts(Recipe.from_dict({**plain, "methods": [method]}))


@pytest.mark.parametrize("name", ["mixup", "s2kd_plus"])
def test_the_built_in_methods_that_have_them_train(name, tmp_path):
    from s2kd import pipeline
    from s2kd.models.checkpoint import load_student

    recipe = structs.replace(
        road.tiny(),
        methods=(structs.replace(method_named(name), extra=TWICE),),
        student_training=structs.replace(road.tiny().student_training, epochs=3),
    )
    run = pipeline.open_run(recipe, tmp_path / "run")
    pipeline.narrate(run)
    pipeline.train_teachers(run)
    pipeline.train_students(run)
    (folder,) = (tmp_path / "run" / "students").iterdir()
    assert load_student(folder)[0](run.windows("test").gather(TWO[:1]).past).future.shape[1]
    stores = {path.name for path in (tmp_path / "run" / "targets").glob("[!.]*")}
    seed = recipe.seeds[0]
    wanted = set() if name == "mixup" else {f"text-seed{seed}", f"text-seed{seed}-blends2"}
    assert {s for s in stores if "text" in s} == wanted


@pytest.mark.parametrize("name", ["output_plus", "s2kd_plus"])
def test_windows_may_be_stored_where_their_more_numerous_blends_must_be_live(name, tmp_path):
    from s2kd import pipeline
    from s2kd.pipeline import Machine

    method = structs.replace(method_named(name), extra=TWICE)
    recipe = structs.replace(road.tiny(), methods=(method,))
    run = pipeline.open_run(recipe, tmp_path / "run")
    pipeline.narrate(run)
    pipeline.train_teachers(run)
    seed, kind = recipe.seeds[0], method.teacher
    pipeline.make_targets(run, kind, seed)
    store = run.out / "targets" / f"{kind}-seed{seed}"
    held = sum(path.stat().st_size for path in store.glob("*.npy"))
    run.machine = Machine(target_gigabytes=1.5 * held / 2**30)
    pipeline.train_students(run)
    names = [path.name for path in (run.out / "targets").glob("[!.]*")]
    assert names == [store.name], "the premise"
    assert len(list(run.out.glob("students/*/model.json"))) == 1
