"""Extra windows: inputs against slow loops, answers against the teacher's, resumed training."""

from dataclasses import replace

import numpy as np
import pytest
import road
import torch
from gridded import waves, write
from msgspec import structs
from test_blends import material
from test_train import LEAD, PAST, Pulled, assert_equal, built, learn, setting_of, windows
from test_train import weights as weights_of
from worlds import world

from s2kd import pipeline
from s2kd.core.methods import method_named
from s2kd.core.recipe import Part, Split, Stored
from s2kd.core.types import S2KDError
from s2kd.data.dataset import Stretch
from s2kd.data.windows import WindowDataset
from s2kd.models.given import given_teacher
from s2kd.training.extra import cycled, extra_windows
from s2kd.training.extra.capture import Capture
from s2kd.training.extra.mixture import Mixture
from s2kd.training.extra.on_policy import OnPolicy
from s2kd.training.extra.rollouts import RollOuts
from s2kd.training.labels import Labels, write_labels
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Weighted
from s2kd.training.targets import LiveTargets, freeze

OUTPUT = Weighted("output", 1.0, losses.build("output"), "forecast")
SEMANTIC = Weighted("semantic", 1.0, losses.build("semantic"), "latent")


@pytest.fixture(scope="module")
def teacher(blobs):
    return freeze(built(blobs, seed=7))


def by_hand(teacher, past, cut, low, high):
    """The frames after `cut` steps of a roll-out, frame lists instead of tensors."""
    frames = list(past)
    while len(frames) < PAST + cut:
        future = teacher(torch.stack(frames[-PAST:])[None]).future[0]
        frames += [frame.clip(low, high) for frame in future]
    return torch.stack(frames[cut : cut + PAST])


@pytest.mark.parametrize("start", ["windows", "blends"])
def test_roll_outs_equal_a_loop_by_hand(blobs, teacher, start):
    facts = material(blobs, teacher=teacher)
    tight = replace(facts.statistics, minimum=(0.02,), maximum=(0.4,))
    extra = RollOuts(replace(facts, statistics=tight), copies=3, depth=2, start=start)
    own = torch.tensor([5, 30, 5])
    number = extra.of(own, epoch=4)
    batch = extra.gather(number)
    assert number.tolist() == [16, 91, 16]
    assert batch.index.tolist() == own.tolist()
    for row, window in enumerate(own.tolist()):
        first = windows(blobs).gather(torch.tensor([window])).past
        if start == "blends":
            first = extra.blends.gather(torch.tensor([36 + window])).past
        cut = int(extra.cut[number[row]])
        expected = by_hand(teacher, first[0], cut, 0.02, 0.4)
        torch.testing.assert_close(batch.past[row], expected, rtol=1e-5, atol=1e-6)
    assert set(extra.cut.tolist()) == set(range(1, 2 * LEAD + 1))


def test_roll_outs_need_a_teacher_and_frames_of_one_kind(blobs, teacher):
    with pytest.raises(S2KDError, match="stored forecasts answer no new states"):
        RollOuts(material(blobs))
    facts = material(blobs, teacher=teacher)
    facts.windows.dataset = replace(blobs, window=(PAST, LEAD))
    with pytest.raises(S2KDError, match="differ in kind"):
        OnPolicy(facts)


# --- the student's own states --------------------------------------------------------------------


def test_a_renewal_replaces_half_by_the_students_states(blobs, teacher):
    extra, student = OnPolicy(material(blobs, teacher=teacher), every=2, depth=1), built(blobs)
    slots = torch.arange(len(extra))
    extra.renew(student, 0)
    first = extra.gather(slots)
    torch.testing.assert_close(first.past, windows(blobs).gather(first.index).past)
    extra.renew(student, 1)
    torch.testing.assert_close(extra.gather(slots).past, first.past, rtol=0, atol=0)
    extra.renew(student, 2)
    second = extra.gather(slots)
    half = len(extra) // 2
    torch.testing.assert_close(second.past[half:], first.past[half:], rtol=0, atol=0)
    low, high = (
        getattr(setting_of(blobs).statistics, bound)[0] for bound in ("minimum", "maximum")
    )
    start = windows(blobs).gather(second.index[:half]).past
    student.eval()
    for row in range(half):
        states = [by_hand(student, start[row], cut, low, high) for cut in (1, 2)]
        assert min((second.past[row] - state).abs().max() for state in states) < 1e-5
    with torch.no_grad():
        output = teacher(second.past)
    target = extra.targets.gather(slots, "cpu")
    torch.testing.assert_close(target.latent, output.latent, rtol=1e-5, atol=1e-5)
    decoded = teacher.normaliser.decoded(output.future, second.past)
    torch.testing.assert_close(target.forecast, decoded, rtol=1e-4, atol=1e-4)
    assert student.training is False, "as it was"


