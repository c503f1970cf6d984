"""Blended windows: made by hand, labelled by the teacher, learned from beside the real ones."""

import pytest
import torch
from msgspec import structs
from test_train import built, states, taught, windows

from s2kd.core.recipe import Method, Part, Term, method_named
from s2kd.core.types import S2KDError
from s2kd.training.blends import Blends
from s2kd.training.losses import losses
from s2kd.training.objectives import (
    Distilling,
    Forecasting,
    Target,
    Weighted,
    joined,
    prediction_loss,
)
from s2kd.training.targets import LiveTargets, StoredTargets, store_targets

TWO = torch.tensor([3, 20])


@pytest.fixture
def blends(blobs):
    return Blends(windows(blobs), copies=3, seed=1)


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
    again, other = (Blends(windows(blobs), copies=3, seed=seed) for seed in (1, 2))
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
        blends=(blends, labels[1]),
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
    objective = Forecasting(student, real, None, blends=blends).eval()
    objective.epoch = 1
    value, _ = objective(TWO)
    both = real.gather(TWO), blends.gather(blends.of(TWO, 1))
    errors = [
        prediction_loss(student(one.past).future, one.future, student.normaliser, None)
        for one in both
    ]
    torch.testing.assert_close(value, (errors[0] + errors[1]) / 2)


def test_joining_keeps_what_is_missing_missing_and_joins_every_stage():
    one, other = torch.zeros(2, 1, 1, 2, 2), torch.ones(1, 1, 1, 2, 2)
    got = joined(
        Target(latent=None, forecast=one, feature_pyramid=(one[:, 0],)),
        Target(latent=None, forecast=other, feature_pyramid=(other[:, 0],)),
    )
    assert got.latent is None
    assert got.forecast.mean(dim=(1, 2, 3, 4)).tolist() == [0, 0, 1]
    assert got.feature_pyramid[0].shape == (3, 1, 2, 2)


def test_stages_that_one_side_does_not_have_are_left_out():
    live = Target(latent=None, forecast=None, feature_pyramid=(torch.zeros(2, 1, 2, 2),))
    stored = Target(latent=None, forecast=None)
    assert joined(stored, live).feature_pyramid == joined(live, stored).feature_pyramid == ()


@pytest.mark.parametrize("copies", [0, -1])
def test_no_copies_are_refused(blobs, copies):
    with pytest.raises(S2KDError, match="copies must be at least 1"):
        Blends(windows(blobs), copies=copies, seed=0)


def test_a_stored_teacher_has_no_blends():
    terms = (Term(loss=Part(name="output")),)
    with pytest.raises(S2KDError, match=r"'mine': blends=2 must be 0 .* stored"):
        Method(name="mine", teacher="stored", terms=terms, blends=2)


@pytest.mark.parametrize("name", ["mixup", "s2kd_plus"])
def test_the_built_in_methods_that_have_them_train(name, tmp_path):
    import road

    from s2kd import pipeline
    from s2kd.models.checkpoint import load_student

    recipe = structs.replace(
        road.tiny(),
        methods=(structs.replace(method_named(name), blends=2),),
        student_training=structs.replace(road.tiny().student_training, epochs=3),
    )
    run = pipeline.open_run(recipe, tmp_path / "run")
    pipeline.narrate(run)
    pipeline.train_teachers(run)
    pipeline.distill(run)
    (folder,) = (tmp_path / "run" / "students").iterdir()
    assert load_student(folder)[0](run.windows("test").gather(TWO[:1]).past).future.shape[1]
    stores = {path.name for path in (tmp_path / "run" / "targets").glob("[!.]*")}
    seed = recipe.seeds[0]
    wanted = set() if name == "mixup" else {f"text-seed{seed}", f"text-seed{seed}-blends2"}
    assert {s for s in stores if "text" in s} == wanted


@pytest.mark.parametrize("name", ["output_plus", "s2kd_plus"])
def test_windows_may_be_stored_where_their_more_numerous_blends_must_be_live(name, tmp_path):
    import road

    from s2kd import pipeline
    from s2kd.pipeline import Machine

    method = structs.replace(method_named(name), blends=2)
    recipe = structs.replace(road.tiny(), methods=(method,))
    run = pipeline.open_run(recipe, tmp_path / "run")
    pipeline.narrate(run)
    pipeline.train_teachers(run)
    seed, kind = recipe.seeds[0], method.teacher
    pipeline.make_targets(run, kind, seed)
    store = run.out / "targets" / f"{kind}-seed{seed}"
    held = sum(path.stat().st_size for path in store.glob("*.npy"))
    run.machine = Machine(target_gigabytes=1.5 * held / 2**30)
    pipeline.distill(run)
    names = [path.name for path in (run.out / "targets").glob("[!.]*")]
    assert names == [store.name], "the premise"
    assert len(list(run.out.glob("students/*/model.json"))) == 1
