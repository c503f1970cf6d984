"""Twenty steps of each stage against stored numbers: what should not change numbers, does not.

A change that should change them makes the files again, with the reason in its commit:

    python tests/test_golden.py

Losses are compared to 1e-4 relative. Another processor or PyTorch adds in another order, and twenty
steps of Adam carry that on: to 2e-6 with oneDNN off, with two threads, or with every weight off by
one part in 10⁷ at the start. A β or a learning rate changed by one or two per cent moves the
curves by more than 2e-3. The tolerance lies between the two.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from worlds import world

from s2kd.core.recipe import Part, TeacherSpec, Training
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.checkpoint import Setting, build_student, build_teacher
from s2kd.narration.text import encoders
from s2kd.narration.text.states import encode_states
from s2kd.pipeline.recipes import s2kd
from s2kd.training.loop import fit, validation_error
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Forecasting, Weighted
from s2kd.training.targets import StoredTargets, store_targets

FOLDER = Path(__file__).parent / "golden"
PAST, LEAD, BATCH, STEPS = 3, 2, 12, 20
SPEC = TeacherSpec(
    backbone=Part(name="simvp", params={"spatial": 4, "temporal": 8, "blocks": 2, "expansion": 2}),
    width=16,
    heads=4,
    depth=2,
)
TRAINING = Training(lr=2e-3, epochs=STEPS, batch_size=BATCH, schedule="cosine", clip=1.0)
"""One step an epoch, so that every step leaves a record."""


def stages(folder, fabric):
    """(records of stage 1, records of stage 2), both of `STEPS` steps."""
    data = world("blobs", size=8, runs=5, length=16)
    windows = {
        split: WindowDataset(data, split, past=PAST, lead=LEAD) for split in ("train", "val")
    }
    states = {
        split: encode_states(
            ["" if i % 5 == 0 else f"{split} blob {i} drifts east" for i in range(len(held))],
            encoders.build("hashed", width=8),
        )
        for split, held in windows.items()
    }
    setting = Setting(
        grid=data.grid,
        past=PAST,
        lead=LEAD,
        statistics=statistics(data, lead=LEAD),
        predict="change",
    )

    def learn(objective, name, held):
        model = objective.model
        return fit(
            objective,
            count=BATCH,
            validate=lambda: validation_error(model, windows["val"], held, fabric),
            training=TRAINING,
            seed=42,
            folder=folder / name,
            fabric=fabric,
        )

    torch.manual_seed(42)
    teacher = build_teacher(SPEC, setting, text_width=8, reads=True)
    taught = learn(
        Forecasting(teacher, windows["train"], states["train"]), "teacher", states["val"]
    )

    store_targets(folder / "targets", teacher, windows["train"], states["train"], key="golden")
    torch.manual_seed(42)
    student = build_student(Part(name="unet", params={"width": 4}), setting)
    method = s2kd()
    terms = [
        Weighted(t.loss.name, t.weight, losses.build(t.loss.name), losses.compares(t.loss.name))
        for t in method.terms
    ]
    objective = Distilling(
        student, windows["train"], StoredTargets(folder / "targets"), terms,
        teacher_width=SPEC.width, weight=method.weight,
    )  # fmt: skip
    return taught, learn(objective, "student", None)


def flat(records):
    """Every number of every step, by name."""
    curves = {name: [record[name] for record in records] for name in ("train", "val", "lr")}
    for term in records[0]["terms"]:
        curves[f"terms.{term}"] = [record["terms"][term] for record in records]
    return curves


@pytest.fixture(scope="module")
def curves(fabric, tmp_path_factory):
    return [flat(records) for records in stages(tmp_path_factory.mktemp("golden"), fabric)]


@pytest.mark.parametrize("stage", ["teach", "distill"])
def test_twenty_steps_are_as_they_were(curves, stage):
    got = curves[["teach", "distill"].index(stage)]
    want = json.loads((FOLDER / f"blobs_{stage}.json").read_text())
    assert got.keys() == want.keys()
    for name in want:
        assert len(want[name]) == STEPS
        for step, (one, other) in enumerate(zip(got[name], want[name], strict=True)):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-9), f"{name} at step {step}"


def test_the_stored_curves_go_down():
    """A curve that does not is no record of learning."""
    for stage in ("teach", "distill"):
        train = json.loads((FOLDER / f"blobs_{stage}.json").read_text())["train"]
        assert train[-1] < 0.9 * train[0]


if __name__ == "__main__":
    from lightning_fabric import Fabric

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        made = stages(Path(scratch), Fabric(accelerator="cpu", devices=1))
    for stage, records in zip(("teach", "distill"), made, strict=True):
        path = FOLDER / f"blobs_{stage}.json"
        path.write_text(json.dumps(flat(records), indent=1) + "\n")
        print(f"{path}: {records[0]['train']:.4f} to {records[-1]['train']:.4f}")
