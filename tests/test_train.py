import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from worlds import world

from s2kd.core.recipe import Part, TeacherSpec, Training
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.checkpoint import Setting, build_student, build_teacher
from s2kd.models.normaliser import Normaliser
from s2kd.narration.text.states import encode_states
from s2kd.narration.text.toys import Hashed
from s2kd.training.agreement import agreement
from s2kd.training.loop import EpochsInTime, fit, validation_error
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Forecasting, Target, Weighted, prediction_loss
from s2kd.training.targets import LiveTargets, StoredTargets, store_targets

PAST, LEAD = 3, 2
SPEC = TeacherSpec(
    backbone=Part(name="simvp", params={"spatial": 4, "temporal": 8, "blocks": 2, "expansion": 2}),
    width=16,
    heads=4,
    depth=1,
)


class Pulled(Exception):
    """The plug."""


def setting_of(data, *, predict="change"):
    return Setting(
        grid=data.grid,
        past=PAST,
        lead=LEAD,
        statistics=statistics(data, lead=LEAD),
        predict=predict,
    )


def built(data, *, seed=0, predict="change", **settings):
    torch.manual_seed(seed)
    part = Part(name="unet", params={"width": 4, **settings})
    return build_student(part, setting_of(data, predict=predict))


def taught(data, *, seed=0, reads=True):
    torch.manual_seed(seed)
    return build_teacher(SPEC, setting_of(data), text_width=8, reads=reads)


def windows(data, split="train"):
    return WindowDataset(data, split, past=PAST, lead=LEAD)


def states(count):
    """A text a window; every fifth says nothing."""
    texts = ["" if i % 5 == 0 else f"blob {i} drifts east {i % 3}" for i in range(count)]
    return encode_states(texts, Hashed(width=8))


S2KD = (("semantic", 1.0), ("spectral", 0.5))


def distilling(student, data, teacher, *, terms=S2KD, weight=1.0):
    train = windows(data)
    made = [Weighted(name, beta, losses.build(name), losses.compares(name)) for name, beta in terms]
    live = LiveTargets(teacher, train, states(len(train)))
    return Distilling(student, train, live, made, teacher_width=16, weight=weight)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, msg=name)


def learn(objective, folder, fabric, *, count=None, validate=None, **settings):
    """`fit` on the objective's own windows with the validation split's error."""
    training = {"epochs": 3, "batch_size": 12, "schedule": "constant", **settings}
    fixed = ("seed", "progress", "save_seconds", "hint_epochs", "on_epoch")
    more = {key: training.pop(key) for key in fixed if key in training}
    model, data = objective.model, objective._windows.dataset
    if validate is None:
        val = windows(data, "val")
        held = states(len(val))
        validate = lambda: validation_error(model, val, held, fabric)  # noqa: E731
    return fit(
        objective, count=count or len(windows(data)), validate=validate,
        training=Training(**training), folder=folder, fabric=fabric, **{"seed": 42, **more},
    )  # fmt: skip


# --- losses --------------------------------------------------------------------------------------


