"""ONNX students in 8-bit integers, their loss of accuracy bounded."""

import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from jaxtyping import Float

from s2kd.core.types import S2KDError

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations that become int8, with the ReLU that follows them."""


def quantise(
    path: Path,
    out: Path,
    calibration: Float[np.ndarray, "window past channel height width"],
    *,
    error_of: Callable[[Path], float],
    bound: float,
) -> list[str]:
    """Write an ONNX student in int8: weights per channel, activations by their calibrated range.

    Layers whose quantisation alone costs most go back to float32 until the error is in bounds, in
    the manner of NNCF's accuracy control.

    Args:
        path: the student in float32.
        out: the file to write.
        calibration: past frames, from which the ranges of activations are taken.
        error_of: the error of an ONNX file.
        bound: the largest error allowed.

    Returns:
        Names of the layers left in float32.

    Raises:
        S2KDError: the bound cannot be met.
    """
    import onnx
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"  # batch normalisation folded into convolutions
        quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        nodes = onnx.load(str(folded)).graph.node
        layers = [node.name for node in nodes if node.op_type in LAYERS]

        def error_without(excluded: Sequence[str]) -> float:
            _quantise(folded, out, calibration, excluded)
            return error_of(out)

        error = error_without([])
        if error <= bound:
            return []
        alone = {name: error_without([n for n in layers if n != name]) for name in layers}
        costly = sorted(layers, key=alone.__getitem__, reverse=True)
        counts = range(1, len(layers))
        # more layers in float32 cost less, nearly always: the last try decides
        first = bisect_left(counts, True, key=lambda n: error_without(costly[:n]) <= bound)
        excluded = costly[: first + 1]
        if first == len(counts) or not error_without(excluded) <= bound:
            raise S2KDError(f"int8 has an error of {error:.4g}, the bound is {bound:.4g}")
        return excluded


def _quantise(folded: Path, out: Path, calibration: np.ndarray, excluded: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    feeds = ({"past": window[None]} for window in calibration)
    quantize_static(
        str(folded),
        str(out),
        SimpleNamespace(get_next=lambda: next(feeds, None)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*LAYERS, "Relu"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(excluded),
        calibration_cache_path=folded.with_name("ranges"),  # the same for every choice of layers
    )
