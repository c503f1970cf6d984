"""Every part there is keeps its contract, and the contract finds the faults that it is for."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from s2kd.core.tensors import Tokens
from s2kd.core.types import S2KDError
from s2kd.data import readers
from s2kd.models.backbones import backbones
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.text import TextEncoder, encoders
from s2kd.pipeline import contracts, parts
from s2kd.training.extra import extra_windows
from s2kd.training.losses import losses

HEAVY = {"encoders:minilm"} | {f"readers:{name}" for name in ("atmosphere", "plume")}
"""Parts that take seconds: they load a language model, or simulate a world."""

CHECKS = [
    pytest.param(run, id=f"{part}-{name}", marks=[pytest.mark.slow] if part in HEAVY else [])
    for part, name, run in parts.checks_of("")
]


@pytest.mark.parametrize("run", CHECKS)
def test_every_part_keeps_its_contract(run):
    run()


def test_every_part_that_can_be_made_is_checked():
    checked = {param.id.partition("-")[0] for param in CHECKS}
    for kind, registry in parts.REGISTRIES.items():
        for name in registry.names():
            assert f"{kind}:{name}" in checked or parts.needs(kind, name)
    assert {"backbones:unet", "backbones:simvp", "losses:spectral", "narrators:rules"} <= checked
    assert {"readers:blobs", "encoders:hashed"} <= checked


def test_the_catalogue_lists_every_part_with_a_word_on_it():
    rows = parts.rows()
    for kind, registry in parts.REGISTRIES.items():
        assert [r["name"] for r in rows if r["kind"] == kind] == list(registry.names())
    assert all(row["about"] for row in rows)
    (unet,) = [row for row in parts.rows("backbones") if row["name"] == "unet"]
    wanted = {"past": None, "lead": None, "width": 52, "patch": 1, "norm": "batch"}
    wanted["latent_stride"] = 4
    assert unet["settings"] == wanted
    with pytest.raises(S2KDError, match="no kind 'backbone'; did you mean 'backbones'"):
        parts.rows("backbone")


# --- planted faults ------------------------------------------------------------------------------


class Sound(nn.Module):
    """The smallest backbone that keeps the contract; the faulty ones differ in one place."""

    def __init__(self, grid, *, past, lead):
        super().__init__()
        self.lead = lead
        self.latent_width, self.latent_grid = 6, (grid.height, grid.width)
        channels = len(grid.channels)
        mode = "circular" if grid.wraps else "zeros"
        self.see = nn.Conv2d(past * channels, 6, 1)
        self.mix = nn.Conv2d(6, 6, (1, 3), padding=(0, 1), padding_mode=mode)
        self.tell = nn.Conv2d(6, lead * channels, 1)

    def encode(self, past):
        return torch.tanh(self.mix(self.see(past.flatten(1, 2)))), ()

    def decode(self, latent, carry):
        return self.tell(latent).unflatten(1, (self.lead, -1))


class MixesExamples(Sound):
    def encode(self, past):
        latent, carry = super().encode(past)
        return latent - latent.mean(0, keepdim=True), carry


class HasAnIdleLayer(Sound):
    def __init__(self, grid, *, past, lead):
        super().__init__(grid, past=past, lead=lead)
        self.idle = nn.Linear(3, 3)


class HasADeadLayer(HasAnIdleLayer):
    """Used, but multiplied by nothing."""

    def decode(self, latent, carry):
        return super().decode(latent, carry) + 0.0 * self.idle(torch.ones(3)).sum()


class MisstatesItsLatent(Sound):
    def __init__(self, grid, *, past, lead):
        super().__init__(grid, past=past, lead=lead)
        self.latent_grid = (grid.height // 4, grid.width // 4)


class ForgetsALead(Sound):
    def decode(self, latent, carry):
        return super().decode(latent, carry)[:, :-1]


class HidesAWeight(Sound):
    """Keeps a number outside its state, which a file of weights would lose."""

    def __init__(self, grid, *, past, lead):
        super().__init__(grid, past=past, lead=lead)
        self.calls = 0.0

    def decode(self, latent, carry):
        self.calls += 1.0
        return super().decode(latent, carry) + self.calls


class StopsAtTheDateline(Sound):
    def __init__(self, grid, *, past, lead):
        super().__init__(grid, past=past, lead=lead)
        self.mix.padding_mode = "zeros"


FAULTS = [
    (MixesExamples, {"examples_do_not_mix", "teacher_examples_do_not_mix"}),
    (HasAnIdleLayer, {"every_parameter_learns"}),
    (HasADeadLayer, {"every_parameter_learns"}),
    (ForgetsALead, {"forecasts_every_channel_at_every_lead"}),
    (HidesAWeight, {"state_survives_a_round_trip"}),
    (StopsAtTheDateline, {"turns_with_the_globe"}),
]


def failing(backbone_class):
    """The checks that a backbone fails on a wrapping grid."""
    grid, failed = contracts.small_grid(wraps=True), set()
    for check in contracts.BACKBONE_CHECKS:
        torch.manual_seed(0)
        try:
            check(backbone_class(grid, past=contracts.PAST, lead=contracts.LEAD), grid)
        except AssertionError:
            failed.add(check.__name__)
    return failed


def test_a_sound_backbone_fails_nothing():
    assert failing(Sound) == set()


@pytest.mark.parametrize(("faulty", "caught"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_faulty_backbone_is_caught(faulty, caught):
    assert caught <= failing(faulty)


def test_a_latent_other_than_announced_is_caught():
    grid = contracts.small_grid()
    made = MisstatesItsLatent(grid, past=contracts.PAST, lead=contracts.LEAD)
    with pytest.raises(AssertionError, match=r"latent is \(6, 16, 24\), said \(6, 4, 6\)"):
        contracts.latent_is_as_announced(made, grid)


def _offset(student, teacher):
    return (student - teacher).square().mean() + 0.1


def _nothing(student, teacher):
    return 0.0 * student.sum()


def _wrong_gradient(student, teacher):
    return (student.detach() - teacher).square().mean() * (student - teacher).square().mean()


@pytest.mark.parametrize(
    ("loss", "check", "said"),
    [
        (_offset, contracts.zero_at_a_match, "equal sides cost something"),
        (_nothing, contracts.zero_at_a_match, "different sides cost nothing"),
    ],
)
def test_a_faulty_loss_is_caught(loss, check, said):
    with pytest.raises(AssertionError, match=said):
        check(loss, "latent")


def test_a_wrong_gradient_is_caught():
    with pytest.raises(Exception, match="Jacobian mismatch"):
        contracts.gradient_is_right(_wrong_gradient, "latent")


class Narrates(Narrator):
    reads_future, version = False, "one"

    def __init__(self, tell):
        self._tell = tell

    def narrate(self, pasts):
        return self._tell(pasts)


@pytest.mark.parametrize(
    ("tell", "said"),
    [
        (lambda pasts: ["calm"] * (len(pasts) - 1), "3 texts for 4 windows"),
        (lambda pasts: ["calm " * 121 for _ in pasts], "121 words, more than 120"),
        (lambda pasts: [f"{np.random.default_rng().random()}" for _ in pasts], "got other texts"),
    ],
)
def test_a_faulty_narrator_is_caught(tell, said):
    with pytest.raises(AssertionError, match=said):
        contracts.one_text_per_window(Narrates(tell))


class Encodes(TextEncoder):
    width, version = 4, "one"

    def __init__(self, fault):
        self._fault = fault

    def encode(self, texts):
        lengths = torch.tensor([len(text.split()) for text in texts])[:, None]
        longest = max(1, int(lengths.max()))
        padding = torch.arange(longest)[None] >= lengths
        values = torch.ones(len(texts), longest, 4)
        if self._fault == "reads its neighbours":
            values = values * longest
        if self._fault == "makes words of nothing":
            padding[:, 0] = False
        if self._fault == "is narrower than it says":
            values = values[..., :3]
        return Tokens(values=values, padding=padding)


@pytest.mark.parametrize(
    "fault", ["reads its neighbours", "makes words of nothing", "is narrower than it says"]
)
def test_a_faulty_encoder_is_caught(fault):
    contracts.padding_does_not_matter(Encodes(""))
    with pytest.raises(AssertionError):
        contracts.padding_does_not_matter(Encodes(fault))


def test_a_faulty_dataset_is_caught(blobs):
    from dataclasses import replace

    contracts.frames_are_finite_and_split(blobs)
    holes = blobs.frames.copy()
    holes[3, 0, 2, 2] = np.nan
    with pytest.raises(AssertionError, match="'train' holds values that are not finite"):
        contracts.frames_are_finite_and_split(replace(blobs, frames=holes))
    with pytest.raises(AssertionError, match="time does not go on"):
        contracts.frames_are_finite_and_split(replace(blobs, times=blobs.times[::-1].copy()))
    with pytest.raises(AssertionError, match="split 'val' is empty"):
        contracts.frames_are_finite_and_split(replace(blobs, splits={**blobs.splits, "val": ()}))


# --- someone else's part -------------------------------------------------------------------------


OUTSIDER = """
import torch
from torch import nn
from s2kd.models.backbones import backbones