def test_training_with_own_states_resumes_exactly(blobs, teacher, tmp_path, fabric):
    def objective():
        extra = OnPolicy(material(blobs, teacher=teacher), every=1, depth=1, size=8)
        own = LiveTargets(teacher, windows(blobs))
        student = built(blobs, seed=3)
        targets = (extra, extra.targets)
        terms = [OUTPUT, SEMANTIC]
        return Distilling(
            student, windows(blobs), own, terms, teacher_width=16, weight=1.0, extra=targets
        )

    def pulled(done, total, word):
        if done == 5:  # in the middle of the second epoch, after its renewal
            raise Pulled

    torch.manual_seed(1)
    complete = objective()
    expected = learn(complete, tmp_path / "complete", fabric)
    torch.manual_seed(1)
    with pytest.raises(Pulled):
        learn(objective(), tmp_path / "cut", fabric, progress=pulled, save_seconds=0.0)
    resumed = objective()
    assert learn(resumed, tmp_path / "cut", fabric) == expected
    assert_equal(weights_of(resumed.model), weights_of(complete.model))
    assert "memory" not in "".join(weights_of(resumed.model)), "a student carries no buffer"


# --- captures ------------------------------------------------------------------------------------


def archive():
    """Windows of other runs of the same world."""
    other = world("blobs", size=8, runs=5, length=16, seed=9)
    return WindowDataset(other, "val", past=PAST, lead=LEAD)


@pytest.fixture(scope="module")
def capture_path(blobs, tmp_path_factory):
    """The answers of a teacher to runs that the owner of `blobs` does not have."""
    given = given_teacher(built(blobs, seed=7), setting=setting_of(blobs))
    path = tmp_path_factory.mktemp("capture") / "labels.zarr"
    write_labels(path, given, archive(), latents=True)
    return path


