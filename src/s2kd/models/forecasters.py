"""Vision-only student, text-privileged teacher, and their autoregressive roll-out (eqs. 1-9)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.tensors import Forecast, Tokens
from s2kd.core.types import GridSpec, S2KDError
from s2kd.models.backbones import Backbone
from s2kd.models.layers import Conv
from s2kd.models.normaliser import Normaliser

Frames = Float[Tensor, "batch past channel height width"]
Cells = Float[Tensor, "batch cell d"]
Latent = Float[Tensor, "batch d h w"]


class Student(nn.Module):
    """A backbone and nothing else: no text goes in, so none is missed at inference.

    Physical units in and out; the normalising travels with the weights. Where `normaliser`
    has the scale of changes, the backbone forecasts the change from the last past frame.
    """

    def __init__(self, backbone: Backbone, normaliser: Normaliser) -> None:
        super().__init__()
        self.backbone, self.normaliser = backbone, normaliser

    def forward(self, past: Frames) -> Forecast:
        """Eq. 1's F(X; θ), and the latent Z that distillation compares."""
        latent, carry = self.backbone.encode(self.normaliser(past))
        future = self.normaliser.future(self.backbone.decode(latent, carry), past)
        return Forecast(future=future, latent=latent, carry=carry)


class Teacher(nn.Module):
    """A backbone whose latent reads the narrative between its two halves (eqs. 3-9).

    `width` is D and `depth` N. Tokens are the cells of the latent grid, projected to D, with
    learned row and column positions. With `depth=0` it is the same teacher without text, the
    reference for methods that know of no narrative. The frozen text encoder stays outside: its
    states come in as `Tokens` of `text_width` features.
    """

    def __init__(
        self,
        backbone: Backbone,
        normaliser: Normaliser,
        *,
        wraps: bool,
        text_width: int,
        width: int = 256,
        heads: int = 8,
        depth: int = 2,
        branches: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise S2KDError(f"teacher: width {width} is not divisible by {heads} heads")
        self.backbone, self.normaliser = backbone, normaliser
        self.latent_width, self.latent_grid = width, backbone.latent_grid
        high, wide = backbone.latent_grid
        self.to_cells = nn.Conv2d(backbone.latent_width, width, 1)
        self.rows = nn.Parameter(torch.randn(high, 1, width) * 0.02)
        self.columns = nn.Parameter(torch.randn(1, wide, width) * 0.02)
        self.decouple = SpectralBranches(width, heads, wraps) if branches else nn.LayerNorm(width)
        self.read = ReadText(text_width, width) if depth else None
        self.blocks = nn.ModuleList(CrossAttention(width, heads, dropout) for _ in range(depth))
        self.from_cells = nn.Conv2d(width, backbone.latent_width, 1)

    @property
    def reads(self) -> bool:
        """Whether it takes text at all."""
        return self.read is not None

    def forward(self, past: Frames, tokens: Tokens | None) -> Forecast:
        """T(X, S) of eq. 13; its latent is Z_fused of eq. 9."""
        latent, carry = self.backbone.encode(self.normaliser(past))
        fused = self.fuse(latent, tokens)
        future = self.backbone.decode(self.from_cells(fused), carry)
        future = self.normaliser.future(future, past)
        return Forecast(future=future, latent=fused, carry=carry)

    def fuse(self, latent: Float[Tensor, "batch e h w"], tokens: Tokens | None) -> Latent:
        """Z_v (eq. 3) and Z_s (eq. 4) to Z_fused: eqs. 5-9, N times, Z_s the same each time."""
        grid = latent.shape[-2:]
        cells = self.to_cells(latent).flatten(2).transpose(1, 2)
        cells = cells + (self.rows + self.columns).flatten(0, 1)
        cells = self.decouple(cells, grid) if self._decouples else self.decouple(cells)
        if self.read is not None:
            if tokens is None:
                raise S2KDError("teacher: this one reads, so it needs the narratives' token states")
            text = self.read(tokens)
            for block in self.blocks:
                cells = block(cells, text)
        return cells.transpose(1, 2).unflatten(2, grid)

    @property
    def _decouples(self) -> bool:
        return isinstance(self.decouple, SpectralBranches)


class ReadText(nn.Module):
    """Token states to D features, with one learned null token in front.

    The null token is never padding, so a window without words still has something to attend to
    and the softmax of eq. 8 cannot divide nothing by nothing.
    """

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)
        self.null = nn.Parameter(torch.randn(1, 1, width) * 0.02)

    def forward(self, tokens: Tokens) -> Tokens:
        """(batch, token, text width) to (batch, 1 + token, D)."""
        null = self.null.expand(len(tokens.values), -1, -1)
        values = torch.cat([null, self.project(tokens.values)], dim=1)
        real = torch.zeros_like(tokens.padding[:, :1])
        return Tokens(values=values, padding=torch.cat([real, tokens.padding], dim=1))


