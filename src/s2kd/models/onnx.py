"""Forecasters in ONNX files, run by ONNX Runtime on tensors."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2kd.core.files import digest, file_digest
from s2kd.core.onnx import open_session
from s2kd.core.types import S2KDError

AXES = ("batch", "past", "channel", "height", "width")


class OnnxModel:
    """An ONNX file as a callable: past frames to the future, or to (future, latent).

    `metadata` is what a student that was exported here says of its grid and frames, else None.
    Raises S2KDError where the file cannot be opened or takes or gives anything else.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) > 2 or inputs[0].type != "tensor(float)":
            types = ", ".join(entry.type for entry in inputs)
            raise S2KDError(
                f"{path}: has {len(inputs)} inputs ({types}) and {len(outputs)} outputs; wanted "
                "are one float32 array of past frames, the future, and perhaps a latent"
            )
        self.path, self._input = path, inputs[0].name
        self._shape, self._future = inputs[0].shape, outputs[0].shape
        if len(self._shape) != len(AXES):
            raise S2KDError(
                f"{path}: takes an array of {len(self._shape)} axes; wanted are {', '.join(AXES)}"
            )
        self.metadata = self._metadata()

    def __call__(self, past: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        # a file traced for one window is run window by window
        size = self._shape[0] if _is_size(self._shape[0]) else len(past)
        blocks = [
            self._session.run(None, {self._input: block.cpu().numpy()})
            for block in past.split(size)
        ]
        future, *latent = (
            torch.from_numpy(np.concatenate(parts)).to(past.device)
            for parts in zip(*blocks, strict=True)
        )
        return (future, latent[0]) if latent else future

    @property
    def frames(self) -> tuple[int, int] | None:
        """(past, lead), or None where the file leaves one open."""
        past, lead = self._shape[1], self._future[1] if len(self._future) > 1 else None
        return (past, lead) if _is_size(past) and _is_size(lead) else None

    @cached_property
    def digest(self) -> str:
        """Digest of the file, and of the files beside it that hold its weights."""
        import onnx

        model = onnx.load(str(self.path), load_external_data=False)
        entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
        names = sorted({entry.value for entry in entries if entry.key == "location"})
        return digest([file_digest(self.path.parent / name) for name in (self.path.name, *names)])

    def _metadata(self) -> dict[str, Any] | None:
        text = self._session.get_modelmeta().custom_metadata_map.get("s2kd")
        if text is None:
            return None
        try:
            entries = json.loads(text)
            return {name: entries[name] for name in ("grid", "past", "lead")}
        except (ValueError, KeyError, TypeError):
            raise S2KDError(
                f"{self.path}: its metadata are not those of an exported student"
            ) from None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0