def test_the_forecast_error_is_a_mean_over_existing_cells_in_the_unit():
    generator = torch.Generator().manual_seed(0)
    truth, forecast = (
        torch.randn(2, 3, 2, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    exists = (torch.rand(4, 5, generator=generator) > 0.4).double()
    unit = np.array([2.0, 0.5])
    scaler = Normaliser(torch.zeros(2), torch.ones(2), change=torch.from_numpy(unit)).double()
    squares = [
        ((forecast - truth)[b, t, c, y, x].item() / unit[c]) ** 2
        for b, t, c, y, x in np.ndindex(2, 3, 2, 4, 5)
        if exists[y, x]
    ]
    got = prediction_loss(forecast, truth, scaler, exists.float())
    np.testing.assert_allclose(got, np.mean(squares), rtol=1e-12)
    np.testing.assert_allclose(
        prediction_loss(forecast, truth, scaler, None),
        (((forecast - truth).numpy() / unit[:, None, None]) ** 2).mean(),
        rtol=1e-12,
    )


@pytest.mark.parametrize("masked", [True, False])
def test_the_teachers_forecast_counts_where_cells_exist(blobs, masked):
    mask = np.ones((8, 8), bool)
    mask[:, :3] = False
    grid = replace(blobs.grid, mask=tuple(map(tuple, mask.tolist()))) if masked else blobs.grid
    data = replace(blobs, grid=grid)
    student, index = built(data).eval(), torch.tensor([0, 4])
    past = windows(data).gather(index).past
    own = student.normaliser.decoded(student(past).future, past).detach()
    said = own.clone()
    said[..., :3] += 10.0  # where there is nothing
    said[..., 3:] += torch.arange(5.0)
    term = [Weighted("output", 1.0, losses.build("output"), "forecast")]
    teacher = Says(
        torch.zeros(5, 1, 1, 1), torch.zeros(5, *said.shape[1:]).index_copy(0, index, said)
    )
    objective = Distilling(student, windows(data), teacher, term, teacher_width=1, weight=1.0)
    _, terms = objective.eval()(index)
    want = 6.0 if masked else (3 * 100 + 30) / 8  # (0 + 1 + 4 + 9 + 16) / 5 = 6
    torch.testing.assert_close(terms["output"], torch.tensor(want))


@pytest.mark.parametrize("fill", [0.0, 1e6, 1e36])
def test_cells_that_do_not_exist_do_not_influence_the_loss(fill, fabric):
    """Not even where the number that stands for them overflows when squared."""
    mask = np.ones((8, 8), bool)
    mask[2:5, 1:7] = False
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((15, 1, 8, 8)).astype(np.float32)
    data = world("blobs", size=8, runs=3, length=5)
    known = statistics(data, lead=LEAD)
    splits = {
        s: (Stretch(first=f, stop=f + 5),) for s, f in (("train", 0), ("val", 5), ("test", 10))
    }
    grid = replace(data.grid, mask=tuple(map(tuple, mask.tolist())))
    model = built(data)

    def said(filled):
        masked = Dataset(
            name="masked", domain="generic", grid=grid, frames=filled, times=data.times,
            splits=splits,
        )  # fmt: skip
        index = torch.tensor([0])
        objective = Forecasting(model.eval(), windows(masked), None)
        loss, _ = objective(index)
        loss.backward()
        gradient = model.backbone.head[0].weight.grad.clone()
        model.zero_grad()
        return loss, validation_error(model, windows(masked, "val"), None, fabric), gradient

    # one window a split, so that its future is nobody's past
    filled = frames.copy()
    for first in (PAST, 5 + PAST):
        filled[first : first + LEAD, :, ~mask] = fill
    assert known.std[0] > 0
    for one, other in zip(said(frames), said(filled), strict=True):
        assert torch.isfinite(torch.as_tensor(one)).all()
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_every_window_counts_the_same_whatever_the_batch(blobs, fabric):
    model, val = built(blobs).eval(), windows(blobs, "val")
    alone = [
        prediction_loss(model(w.past).future, w.future, model.normaliser, None).item()
        for w in val.batches(1)
    ]
    for size in (1, 5, 32):
        got = validation_error(model, val, None, fabric, batch_size=size)
        np.testing.assert_allclose(got, np.mean(alone), rtol=1e-5)


def test_validating_leaves_the_model_as_it_was(blobs, fabric):
    model = built(blobs).train()
    before = weights(model)
    validation_error(model, windows(blobs, "val"), None, fabric)
    assert_equal(weights(model), before)
    assert model.training


# --- stage 1 and the baseline --------------------------------------------------------------------


def test_a_student_learns_to_beat_persistence(tmp_path, fabric):
    data = world("blobs", size=8, runs=20, length=16)
    student, val = built(data), windows(data, "val")
    history = learn(
        Forecasting(student, windows(data), None), tmp_path, fabric,
        epochs=8, lr=1e-2, schedule="cosine",
    )  # fmt: skip
    train = [record["train"] for record in history]
    assert train[-1] < 0.5 * train[0]
    still = [
        prediction_loss(w.past[:, -1:].expand_as(w.future), w.future, student.normaliser, None)
        for w in val.batches(len(val))
    ]
    error = validation_error(student, val, None, fabric)
    assert error < 0.75 * float(still[0])
    assert error == min(record["val"] for record in history), "the best weights are put back"


class Watched:
    """Token states that note which windows were asked for."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []

    def tokens(self, index, device):
        self.asked.append(index.tolist())
        return self.inner.tokens(index, device)


def test_every_epoch_sees_every_window_once_in_an_order_of_its_own(blobs, tmp_path, fabric):
    count = len(windows(blobs))
    orders = {}
    for name, seed in (("one", 42), ("same", 42), ("other", 43)):
        watched = Watched(states(count))
        objective = Forecasting(taught(blobs), windows(blobs), watched)
        learn(
            objective, tmp_path / name, fabric, seed=seed, epochs=2, batch_size=10,
            validate=lambda: 1.0,
        )  # fmt: skip
        assert [len(batch) for batch in watched.asked] == [10, 10, 10, 6] * 2
        flat = [number for batch in watched.asked for number in batch]
        orders[name] = flat
        assert sorted(flat[:count]) == sorted(flat[count:]) == list(range(count))
        assert flat[:count] != flat[count:]
    assert orders["one"] == orders["same"] != orders["other"]


def test_the_same_seed_gives_the_same_numbers(blobs, tmp_path, fabric):
    said = []
    for name, seed in (("one", 42), ("same", 42), ("other", 43)):
        teacher = taught(blobs, seed=seed)
        objective = Forecasting(teacher, windows(blobs), states(36))
        history = learn(objective, tmp_path / name, fabric, seed=seed, epochs=2)
        said.append((history, weights(teacher)))
    assert said[0][0] == said[1][0] != said[2][0]
    assert_equal(said[0][1], said[1][1])


def test_what_is_logged_is_the_history(blobs, tmp_path, fabric):
    objective = distilling(built(blobs), blobs, taught(blobs), weight=2.0)
    history = learn(objective, tmp_path, fabric)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert [record["epoch"] for record in history] == [0, 1, 2]
    for record in history:
        terms = record["terms"]
        assert set(terms) == {"forecast", "semantic", "spectral"}
        # eq. 14: means over the epoch's windows add up as the terms of one batch do
        total = terms["forecast"] + 2.0 * (terms["semantic"] + 0.5 * terms["spectral"])
        np.testing.assert_allclose(record["train"], total, rtol=1e-5)


# --- learning rate and stopping ------------------------------------------------------------------


def scripted(blobs, tmp_path, fabric, errors, **settings):
    """A training whose validation errors are given; the weights after every epoch."""
    student, seen = built(blobs), []
    answers = iter(errors)

    def validate():
        seen.append(weights(student))
        return next(answers)

    objective = Forecasting(student, windows(blobs), None)
    history = learn(
        objective, tmp_path, fabric, count=4, batch_size=4, epochs=len(errors), validate=validate,
        **settings,
    )  # fmt: skip
    return student, history, seen


def test_the_rate_is_divided_by_ten_after_exactly_five_flat_epochs(blobs, tmp_path, fabric):
    errors = [1.0] * 12 + [0.5] + [0.5] * 6
    _, history, _ = scripted(
        blobs, tmp_path, fabric, errors, schedule="plateau", lr=1e-2, stop_patience=100
    )
    rates = [round(np.log10(record["lr"]), 6) for record in history]
    # best in epoch 0: epochs 1 to 5 are flat, then 6 to 10; epoch 12 is better, 13 to 17 flat
    assert rates == [-2] * 6 + [-3] * 5 + [-4] * 7 + [-5]


def test_the_rate_falls_as_a_cosine_to_nothing(blobs, tmp_path, fabric):
    objective = Forecasting(built(blobs), windows(blobs), None)
    history = learn(
        objective, tmp_path, fabric, epochs=4, schedule="cosine", lr=1e-2, validate=lambda: 1.0
    )
    want = 0.5e-2 * (1 + np.cos(np.pi * np.arange(1, 5) / 4))
    np.testing.assert_allclose([record["lr"] for record in history], want, atol=1e-12)


def test_a_training_that_is_shortened_ends_with_its_schedule(blobs, tmp_path, fabric):
    """20 epochs were planned; after the second there is time for 4 in all."""
    history = learn(
        Forecasting(built(blobs), windows(blobs), None), tmp_path, fabric,
        epochs=20, schedule="cosine", lr=1e-2, validate=lambda: 1.0,
        on_epoch=lambda record: 20 if record["epoch"] < 1 else 4,
    )  # fmt: skip
    rates = [record["lr"] for record in history]
    assert len(rates) == 4
    assert rates[1] > 0.9e-2
    np.testing.assert_allclose(rates[3], 0, atol=1e-12)
    assert EpochsInTime(9, time.monotonic() - 1)({"epoch": 2}) == 3, "the time is over"
    in_time = EpochsInTime(9, time.monotonic() + 3600)
    assert [in_time({"epoch": epoch}) for epoch in (0, 1, 5)] == [9, 9, 9]


def test_it_stops_after_patience_and_puts_the_best_weights_back(blobs, tmp_path, fabric):
    errors = [5.0, 4.0, 3.0, 3.0, 3.2, 3.1, 1.0, 0.5]  # a tie is no better
    student, history, seen = scripted(blobs, tmp_path, fabric, errors, stop_patience=3)
    assert [record["val"] for record in history] == errors[:6]
    assert_equal(weights(student), seen[2])
    name = "backbone.head.0.weight"
    assert not torch.equal(seen[2][name], seen[5][name])


def test_an_error_that_is_never_a_number_is_named(blobs, tmp_path, fabric):
    with pytest.raises(S2KDError, match="never a number; lower the learning rate"):
        scripted(blobs, tmp_path, fabric, [float("nan")] * 3)


@pytest.mark.parametrize("hint_epochs", [0, 2])
def test_a_training_that_is_no_number_at_once_is_not_gone_on_with(
    blobs, tmp_path, fabric, hint_epochs
):
    epochs = []

    def validate():
        epochs.append(objective.epoch)
        return float("nan")

    objective = distilling(built(blobs), blobs, taught(blobs))
    with pytest.raises(S2KDError, match="never a number; lower the learning rate"):
        learn(
            objective, tmp_path, fabric, epochs=9, validate=validate, hint_epochs=hint_epochs
        )  # fmt: skip
    assert epochs == list(range(hint_epochs + 1))


def test_gradients_are_clipped(blobs, tmp_path, fabric):
    """Adam forgets a gradient's size, so only that the norm is bounded can be seen."""
    student = built(blobs)
    objective = Forecasting(student, windows(blobs), None)
    norms = []

    def progress(done, total, word):
        grads = [p.grad.flatten() for p in student.parameters()]
        norms.append(torch.cat(grads).norm().item())

    learn(objective, tmp_path, fabric, epochs=1, clip=1e-3, progress=progress)
    np.testing.assert_allclose(norms, 1e-3, rtol=1e-3)


# --- stage 2 -------------------------------------------------------------------------------------


def test_the_students_objective_is_eqs_10_to_14(blobs):
    teacher = taught(blobs)
    student = built(blobs)
    objective = distilling(student, blobs, teacher, weight=3.0, terms=(*S2KD, ("output", 0.25)))
    index = torch.tensor([3, 0, 17])
    loss, terms = objective(index)
    window = windows(blobs).gather(index)
    own = student(window.past)  # in training mode the batch's own statistics: the same numbers
    said = teacher.eval()(window.past, states(36).tokens(index))
    projected = torch.einsum("bdhw,ed->behw", own.latent, objective.project.weight[..., 0, 0])
    projected = projected + objective.project.bias[:, None, None]
    amplitudes = [torch.fft.fft2(z, norm="ortho").abs() for z in (projected, said.latent)]
    unit = student.normaliser.unit[:, None, None]
    want = {
        "forecast": ((own.future - window.future) / unit).square().mean(),
        "semantic": (projected - said.latent).square().mean(),
        "spectral": (amplitudes[0] - amplitudes[1]).abs().mean(),
        "output": ((own.future - said.future) / unit).square().mean(),
    }
    assert terms.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(terms[name], value.detach(), rtol=1e-4, atol=1e-6, msg=name)
    distillation = want["semantic"] + 0.5 * want["spectral"] + 0.25 * want["output"]
    torch.testing.assert_close(loss, want["forecast"] + 3.0 * distillation, rtol=1e-4, atol=1e-6)


def test_a_coarser_student_is_compared_on_its_own_grid(fabric):
    data = world("blobs", size=16, runs=3, length=8)
    student, teacher = built(data, patch=2), taught(data)
    assert (student.backbone.latent_grid, teacher.latent_grid) == ((2, 2), (4, 4))
    objective = distilling(student, data, teacher, terms=(("semantic", 1.0),))
    index = torch.tensor([0, 2])
    _, terms = objective(index)
    window = windows(data).gather(index)
    latent = teacher.eval()(window.past, states(len(windows(data))).tokens(index)).latent
    coarse = latent.unflatten(3, (2, 2)).mean(4).unflatten(2, (2, 2)).mean(3)
    own = objective.project(student(window.past).latent)
    torch.testing.assert_close(terms["semantic"], (own - coarse).square().mean().detach())


def test_latents_that_are_padded_differently_are_compared_where_both_are(tmp_path):
    data = world("blobs", size=24, runs=3, length=8)
    student, teacher = built(data, patch=4), taught(data)
    assert (student.backbone.latent_grid, teacher.latent_grid) == ((2, 2), (6, 6))
    assert student.backbone.extent == (32, 32), "the premise: the teacher pads to 24"
    objective = distilling(student, data, teacher, terms=(("semantic", 1.0),))
    index = torch.tensor([0, 2])
    _, terms = objective(index)
    window = windows(data).gather(index)
    tokens = states(len(windows(data))).tokens(index)
    wanted = teacher.eval()(window.past, tokens).latent.mean((2, 3))
    own = student(window.past).latent  # two cells of 16; up to 24 is all of one and half of one
    share = torch.tensor([2 / 3, 1 / 3])
    own = objective.project((own * share * share[:, None]).sum((2, 3), keepdim=True))[..., 0, 0]
    torch.testing.assert_close(terms["semantic"], (own - wanted).square().mean().detach())

    # the other way round, and from a store, which knows it too
    train = windows(data)
    store_targets(tmp_path, student, train, None, key="one")
    stored, live = StoredTargets(tmp_path), LiveTargets(student, train)
    assert stored.extent == live.extent == (32, 32)
    learner = build_student(Part(name="simvp", params={"preset": "tiny"}), setting_of(data))
    term = [Weighted("semantic", 1.0, losses.build("semantic"), "latent")]
    made = [
        Distilling(learner, train, targets, term, teacher_width=16, weight=1.0)
        for targets in (stored, live)
    ]
    made[1].project = made[0].project
    values = [one.eval()(index)[1]["semantic"] for one in made]
    torch.testing.assert_close(*values, rtol=1e-2, atol=1e-4)


def test_the_teacher_is_only_asked(blobs, tmp_path, fabric):
    teacher, student = taught(blobs), built(blobs)
    objective = distilling(student, blobs, teacher)
    before, start = weights(teacher), weights(student)
    learn(objective, tmp_path, fabric, epochs=2)
    assert_equal(weights(teacher), before)  # running statistics of its norms included
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    held = {id(p) for p in objective.parameters()}
    assert not held & {id(p) for p in teacher.parameters()}
    assert not torch.equal(student.state_dict()["backbone.head.0.weight"],
                           start["backbone.head.0.weight"])  # fmt: skip


def test_hints_train_the_latent_alone(blobs):
    student = built(blobs)
    objective = distilling(
        student, blobs, taught(blobs), terms=(*S2KD, ("output", 1.0)), weight=9.0
    )
    objective.hinting = True
    loss, terms = objective(torch.tensor([1, 2]))
    torch.testing.assert_close(loss.detach(), terms["semantic"] + 0.5 * terms["spectral"])
    assert "output" not in terms
    loss.backward()
    learns = {n.split(".")[1] for n, p in student.named_parameters() if p.grad is not None}
    assert learns == {"down1", "down2", "down3", "bottom", "up3"}
    assert objective.project.weight.grad is not None


def test_hint_epochs_come_first_and_choose_no_weights(blobs, tmp_path, fabric):
    student, seen = built(blobs), []
    answers = iter([0.0, 0.0, 7.0, 5.0, 6.0])

    def validate():
        seen.append(weights(student))
        return next(answers)

    objective = distilling(student, blobs, taught(blobs))
    history = learn(objective, tmp_path, fabric, epochs=5, hint_epochs=2, validate=validate)
    assert [record.get("hint", False) for record in history] == [True, True, False, False, False]
    for record in history:
        terms = record["terms"]
        latent = terms["semantic"] + 0.5 * terms["spectral"]
        whole = latent if record.get("hint") else latent + terms["forecast"]
        np.testing.assert_allclose(record["train"], whole, rtol=1e-5)
    assert_equal(weights(student), seen[3])
    head = "backbone.head.0.weight"
    assert torch.equal(seen[0][head], seen[1][head])
    assert not torch.equal(seen[1][head], seen[2][head])


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (S2KD, "hint_epochs=3 leaves none of the 3 epochs"),
        ((("output", 1.0),), "no loss on latents to train on"),
    ],
)
def test_hints_that_cannot_be_are_refused(blobs, tmp_path, fabric, terms, said):
    objective = distilling(built(blobs), blobs, taught(blobs), terms=terms)
    with pytest.raises(S2KDError, match=said):
        learn(objective, tmp_path, fabric, hint_epochs=3)