@backbones.register("{name}")
class Theirs(nn.Module):
    def __init__(self, grid, *, past, lead):
        super().__init__()
        self.lead, self.latent_width = lead, 6
        self.latent_grid = (grid.height, grid.width)
        self.see = nn.Conv2d(past * len(grid.channels), 6, 1)
        self.tell = nn.Conv2d(6, lead * len(grid.channels), 1)

    def encode(self, past):
        return torch.tanh(self.see(past.flatten(1, 2))), ()

    def decode(self, latent, carry):
        {body}
        return self.tell(latent).unflatten(1, (self.lead, -1))
"""


@pytest.fixture
def outsider(tmp_path, monkeypatch):
    """Write someone's module that registers a backbone; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(module, body=""):
        (tmp_path / f"{module}.py").write_text(OUTSIDER.format(name=module, body=body))
        names.append(module)
        return module

    yield write
    for name in names:
        backbones._entries.pop(name)


def test_an_outsiders_part_is_checked_by_module_and_name(outsider):
    for what in (f"{outsider('theirs_sound')}:Theirs", "theirs_sound:theirs_sound"):
        rows = parts.check(what)
        assert {row["part"] for row in rows} == {"backbones:theirs_sound"}
        assert [row for row in rows if row["result"] != "ok"] == []
        assert len(rows) == 2 * len(contracts.BACKBONE_CHECKS)