def test_a_capture_answers_as_its_teacher_would_in_flight(blobs, teacher, capture_path):
    labels = Labels.open(capture_path)
    extra = Capture(material(blobs, captures=(labels, labels)), copies=2)
    assert len(extra) == 2 * len(labels)
    index = torch.tensor([len(labels) + 3, 1])
    live = LiveTargets(teacher, archive())
    expected, target = live.gather(torch.tensor([3, 1]), "cpu"), extra.targets.gather(index, "cpu")
    torch.testing.assert_close(target.forecast, expected.forecast, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(target.latent, expected.latent, rtol=1e-5, atol=1e-5)
    assert extra.targets.extent == live.extent
    past = archive().gather(torch.tensor([3, 1])).past
    torch.testing.assert_close(extra.gather(index).past, past, rtol=0, atol=0)
    numbers = torch.stack([extra.of(torch.arange(36), epoch) for epoch in (0, 1)]).flatten()
    assert set(numbers.bincount(minlength=len(extra)).tolist()) <= {2, 3, 4}, "all equally often"


def test_windows_of_a_capture_that_touch_validation_or_test_are_left_out(blobs, tmp_path):
    """By content: the archive holds the owner's validation run beside two of training."""
    given = given_teacher(built(blobs, seed=7), setting=setting_of(blobs))
    first, *train = blobs.splits["train"]
    splits = {**blobs.splits, "train": (*train, *blobs.splits["val"]), "val": (first,)}
    windows = WindowDataset(replace(blobs, splits=splits), "train", past=PAST, lead=LEAD)
    write_labels(tmp_path / "all.zarr", given, windows)
    labels = Labels.open(tmp_path / "all.zarr")
    extra = Capture(material(blobs, captures=(labels,)))
    last = max(stretch.stop for stretch in blobs.splits["train"])
    allowed = {n for n, start in enumerate(windows.starts) if start + PAST + LEAD <= last}
    taken = set(extra.pick.flatten().tolist())
    assert taken <= allowed
    # the store holds inputs alone, so that runs lie nearer to each other than they are
    assert len(allowed - taken) <= LEAD
    assert extra.left_out == len(windows) - len(taken)


def test_a_capture_of_the_test_split_alone_is_refused(blobs, tmp_path):
    given = given_teacher(built(blobs, seed=7), setting=setting_of(blobs))
    write_labels(tmp_path / "test.zarr", given, WindowDataset(blobs, "test", past=PAST, lead=LEAD))
    with pytest.raises(S2KDError, match=r"test\.zarr: every window lies in the validation or test"):
        Capture(material(blobs, captures=(Labels.open(tmp_path / "test.zarr"),)))


def test_every_window_is_taken_before_any_comes_again():
    numbers = cycled(5, 12, seed=3)
    assert sorted(numbers[:5].tolist()) == sorted(numbers[5:10].tolist()) == [0, 1, 2, 3, 4]
    assert numbers[:5].tolist() != [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["s2kd_capture", "output_capture"])
def test_a_student_learns_from_a_capture_without_a_teacher(name, blobs, capture_path, tmp_path):
    recipe = structs.replace(
        road.tiny(),
        dataset=Part(name="blobs", params={"size": 8, "runs": 5, "length": 16}),
        methods=(method_named(name),),
        captures=(Stored(path=str(capture_path)),),
    )
    run = pipeline.open_run(recipe, tmp_path / "run")
    pipeline.check_models(run)
    pipeline.train_students(run)
    stored, live = (pipeline.supervision_of(run, recipe.methods[0], 42, None) for _ in range(2))
    assert stored.targets is None
    number = stored.extra.of(torch.tensor([0, 9]), 1)
    raw = Capture(material(blobs, seed=42, captures=run.captures))
    assert torch.equal(number, raw.of(torch.tensor([0, 9]), 1))
    torch.testing.assert_close(stored.extra.gather(number).past, raw.gather(number).past)
    got, expected = (t.gather(number, "cpu") for t in (stored.extra_targets, raw.targets))
    torch.testing.assert_close(got.forecast, expected.forecast, rtol=0, atol=0)
    run.machine = pipeline.Machine(target_gigabytes=0.0)
    live = pipeline.supervision_of(run, recipe.methods[0], 42, None).extra_targets
    torch.testing.assert_close(
        live.gather(number, "cpu").forecast, expected.forecast, rtol=0, atol=0
    )
    (folder,) = (tmp_path / "run" / "students").iterdir()
    assert (folder / "model.json").exists()


def test_a_capture_without_latents_does_not_serve_terms_on_latents(blobs, tmp_path):
    given = given_teacher(built(blobs), setting=setting_of(blobs))
    write_labels(tmp_path / "labels.zarr", given, windows(blobs, "val"))
    recipe = structs.replace(
        road.tiny(),
        dataset=Part(name="blobs", params={"size": 8, "runs": 5, "length": 16}),
        methods=(method_named("s2kd_capture"),),
        captures=(Stored(path=str(tmp_path / "labels.zarr")),),
    )
    run = pipeline.open_run(recipe, tmp_path / "run")
    with pytest.raises(S2KDError, match=r"'s2kd_capture' compares latents, which .*labels\.zarr"):
        pipeline.check_models(run)


# --- frames without a future ---------------------------------------------------------------------


def test_windows_before_gaps_are_those_whose_future_is_not_there(blobs, teacher):
    cut = {**blobs.splits, "train": (Stretch(first=0, stop=7), Stretch(first=8, stop=12))}
    data = replace(blobs, splits=cut)
    extra = extra_windows.build("unlabelled", material(data, teacher=teacher))
    (ends,) = extra.sources
    # windows of 3 + 2 frames: the last with a future start at 2 and, of the second, there is none
    assert ends.starts.tolist() == [3, 4, 8, 9]
    past = extra.gather(torch.tensor([2, 0])).past
    np.testing.assert_array_equal(past, np.stack([blobs.frames[8:11], blobs.frames[3:6]]))
    assert sorted(extra.of(torch.arange(3), 0).tolist() + extra.of(torch.arange(1), 1).tolist())
    with pytest.raises(S2KDError, match="reads no narratives"):
        extra_windows.build("unlabelled", material(data, teacher=teacher, states=object()))


def test_files_of_further_frames_are_read_and_checked(tmp_path):
    frames = waves(frames=60)
    write(frames, tmp_path / "own.nc")
    further = frames.isel(time=slice(0, 9)).assign_coords(
        time=frames.time[:9] + np.timedelta64(900, "D")
    )
    write(further, tmp_path / "further.nc")
    write(further.isel(latitude=slice(0, 8)), tmp_path / "small.nc")
    recipe = structs.replace(
        road.tiny(),
        dataset=Part(name="cf", params={"path": str(tmp_path / "own.nc")}),
        split=Split(gap=5),
        unlabelled=(str(tmp_path / "further.nc"),),
    )
    run = pipeline.Run(recipe=recipe, out=tmp_path / "run")
    (further_windows,) = run.unlabelled
    assert len(further_windows) == 7
    run = pipeline.Run(
        recipe=structs.replace(recipe, unlabelled=(str(tmp_path / "small.nc"),)), out=tmp_path
    )
    with pytest.raises(S2KDError, match=r"small\.nc"):
        _ = run.unlabelled


# --- mixtures ------------------------------------------------------------------------------------

MIXED = {
    "parts": [
        {"name": "blends", "share": 3, "params": {"copies": 2}},
        {"name": "rollouts", "params": {"copies": 2, "depth": 1}},
    ]
}


def test_a_mixture_draws_by_share_and_answers_each_part_by_its_own(blobs, teacher):
    facts = material(blobs, teacher=teacher)
    extra = Mixture(facts, **MIXED)
    own = torch.arange(36)
    numbers = torch.stack([extra.of(own, epoch) for epoch in range(40)])
    blended = numbers < 72
    assert 0.7 < blended.float().mean() < 0.8
    assert blended[:, 0].any()
    assert not blended[:, 0].all()
    blends, rolls = extra.sources
    for epoch in (0, 3):
        rows = blended[epoch]
        assert torch.equal(numbers[epoch][rows], blends.of(own, epoch)[rows])
        assert torch.equal(numbers[epoch][~rows], 72 + rolls.of(own, epoch)[~rows])
    batch = extra.gather(numbers[0])
    for row in range(36):
        part, number = (
            (blends, numbers[0][row]) if blended[0, row] else (rolls, numbers[0][row] - 72)
        )
        torch.testing.assert_close(batch.past[row], part.gather(number[None]).past[0])
        assert batch.index[row] == row


def test_stored_extra_windows_are_answered_as_the_teacher_would(done, tmp_path):
    """Inputs and targets of a mixture from the stores, against the part and the teacher itself."""
    method = structs.replace(method_named("output"), extra=Part(name="mixture", params=MIXED))
    run = pipeline.open_run(road.tiny(), road.copy_of(done, tmp_path / "run"))
    extra, targets = pipeline.make_extra(run, method, 42)
    names = {path.name for path in (run.out / "targets").glob("no_text*")}
    assert names >= {"no_text-seed42-blends2", "no_text-seed42-rollouts2x1"}
    run.machine = pipeline.Machine(target_gigabytes=0.0)
    live, live_targets = pipeline.make_extra(run, method, 42)
    number = live.of(torch.arange(len(live.windows)), 1)
    torch.testing.assert_close(extra.gather(number).past, live.gather(number).past)
    stored, expected = (t.gather(number, "cpu") for t in (targets, live_targets))
    torch.testing.assert_close(stored.forecast, expected.forecast, rtol=2**-10, atol=1e-3)
    torch.testing.assert_close(stored.latent, expected.latent, rtol=2**-10, atol=1e-3)
    assert expected.forecast.abs().max() > 0.1


# --- terms that teach nothing --------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_term_that_teaches_nothing_in_an_epoch_is_named(blobs, teacher, tmp_path, fabric, value):
    def useless(student, target):
        return value * student.sum()

    terms = [OUTPUT, Weighted("useless", 1.0, useless, "forecast")]
    own = LiveTargets(teacher, windows(blobs))
    objective = Distilling(built(blobs), windows(blobs), own, terms, teacher_width=16, weight=1.0)
    with pytest.raises(S2KDError, match=r"the loss 'useless' was -?(0|nan) in every step"):
        learn(objective, tmp_path, fabric)