# --- going on ------------------------------------------------------------------------------------


def objective_of(stage, data):
    """Fresh objects, seeded as a run seeds them."""
    if stage == "teacher":  # dropout and stochastic depth draw from the random state
        return Forecasting(taught(data, seed=7), windows(data), states(36))
    if stage == "hints":
        return distilling(built(data, seed=7), data, taught(data, seed=1))
    return Forecasting(built(data, seed=7), windows(data), None)


SETTINGS = {
    "teacher": {"schedule": "cosine", "clip": 1.0},
    "hints": {"schedule": "plateau", "plateau_patience": 0, "hint_epochs": 1},
    "baseline": {"schedule": "constant", "stop_patience": 1, "lr": 3e-2},
}


@pytest.mark.parametrize("stage", list(SETTINGS))
def test_an_interrupted_training_ends_with_the_same_numbers(blobs, tmp_path, fabric, stage):
    """Three epochs of three steps, pulled at the first, within, at the end of and after epochs."""
    whole = objective_of(stage, blobs)
    want = learn(whole, tmp_path / "whole", fabric, **SETTINGS[stage])
    pulls = iter([1, 2, 3, 4, 5, 8, 9])
    pull, resumed = next(pulls), None

    def progress(done, total, word):
        if done >= pull:
            raise Pulled

    for attempt in range(8):
        objective = objective_of(stage, blobs)
        if (tmp_path / "cut" / "checkpoint.pt").exists():
            torch.manual_seed(1000 + attempt)  # the random state must come from the checkpoint
        try:
            resumed = learn(
                objective, tmp_path / "cut", fabric, progress=progress, save_seconds=0.0,
                **SETTINGS[stage],
            )  # fmt: skip
            break
        except Pulled:
            pull = next(pulls, 10**9)
    assert attempt >= 4, "it was hardly interrupted"
    assert resumed == want
    assert_equal(weights(objective.model), weights(whole.model))
    log = (tmp_path / "cut" / "log.jsonl").read_text()
    assert log == (tmp_path / "whole" / "log.jsonl").read_text()