def test_what_breaks_in_an_outsiders_part_is_a_result_not_a_crash(outsider):
    module = outsider("theirs_broken", "latent = latent @ torch.ones(7, 7)")
    rows = parts.check(f"{module}:Theirs")
    broken = {row["check"]: row["result"] for row in rows if row["result"] != "ok"}
    assert "RuntimeError" in broken["forecasts_every_channel_at_every_lead"]
    assert "latent_is_as_announced" not in broken


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("unett", "no part called 'unett'; did you mean 'unet'"),
        ("backbones:spectral", "no part called 'backbones:spectral'"),
        ("nowhere_at_all:X", "cannot import 'nowhere_at_all'"),
        ("json:dumps", "'json' registers no part called 'dumps'; decorate it"),
    ],
)
def test_what_cannot_be_checked_is_named(what, said):
    with pytest.raises(S2KDError, match=said):
        parts.check(what)


@pytest.mark.parametrize("kind", parts.REGISTRIES)
def test_settings_are_read_from_the_source_as_python_itself_reads_them(kind):
    registry = parts.REGISTRIES[kind]
    for name in registry.names():
        parameters = inspect.signature(registry.get(name)).parameters
        settings = {
            key: value for key, value in parameters.items() if value.kind is value.KEYWORD_ONLY
        }
        assert registry.options(name) == settings
        assert registry.about(name) == inspect.getdoc(registry.get(name)).partition("\n")[0]


def test_names_are_those_of_the_registries():
    registries = (readers, narrators, encoders, backbones, losses, extra_windows)
    assert tuple(parts.REGISTRIES.values()) == registries
    rows = parts.check("losses:semantic")
    assert [row["check"] for row in rows] == [check.__name__ for check in contracts.LOSS_CHECKS]
