"""Sessions of ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2kd.core.errors import S2KDError, first_line

if TYPE_CHECKING:
    import onnxruntime


def open_session(path: Path, *, threads: int = 0) -> "onnxruntime.InferenceSession":
    """An ONNX file opened on the GPU where ONNX Runtime can use one, else on the processor.

    Args:
        path: the file.
        threads: within one operation; 0: as many as ONNX Runtime chooses.

    Raises:
        S2KDError: the file is absent or damaged.
    """
    import onnxruntime

    if not path.is_file():
        raise S2KDError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    usable = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in usable]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has a dozen kinds
        raise S2KDError(f"{path}: cannot be opened as ONNX ({first_line(error)})") from None
