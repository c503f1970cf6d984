"""A training step of our SimVP over a plain re-statement of its published layers.

    python benchmarks/bench_simvp.py [ROUNDS]

The other side is OpenSTL's layer list for the gSTA model written out in eager PyTorch, without
channels_last. Both have the same parameters (TaxiBJ's configuration), the same loss and optimizer.
"""

import sys
import time
from itertools import pairwise

import torch
from common import compare, save
from torch import nn

from s2kd.models.backbones import backbones
from s2kd.models.layers import parameter_count
from s2kd.pipeline.contracts import small_grid

PAST, CHANNELS, SPATIAL, TEMPORAL, BLOCKS, BATCH = 4, 2, 32, 256, 8, 16
WANTED_RATIO = 1.0


class PlainBlock(nn.Module):
    """Norm, gated large-kernel attention, norm, convolutional MLP; a 1×1 where widths differ."""

    def __init__(self, width, out):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.before, self.gelu = nn.Conv2d(width, width, 1), nn.GELU()
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.far = nn.Conv2d(width, width, 7, padding=9, dilation=3, groups=width)
        self.gate, self.after = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        wide = 8 * width
        self.fc1, self.fc2 = nn.Conv2d(width, wide, 1), nn.Conv2d(wide, width, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.scale1 = nn.Parameter(1e-2 * torch.ones(width))
        self.scale2 = nn.Parameter(1e-2 * torch.ones(width))
        self.change = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def attend(self, x):
        value, gate = self.gate(self.far(self.near(self.gelu(self.before(x))))).chunk(2, dim=1)
        return self.after(torch.sigmoid(gate) * value) + x

    def forward(self, x):
        x = x + self.scale1[:, None, None] * self.attend(self.norm1(x))
        hidden = self.gelu(self.depthwise(self.fc1(self.norm2(x))))
        return self.change(x + self.scale2[:, None, None] * self.fc2(hidden))


class Plain(nn.Module):
    """Encoder, translator, decoder; the encoder's first output is added before the last layer."""

    def __init__(self):
        super().__init__()
        s, stacked = SPATIAL, PAST * SPATIAL
        self.encoder1 = self._layer(nn.Conv2d(CHANNELS, s, 3, padding=1), s)
        self.encoder2 = self._layer(nn.Conv2d(s, s, 3, stride=2, padding=1), s)
        ends = [stacked, *[TEMPORAL] * (BLOCKS - 1), stacked]
        self.translator = nn.Sequential(*[PlainBlock(i, o) for i, o in pairwise(ends)])
        enlarge = nn.Sequential(nn.Conv2d(s, 4 * s, 3, padding=1), nn.PixelShuffle(2))
        self.decoder1 = self._layer(enlarge, s)
        self.decoder2 = self._layer(nn.Conv2d(s, s, 3, padding=1), s)
        self.readout = nn.Conv2d(s, CHANNELS, 1)

    @staticmethod
    def _layer(conv, width):
        return nn.Sequential(conv, nn.GroupNorm(2, width), nn.SiLU())

    def forward(self, past):
        batch, frames, channels, height, width = past.shape
        skip = self.encoder1(past.reshape(batch * frames, channels, height, width))
        x = self.encoder2(skip)
        x = self.translator(x.reshape(batch, -1, *x.shape[-2:]))
        x = self.decoder1(x.reshape(batch * frames, -1, *x.shape[-2:]))
        return self.readout(self.decoder2(x + skip)).reshape(past.shape)


class Ours(nn.Module):
    """The backbone from end to end."""

    def __init__(self):
        super().__init__()
        grid = small_grid(32, 32, channels=CHANNELS)
        self.backbone = backbones.build(
            "simvp", grid, past=PAST, lead=PAST, spatial=SPATIAL, temporal=TEMPORAL,
            layers=2, blocks=BLOCKS, drop_path=0.0,
        )  # fmt: skip

    def forward(self, past):
        return self.backbone.decode(*self.backbone.encode(past))


def stepper(model, past, future):
    """One training step, ready to call."""
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        nn.functional.mse_loss(model(past), future).backward()
        optimizer.step()

    return step


def main(rounds: int = 7) -> int:
    """Print and store the ratio; 0 where ours is no slower."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain, ours = Plain(), Ours().to(memory_format=torch.channels_last)
    assert parameter_count(plain) == parameter_count(ours), "the two differ in size"
    past = torch.randn(BATCH, PAST, CHANNELS, 32, 32)
    future = torch.randn_like(past)
    steps = {"ours": stepper(ours, past, future), "plain": stepper(plain, past, future)}
    seconds = compare(steps, rounds=rounds, clock=time.process_time)
    ratio = seconds["ours"] / seconds["plain"]
    result = {
        "what": "training step of our SimVP over a plain re-statement of its layers",
        "peer": "OpenSTL's layers in eager PyTorch",
        "limit": "convolutions",
        "parameters": parameter_count(ours),
        "batch": BATCH,
        "clock": "processor time of one thread, least of interleaved rounds",
        "rounds": rounds,
        "seconds": seconds,
        "ratio": ratio,
        "target": f"at most {WANTED_RATIO:g}",
        "met": ratio <= WANTED_RATIO,
    }
    lost = save("bench_simvp", result, better="lower")
    print(f"ours {seconds['ours']:.3f} s, plain {seconds['plain']:.3f} s, ratio {ratio:.2f}")
    return lost or int(ratio > WANTED_RATIO)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