def test_in_half_precision_the_scale_of_the_loss_goes_on_too(blobs, tmp_path):
    """A scale so large that the first steps are left out while it is halved."""

    def half():
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=4)
        return Fabric(
            accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]
        )

    def progress(done, total, word):
        if done == 6:
            raise Pulled

    settings = {"schedule": "constant", "lr": 1e-2, "epochs": 4}
    whole = objective_of("baseline", blobs)
    fabric = half()
    want = learn(whole, tmp_path / "whole", fabric, **settings)
    scale = fabric.strategy.precision.scaler.get_scale()
    assert scale != 2.0**24, "the premise"
    with pytest.raises(Pulled):
        learn(
            objective_of("baseline", blobs), tmp_path / "cut", half(), progress=progress,
            save_seconds=0.0, **settings,
        )  # fmt: skip
    fabric, again = half(), objective_of("baseline", blobs)
    assert learn(again, tmp_path / "cut", fabric, **settings) == want
    assert fabric.strategy.precision.scaler.get_scale() == scale
    assert_equal(weights(again.model), weights(whole.model))


def test_a_checkpoint_without_a_scale_is_gone_on_with(blobs, tmp_path, fabric):
    path = interrupted(blobs, tmp_path, fabric)
    saved = torch.load(path, weights_only=True)
    del saved["precision"]
    torch.save(saved, path)
    (tmp_path / ".checkpoint.pt.sha256").unlink()  # nor had earlier versions a digest
    learn(objective_of("baseline", blobs), tmp_path, fabric)


