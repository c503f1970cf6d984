"""SSIM of 1,000 frames of 128×128: s2kd's batched products against a loop over scikit-image.

    python benchmarks/bench_ssim.py [frames]

Same Gaussian window, same data range, one thread each, processor time, side by side. Exits 1 where
the ratio is below 4 or the two differ by more than 1e-5.
"""

import sys
import time
from functools import partial

import numpy as np
import torch
from common import compare, save
from skimage.metrics import structural_similarity

from s2kd.evaluation.metrics import ssim

SLICE = 250
WANTED_RATIO, ALLOWED_DIFFERENCE = 4.0, 1e-5


def pair(frames: int, side: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random fields in 0..1, and the same with noise."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(frames, 1, side, side, generator=generator)
    truth = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    return truth + 0.05 * torch.randn(truth.shape, generator=generator), truth


def loop(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """scikit-image, frame by frame."""
    return np.array(
        [
            structural_similarity(
                one,
                other,
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for one, other in zip(forecast, truth, strict=True)
        ]
    )


def main(frames: int = 1000) -> int:
    """Time both, print and store the ratio; 0 where both conditions hold."""
    torch.set_num_threads(1)
    forecast, truth = pair(frames)
    plain = forecast[:, 0].numpy(), truth[:, 0].numpy()
    seconds = {"s2kd": 0.0, "scikit-image": 0.0}
    # by slice: the least of several short times is freest of what else the computer does
    for first in range(0, frames, SLICE):
        part = slice(first, first + SLICE)
        candidates = {
            "s2kd": partial(ssim, forecast[part], truth[part], data_range=1.0),
            "scikit-image": partial(loop, *(side[part] for side in plain)),
        }
        for name, least in compare(candidates, clock=time.process_time).items():
            seconds[name] += least
    ours = ssim(forecast, truth, data_range=1.0)[:, 0].numpy()
    difference = float(np.abs(ours - loop(*plain)).max())
    ratio = seconds["scikit-image"] / seconds["s2kd"]
    result = {
        "what": "SSIM of 1,000 frames of 128×128, one thread",
        "peer": "scikit-image",
        "limit": "banded matrix products",
        "target": f"at least {WANTED_RATIO:g}",
        "met": ratio >= WANTED_RATIO,
        "frames": frames,
        "shape": [128, 128],
        "window": "Gaussian 11×11, σ 1.5",
        "seconds": seconds,
        "ratio": ratio,
        "largest_difference": difference,
    }
    lost = save("bench_ssim", result, better="higher", packages=("scikit-image", "scipy"))
    print(f"s2kd {seconds['s2kd']:.3f} s, scikit-image {seconds['scikit-image']:.3f} s")
    print(f"ratio {ratio:.2f} (wanted {WANTED_RATIO:g}), largest difference {difference:.1e}")
    return lost or int(ratio < WANTED_RATIO or difference > ALLOWED_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
