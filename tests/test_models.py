import inspect

import numpy as np
import pytest
import torch
from torch import nn

from s2kd.core.tensors import Tokens
from s2kd.core.types import S2KDError
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import CrossAttention, ReadText, SpectralBranches, Student, Teacher
from s2kd.pipeline.contracts import (
    LEAD,
    PAST,
    TEXT_WIDTH,
    frames,
    identity,
    narrative_tokens,
    small_grid,
)

GRID = small_grid(wraps=True)


def backbone(name="simvp", grid=GRID):
    torch.manual_seed(0)
    return backbones.build(name, grid, past=PAST, lead=LEAD, preset="tiny")


def teacher(name="simvp", **settings):
    made = Teacher(
        backbone(name), identity(2), wraps=True, text_width=TEXT_WIDTH,
        **{"width": 16, "heads": 4, "depth": 2, "dropout": 0.0, **settings},
    )  # fmt: skip
    return made.eval()


def scattered(module, seed=0):
    """Every weight away from its initial value: norms and biases of zero and one hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- oracles -------------------------------------------------------------------------------------


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def attention(module, query, read, padding=None):
    """Eqs. 5-8 written out: projections, scaled scores, softmax over real tokens, heads joined."""
    heads, size = module.num_heads, query.shape[-1] // module.num_heads
    weights = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    q, k, v = (
        (torch.einsum("bnd,ed->bne", z, w) + b).unflatten(-1, (heads, size))
        for z, w, b in zip((query, read, read), *weights, strict=True)
    )
    scores = torch.einsum("bqhk,bshk->bhqs", q, k) / size**0.5
    shares = (scores - scores.amax(-1, keepdim=True)).exp()
    if padding is not None:
        shares = shares * (~padding)[:, None, None]
    shares = shares / shares.sum(-1, keepdim=True)
    joined = torch.einsum("bhqs,bshk->bqhk", shares, v).flatten(2)
    return torch.einsum("bqd,ed->bqe", joined, module.out_proj.weight) + module.out_proj.bias


def tokens(batch=3, count=5, width=16):
    """Texts of 5, 3 and 1 tokens."""
    lengths = torch.tensor([5, 3, 1])[:batch, None]
    padding = torch.arange(count)[None] >= lengths
    return Tokens(values=noise(batch, count, width, seed=3), padding=padding)


# --- the alignment, eqs. 5-9 ---------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_cross_attention_is_eqs_5_to_9(training):
    block = scattered(CrossAttention(16, 4, 0.0)).double().train(training)
    seen, read = noise(3, 6, 16), tokens()
    want = layer_norm(seen + attention(block.attend, seen, read.values, read.padding), block.norm)
    torch.testing.assert_close(block(seen, read), want)


def test_padding_is_not_read():
    block = scattered(CrossAttention(16, 4, 0.0)).double().eval()
    seen, read = noise(3, 6, 16), tokens()
    filled = torch.where(read.padding[..., None], 1e3, read.values)
    torch.testing.assert_close(
        block(seen, Tokens(values=filled, padding=read.padding)), block(seen, read)
    )
    unmasked = Tokens(values=filled, padding=torch.zeros_like(read.padding))
    assert not torch.allclose(block(seen, unmasked)[1], block(seen, read)[1])


def test_the_order_of_words_does_not_matter_but_the_words_do():
    """Eqs. 5-8 have no positions on the text side: those are in the encoder's states."""
    block = scattered(CrossAttention(16, 4, 0.0)).double().eval()
    seen, read = noise(3, 6, 16), tokens()
    flipped = Tokens(values=read.values.flip(1), padding=read.padding.flip(1))
    torch.testing.assert_close(block(seen, flipped), block(seen, read))
    other = Tokens(values=-read.values, padding=read.padding)
    assert not torch.allclose(block(seen, other), block(seen, read))


def test_one_word_repeated_gives_every_cell_the_same_answer():
    """A mean of equal values is that value, whatever asks."""
    block = scattered(CrossAttention(16, 4, 0.0)).double().eval()
    word, seen = noise(1, 1, 16, seed=5), noise(1, 6, 16)
    read = Tokens(values=word.expand(1, 4, 16), padding=torch.zeros(1, 4, dtype=torch.bool))
    value = word[0, 0] @ block.attend.in_proj_weight[32:].T + block.attend.in_proj_bias[32:]
    answer = value @ block.attend.out_proj.weight.T + block.attend.out_proj.bias
    torch.testing.assert_close(block(seen, read), layer_norm(seen + answer, block.norm))