def interrupted(blobs, folder, fabric):
    def progress(done, total, word):
        if done == 5:
            raise Pulled

    with pytest.raises(Pulled):
        learn(objective_of("baseline", blobs), folder, fabric, progress=progress, save_seconds=0.0)
    return folder / "checkpoint.pt"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(blobs, tmp_path, fabric, keep):
    path = interrupted(blobs, tmp_path, fabric)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    (tmp_path / ".checkpoint.pt.sha256").unlink()
    with pytest.raises(S2KDError, match=r"checkpoint\.pt: truncated or not a checkpoint of this"):
        learn(objective_of("baseline", blobs), tmp_path, fabric)


def test_another_models_checkpoint_is_refused(blobs, tmp_path, fabric):
    interrupted(blobs, tmp_path, fabric)
    other = Forecasting(built(blobs, width=5), windows(blobs), None)
    with pytest.raises(S2KDError, match="not a checkpoint of this training"):
        learn(other, tmp_path, fabric)


def test_progress_counts_steps_and_tells_the_last_error(blobs, tmp_path, fabric):
    told = []
    learn(
        objective_of("baseline", blobs), tmp_path, fabric, epochs=2, validate=lambda: 0.25,
        progress=lambda *said: told.append(said),
    )  # fmt: skip
    assert [(done, total) for done, total, _ in told] == [(i, 6) for i in range(1, 7)]
    assert told[0][2] == "epoch 1"
    assert told[-1][2] == "epoch 2, validation 0.2500"