class CrossAttention(nn.Module):
    """One alignment layer: LayerNorm(Z + MHA(Z W_Q, Z_s W_K, Z_s W_V)) (eqs. 5-9), no MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, cells: Cells, text: Tokens) -> Cells:
        """Q from what is seen (eq. 5), K and V from what is read (eqs. 6-7), softmax (eq. 8)."""
        attended, _ = self.attend(
            cells, text.values, text.values, key_padding_mask=text.padding, need_weights=False
        )
        return self.norm(cells + attended)


class SpectralBranches(nn.Module):
    """Two branches with opposite spectral bias, summed: LayerNorm(Z + Z_h + Z_l).

    Convolution (Z_h = GELU(Conv(Z))) favours high frequencies and self-attention (Z_l) low ones:
    the form of the predecessor SDKD (Li et al. 2025), which the paper's "spectrally decoupled"
    teacher refers to. The residual Z is ours; without it the block cannot start near identity.
    """

    def __init__(self, width: int, heads: int, wraps: bool) -> None:
        super().__init__()
        self.high = nn.Sequential(
            Conv(width, width, 3, groups=width, wraps=wraps),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
        )
        self.low = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def parts(self, cells: Cells, grid: torch.Size) -> tuple[Cells, Cells]:
        """(Z_h, Z_l)."""
        high = self.high(cells.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
        low, _ = self.low(cells, cells, cells, need_weights=False)
        return high, low

    def forward(self, cells: Cells, grid: torch.Size) -> Cells:
        high, low = self.parts(cells, grid)
        return self.norm(cells + high + low)


class FramesOnly(nn.Module):
    """A model that gives frames and nothing else, as it is exported, checked and timed.

    A teacher is handed the `tokens` of its windows beforehand.
    """

    def __init__(self, model: nn.Module, tokens: Tokens | None = None) -> None:
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, past: Frames) -> Float[Tensor, "batch lead channel height width"]:
        """The forecast, physical units."""
        if isinstance(self.model, Teacher):
            return self.model(past, self.tokens).future
        return self.model(past).future


def feed_back(
    step: Callable[[Tensor, int, int], Tensor],
    past: Float[Tensor, "batch past channel height width"],
    *,
    steps: int,
    grid: GridSpec,
) -> Float[Tensor, "batch lead channel height width"]:
    """`steps` frames, block after block, each made from the last frames that there are.

    `step` is (last frames, number of the block, how many frames are made) to a block of any
    length. What it says of cells that do not exist is not fed back: they keep the last true value.
    """
    exists = None if grid.mask is None else torch.from_numpy(grid.exists).to(past.device)
    recent, blocks, done = past, list[Tensor](), 0
    while done < steps:
        part = step(recent, len(blocks), done).to(past)
        blocks.append(part)
        done += part.shape[1]
        if part.shape[0] != len(past) or part.shape[2:] != past.shape[2:]:
            raise S2KDError(f"roll-out: a block has shape {tuple(part.shape)}")
        if exists is not None:
            part = torch.where(exists, part, past[:, -1:])
        recent = torch.cat([recent, part], 1)[:, -past.shape[1] :]
    return torch.cat(blocks, 1)[:, :steps]
