"""What users of Hugging Face models share: silence, identity, one sentence for what fails."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s2kd.core.types import S2KDError

CONTENT = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")
"""Files of a model folder that what it says depends on."""


@contextmanager
def quiet() -> Iterator[Any]:
    """The transformers package, imported, without progress bars and chatter."""
    try:
        import transformers
        from huggingface_hub.utils import logging as hub
        from transformers.utils import logging as chatter
    except ImportError:
        raise S2KDError(
            "models of the Hugging Face hub need transformers; install it: "
            "pip install 'transformers>=5.10,<6'"
        ) from None
    level, bars, retries = (
        chatter.get_verbosity(),
        chatter.is_progress_bar_enabled(),
        hub.get_verbosity(),
    )
    chatter.set_verbosity_error()
    hub.set_verbosity_error()  # it tells of every retry; what comes of them is told once
    chatter.disable_progress_bar()
    try:
        yield transformers
    finally:
        chatter.set_verbosity(level)
        hub.set_verbosity(retries)
        if bars:
            chatter.enable_progress_bar()


def identity(model: str, config: Any) -> str:
    """`name@commit` on the hub; for a folder a hash of all that its answers depend on."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{getattr(config, '_commit_hash', None) or 'unknown'}"
    content = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in CONTENT:
            with path.open("rb") as file:
                content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"sha256={content.hexdigest()[:16]}"


def pinned(config: Any, revision: str) -> dict[str, str]:
    """Settings that load the other parts from the commit that `config` came from."""
    commit = getattr(config, "_commit_hash", None) or revision
    return {"revision": commit} if commit else {}


def load(part: str, kind: str, model: str, **more: Any) -> Any:
    """`model` as this class of transformers; what cannot be loaded is an S2KDError."""
    from safetensors import SafetensorError

    with quiet() as transformers:
        try:
            return getattr(transformers, kind).from_pretrained(model, **more)
        except (
            OSError,
            ValueError,
            KeyError,
            ImportError,
            RuntimeError,
            SafetensorError,
        ) as error:
            raise not_loaded(part, model, error) from None


def not_loaded(part: str, model: str, error: Exception) -> S2KDError:
    """Why `model` could not be loaded, and what would be right, in one sentence."""
    folder, reason = Path(model), str(error).strip().partition("\n")[0].rstrip(". ")
    if folder.is_dir():
        if not (folder / "config.json").exists():
            return S2KDError(
                f"{part}: {model} holds no config.json, so it is not a model's folder; give one "
                "made by save_pretrained or `hf download`"
            )
        return S2KDError(f"{part}: the model in {model} could not be loaded ({reason})")
    if model.startswith(("/", ".", "~")) or folder.exists():
        return S2KDError(f"{part}: {model}: no such folder")
    return S2KDError(
        f"{part}: the model {model!r} could not be had from the Hugging Face hub ({reason}); "
        f"where there is a network, `hf download {model} --local-dir FOLDER` fetches it, then set "
        "model=FOLDER"
    )


def free_memory(device: Any) -> int | None:
    """Bytes that can still be had on a PyTorch device; None where that cannot be told."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None