class Says:
    """A teacher whose answers are given."""

    def __init__(self, latent, forecast):
        self.latent, self.forecast = latent, forecast

    def gather(self, index, device):
        return Target(latent=self.latent[index], forecast=self.forecast[index])


def grid_of(height, width):
    return GridSpec(
        channels=("density",), units=("1",), height=height, width=width, step_seconds=3600.0
    )


# --- how near a student is to its teacher --------------------------------------------------------


def test_the_agreement_by_hand_over_cells_that_exist(blobs):
    """Against NumPy, on batches of unequal size; a teacher that reads, a student in training."""
    mask = tuple((False,) * 3 + (True,) * 5 for _ in range(8))
    masked = replace(blobs, grid=replace(blobs.grid, mask=mask))
    student, teacher, val = built(masked).train(), taught(masked).eval(), windows(masked, "val")
    texts = states(len(val))
    found = agreement(student, teacher, val, texts, batch_size=4)
    assert student.training
    assert not teacher.training
    student.eval()
    index = torch.arange(len(val))
    window = val.gather(index)
    with torch.no_grad():
        own, told = student(window.past).future, teacher(window.past, texts.tokens(index, "cpu"))
    unit = student.normaliser.unit.numpy()[:, None, None]
    exists = masked.grid.exists.astype(bool)
    assert not exists.all()

    def error(one, other):
        apart = (((one - other).numpy() / unit) ** 2)[..., exists]
        return pytest.approx(float(apart.mean()), rel=1e-4)

    assert found.student_mse == error(own, window.future)
    assert found.teacher_mse == error(told.future, window.future)
    assert found.student_teacher_mse == error(own, told.future)
    assert found.student_teacher_mse > 0
    assert agreement(student, student, val).student_teacher_mse == 0