def test_a_null_token_stands_in_front_of_every_text():
    read = scattered(ReadText(TEXT_WIDTH, 16))
    given = narrative_tokens()
    got = read(given)
    assert got.values.shape == (3, 5, 16)
    for text in range(3):
        torch.testing.assert_close(got.values[text, 0], read.null[0, 0])
    want = given.values @ read.project.weight.T + read.project.bias
    torch.testing.assert_close(got.values[:, 1:], want)
    assert not got.padding[:, 0].any()
    assert torch.equal(got.padding[:, 1:], given.padding)


# --- two branches --------------------------------------------------------------------------------


def test_two_branches_are_summed_with_the_residual():
    block = scattered(SpectralBranches(8, 2, wraps=True)).double().eval()
    cells = noise(2, 4 * 6, 8)
    image = cells.transpose(1, 2).unflatten(2, (4, 6)).numpy()
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (0, 0)))
    padded = np.pad(padded, ((0, 0), (0, 0), (0, 0), (1, 1)), mode="wrap")
    depthwise, pointwise = block.high[0], block.high[1]
    taps = depthwise.weight.detach().numpy()[:, 0]
    near = np.zeros_like(image)
    for row in range(3):
        for column in range(3):
            shifted = padded[:, :, row : row + 4, column : column + 6]
            near += taps[None, :, row, column, None, None] * shifted
    near = torch.from_numpy(near) + depthwise.bias[:, None, None]
    mixed = torch.einsum("bdhw,ed->behw", near, pointwise.weight[..., 0, 0])
    mixed = mixed + pointwise.bias[:, None, None]
    high = mixed * 0.5 * (1 + torch.erf(mixed / 2**0.5))  # GELU
    high = high.flatten(2).transpose(1, 2)
    low = attention(block.low, cells, cells)
    grid = torch.Size((4, 6))
    for got, want in zip(block.parts(cells, grid), (high, low), strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(block(cells, grid), layer_norm(cells + high + low, block.norm))


def test_one_branch_sees_its_neighbours_and_the_other_everything():
    torch.manual_seed(0)
    block = SpectralBranches(16, 4, wraps=True).eval()
    cells = torch.randn(1, 8 * 12, 16)
    other = cells.clone()
    other[0, 0] += 1.0
    one, two = (block.parts(z, torch.Size((8, 12))) for z in (cells, other))
    felt = [((a - b).abs().amax((0, 2)) > 1e-7).sum().item() for a, b in zip(one, two, strict=True)]
    assert felt == [6, 96], "3×3 around the corner: two rows (not round the pole), three columns"


@pytest.mark.parametrize("name", backbones.names())
def test_every_weight_of_a_teacher_learns(name):
    made = teacher(name).train()
    made(frames(GRID, PAST), narrative_tokens()).future.square().mean().backward()
    idle = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


# --- the whole -----------------------------------------------------------------------------------


def test_a_fused_latent_has_mean_zero_and_variance_one_a_token():
    """Eq. 9 ends in a LayerNorm; at initialisation it is unscaled."""
    for depth, branches in ((2, True), (1, False), (0, True), (0, False)):
        latent = teacher(depth=depth, branches=branches)(
            frames(GRID, PAST), narrative_tokens()
        ).latent
        assert latent.shape == (3, 16, 4, 6)
        zero, one = torch.zeros(3, 4, 6), torch.ones(3, 4, 6)
        torch.testing.assert_close(latent.mean(1), zero, rtol=0, atol=1e-5)
        torch.testing.assert_close(latent.var(1, correction=0), one, rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", backbones.names())
def test_the_latent_of_a_teacher_is_what_is_decoded(name):
    made, past = scattered(teacher(name)), frames(GRID, PAST)
    said = made(past, narrative_tokens())
    _, carry = made.backbone.encode(past)
    again = made.backbone.decode(made.from_cells(said.latent), carry)
    torch.testing.assert_close(again, said.future)
    # and it is eqs. 3-9 applied to what the backbone saw
    seen, _ = made.backbone.encode(past)
    torch.testing.assert_close(made.fuse(seen, narrative_tokens()), said.latent)


def test_alignment_layers_follow_each_other_and_read_the_same_text():
    made = scattered(teacher(depth=3))
    seen, _ = made.backbone.encode(frames(GRID, PAST))
    cells = made.to_cells(seen).flatten(2).transpose(1, 2)
    cells = cells + (made.rows + made.columns).reshape(1, -1, 16)
    cells = made.decouple(cells, torch.Size((4, 6)))
    read = made.read(narrative_tokens())
    for block in made.blocks:
        cells = layer_norm(
            cells + attention(block.attend, cells, read.values, read.padding), block.norm
        )
    want = cells.transpose(1, 2).reshape(3, 16, 4, 6)
    torch.testing.assert_close(made.fuse(seen, narrative_tokens()), want, rtol=1e-4, atol=1e-5)


def test_a_cell_keeps_its_place_and_knows_it():
    made = teacher(depth=0, branches=False)
    with torch.no_grad():
        made.to_cells.weight.zero_()
        made.to_cells.bias.zero_()
        made.rows.copy_(torch.randn(4, 1, 16))
        made.columns.copy_(torch.randn(1, 6, 16))
    latent = made(frames(GRID, PAST), None).latent
    for row in range(4):
        for column in range(6):
            place = made.rows[row, 0] + made.columns[0, column]
            want = (place - place.mean()) / place.std(correction=0)
            torch.testing.assert_close(latent[0, :, row, column], want, rtol=1e-3, atol=1e-4)


def test_an_empty_narrative_gives_numbers():
    made = teacher()
    empty = Tokens(values=torch.zeros(3, 1, TEXT_WIDTH), padding=torch.ones(3, 1, dtype=torch.bool))
    said = made.train()(frames(GRID, PAST), empty)
    said.future.mean().backward()
    assert torch.isfinite(said.future).all()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_a_teacher_of_depth_zero_takes_no_text():
    blind, reading = teacher(depth=0), teacher(depth=2)
    past = frames(GRID, PAST)
    assert reading.reads
    assert not blind.reads
    torch.testing.assert_close(blind(past, narrative_tokens()).future, blind(past, None).future)
    with pytest.raises(S2KDError, match="this one reads"):
        reading(past, None)
    # it is the same teacher without the alignment
    dropped = {n for n, _ in reading.named_parameters()} - {n for n, _ in blind.named_parameters()}
    assert {n.split(".")[0] for n in dropped} == {"read", "blocks"}


def test_heads_must_share_the_width():
    with pytest.raises(S2KDError, match="width 16 is not divisible by 3 heads"):
        teacher(heads=3)


def test_a_student_is_shown_the_past_and_nothing_else():
    assert list(inspect.signature(Student.forward).parameters) == ["self", "past"]
    student = Student(backbone("unet"), identity(2))
    assert {n.split(".")[0] for n, _ in student.named_parameters()} == {"backbone"}


class _Doubling(nn.Module):
    """A backbone whose forecast is known: twice its last frame, in the units it is given."""

    latent_width, latent_grid = 2, (4, 5)

    def encode(self, past):
        return past[:, -1], ()

    def decode(self, latent, carry):
        return torch.stack([2 * latent, 3 * latent], 1)


@pytest.mark.parametrize("predict", ["frames", "change"])
def test_physical_units_go_in_and_come_out(predict):
    from s2kd.core.types import Statistics
    from s2kd.models.normaliser import Normaliser

    known = Statistics(
        mean=(10.0, -5.0), std=(2.0, 4.0), minimum=(0.0, 0.0), maximum=(1.0, 1.0), quantiles={},
        change=(0.5, 0.25),
    )  # fmt: skip
    student = Student(_Doubling(), Normaliser.from_statistics(known, predict=predict))
    past = torch.tensor([14.0, -1.0])[:, None, None].expand(2, 3, 2, 4, 5)  # normalised: 2 and 1
    said = student(past)
    want = {
        "frames": [[10 + 2 * 4.0, -5 + 4 * 2.0], [10 + 2 * 6.0, -5 + 4 * 3.0]],
        "change": [[14 + 0.5 * 4, -1 + 0.25 * 2], [14 + 0.5 * 6, -1 + 0.25 * 3]],
    }[predict]
    assert said.future[0, :, :, 0, 0].tolist() == want
    assert said.latent[0, :, 0, 0].tolist() == [2.0, 1.0]
