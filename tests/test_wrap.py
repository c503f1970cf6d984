"""Modules that are not ours as teachers and students."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gridded import waves, write
from torch import nn

import s2kd
from s2kd.core.recipe import Training
from s2kd.core.types import S2KDError
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.normaliser import Normaliser
from s2kd.training.loop import fit, validation_error
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Weighted
from s2kd.training.targets import LiveTargets, StoredTargets, store_targets

PAST, LEAD = 3, 2
DOCS = Path(__file__).parent.parent / "docs" / "bring_your_own.md"


class Folded(nn.Module):
    """Time as channels; the latent at half the grid, in any layout."""

    def __init__(self, layout="BDhw", *, token=False, width=6):
        super().__init__()
        self.layout, self.token = layout, token
        self.encoder = nn.Sequential(nn.Conv2d(PAST, width, 2, stride=2), nn.BatchNorm2d(width))
        self.norm = nn.Identity()
        self.head = nn.ConvTranspose2d(width, LEAD, 2, stride=2)

    def forward(self, x):
        z = self.encoder(x)
        match self.layout:
            case "BDhw":
                return self.head(self.norm(z))
            case "BhwD":
                return self.head(self.norm(z.movedim(1, -1)).movedim(-1, 1))
        tokens = z.flatten(2).transpose(1, 2)
        if self.token:
            tokens = torch.cat([tokens[:, :1] * 0 - 9, tokens], dim=1)
        tokens = self.norm(tokens)[:, int(self.token) :]
        return self.head(tokens.transpose(1, 2).unflatten(2, z.shape[-2:]))


class Framewise(nn.Module):
    """(batch, past, channel, height, width) in; frames encoded one by one."""

    def __init__(self):
        super().__init__()
        self.frame = nn.Conv2d(1, 3, 3, padding=1)
        self.lead = nn.Linear(PAST, LEAD)

    def forward(self, x):
        z = self.frame(x.flatten(0, 1)).unflatten(0, (-1, PAST)).mean(2, keepdim=True)
        return self.lead(z.movedim(1, -1)).movedim(-1, 1)


def scale_of(blobs, predict="change"):
    return Normaliser.from_statistics(statistics(blobs, lead=LEAD), predict=predict)


def wrapped(blobs, module, *, normaliser=None, frames="channels", latent="norm", **settings):
    return s2kd.wrap(
        module, latent=latent, grid=blobs.grid, past=PAST, lead=LEAD, frames=frames,
        normaliser=normaliser or scale_of(blobs), **settings,
    )  # fmt: skip


def train_of(blobs):
    return WindowDataset(blobs, "train", past=PAST, lead=LEAD)


@pytest.mark.parametrize(
    "settings",
    [
        {"layout": "BDhw"},
        {"layout": "BhwD"},
        {"layout": "BLD", "latent_grid": (4, 4)},
        {"layout": "BLD", "latent_grid": (4, 4), "skip_tokens": 1},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_the_latent_is_what_the_submodule_gave(blobs, settings):
    torch.manual_seed(0)
    module = Folded(settings["layout"], token="skip_tokens" in settings).eval()
    model, scale = wrapped(blobs, module, **settings), scale_of(blobs)
    past = train_of(blobs).gather(torch.arange(5)).past
    said = model(past)
    seen = scale(past).flatten(1, 2)
    torch.testing.assert_close(said.latent, module.encoder(seen))
    want = scale.future(module(seen).unflatten(1, (LEAD, 1)), past)
    torch.testing.assert_close(said.future, want)
    assert (model.backbone.latent_width, model.backbone.latent_grid) == (6, (4, 4))
    assert said.feature_pyramid == (said.latent,), "the forecast is no stage"


def test_frames_encoded_one_by_one_lie_side_by_side(blobs):
    module = Framewise().eval()
    model = wrapped(blobs, module, latent="frame", frames="axis")
    past = train_of(blobs).gather(torch.arange(4)).past
    latent = model(past).latent
    assert latent.shape == (4, PAST * 3, 8, 8)
    torch.testing.assert_close(latent[1, 3:6], module.frame(scale_of(blobs)(past)[1, 1]))


@pytest.mark.parametrize("predict", ["frames", "change"])
def test_a_module_may_take_physical_units(blobs, predict):
    module, scale = Folded().eval(), scale_of(blobs, predict)
    model = wrapped(blobs, module, normaliser=scale, units="physical")
    past = train_of(blobs).gather(torch.arange(4)).past
    want = module(past.flatten(1, 2)).unflatten(1, (LEAD, 1))
    torch.testing.assert_close(model(past).future, want, rtol=1e-4, atol=1e-4)
    assert sum("offset" in name for name in model.state_dict()) == 1, "no buffer is saved twice"


def test_further_submodules_are_the_feature_pyramid(blobs):
    model = wrapped(blobs, Folded().eval(), feature_pyramid=("encoder.0",))
    said = model(train_of(blobs).gather(torch.arange(4)).past)
    assert len(said.feature_pyramid) == 2
    torch.testing.assert_close(
        model.backbone.module.encoder[1](said.feature_pyramid[0]), said.feature_pyramid[1]
    )


def test_wrapping_leaves_the_module_as_it_was(blobs):
    module = Folded().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    wrapped(blobs, module)
    assert module.training
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["output", "semantic", "attention", "review"])
def test_it_teaches_and_it_learns(blobs, tmp_path, fabric, name):
    torch.manual_seed(0)
    teacher = wrapped(blobs, Folded(width=7), feature_pyramid=("encoder.0",))
    student = wrapped(blobs, Folded("BhwD", width=4))
    before = {n: p.clone() for n, p in teacher.state_dict().items()}
    own = {n: p.detach().clone() for n, p in student.named_parameters()}
    train, val = train_of(blobs), WindowDataset(blobs, "val", past=PAST, lead=LEAD)
    term = Weighted(name, 1.0, losses.build(name), losses.compares(name))
    objective = Distilling(
        student, train, LiveTargets(teacher, train), [term], teacher_width=7, weight=1.0
    )
    fit(
        objective, count=len(train), training=Training(epochs=1, batch_size=8), seed=0,
        validate=lambda: validation_error(student, val, None, fabric), folder=tmp_path,
        fabric=fabric,
    )  # fmt: skip
    for n, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[n], rtol=0, atol=0)
    assert [n for n, p in student.named_parameters() if torch.equal(p, own[n])] == []


def test_what_it_says_can_be_stored(blobs, tmp_path):
    teacher, train = wrapped(blobs, Folded()), train_of(blobs)
    store_targets(tmp_path / "t", teacher, train, None, key="mine")
    index = torch.tensor([3, 0])
    got = StoredTargets(tmp_path / "t").gather(index, "cpu")
    want = LiveTargets(teacher, train).gather(index, "cpu")
    torch.testing.assert_close(got.latent, want.latent, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got.forecast, want.forecast, rtol=1e-3, atol=1e-3)


class Twice(Folded):
    def forward(self, x):
        self.norm(x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        (Folded(), {"latent": "encodr.1"}, r"no submodule 'encodr.1'; did you mean 'encoder.1'"),
        (Folded(), {"latent": ""}, r"no submodule ''"),
        (Folded(), {"layout": "BDHW"}, r"layout must be one of BDhw, BhwD, BLD, got 'BDHW'"),
        (Folded(), {"frames": "folded"}, r"frames must be one of axis, channels, got 'folded'"),
        (Folded(), {"units": "raw"}, r"units must be one of normalised, physical, got 'raw'"),
        (Folded("BLD"), {"layout": "BLD"}, r"wants latent_grid=\(rows, columns\)"),
        (
            Folded("BLD", token=True),
            {"layout": "BLD", "latent_grid": (4, 4)},
            r"'norm' gives 17 tokens, of which 0 are skipped; latent_grid 4×4 has 16 cells",
        ),
        (Folded("BLD"), {}, r"'norm' gives \(2, 16, 6\) for 2 windows, which is not layout 'BDhw'"),
        (
            Folded(),
            {"frames": "axis"},
            r"does not take frames of \(2, 3, 1, 8, 8\) with frames='ax",
        ),
        (Folded().encoder, {"latent": "1"}, r"gives \(2, 6, 4, 4\); wanted is a tensor of \(2, 2,"),
        (Twice(), {}, r"'norm' ran 2 times in one forecast"),
    ],
)
def test_what_does_not_fit_is_said_when_wrapping(blobs, module, settings, said):
    with pytest.raises(S2KDError, match=said):
        wrapped(blobs, module, **settings)


def test_the_page_runs(tmp_path, monkeypatch):
    write(waves(frames=200), tmp_path / "latest.nc")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 3
    torch.manual_seed(0)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    past = names["labels"].inputs(np.arange(8))
    np.testing.assert_array_equal(names["forecasts"], np.repeat(past[:, -1:], 2, axis=1))
    assert torch.isfinite(names["loss"])
    assert names["teacher"].backbone.latent_grid == (4, 4)
