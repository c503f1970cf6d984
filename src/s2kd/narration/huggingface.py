"""Loading of Hugging Face models: quietly, at one commit, with errors in one sentence."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s2kd.core.types import S2KDError

CONTENT_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")
"""Files of a model folder that its output depends on."""


@contextmanager
def quiet() -> Iterator[Any]:
    """The transformers package, imported, without progress bars and warnings."""
    import transformers
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    progress_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # it logs every retry
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if progress_bars:
            logging.enable_progress_bar()


def identity(model: str, config: Any) -> str:
    """`name@commit` of a hub model; of a folder a hash of all files that its output depends on."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{getattr(config, '_commit_hash', None) or 'unknown'}"
    content = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in CONTENT_SUFFIXES:
            with path.open("rb") as file:
                content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"sha256={content.hexdigest()[:16]}"


def pinned(config: Any, revision: str) -> dict[str, str]:
    """Options that load the other parts of a model from the commit of its `config`."""
    commit = getattr(config, "_commit_hash", None) or revision  # absent for a folder
    return {"revision": commit} if commit else {}


def load(part: str, kind: str, model: str, **options: Any) -> Any:
    """`model`, a folder or a hub name, by the class `kind` of transformers, such as `AutoModel`.

    `part` names the narrator or text encoder in errors; `options` are those of `from_pretrained`.
    Raises S2KDError where the model cannot be loaded.
    """
    from safetensors import SafetensorError

    with quiet() as transformers:
        try:
            return getattr(transformers, kind).from_pretrained(model, **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise not_loaded(part, model, error) from None


def not_loaded(part: str, model: str, error: Exception) -> S2KDError:
    """The reason why `model` could not be loaded, and the way out."""
    folder, reason = Path(model), str(error).strip().partition("\n")[0].rstrip(". ")
    if folder.is_dir():
        if (folder / "config.json").exists():
            return S2KDError(f"{part}: the model in {model} could not be loaded ({reason})")
        return S2KDError(
            f"{part}: {model} holds no config.json, so it is not a model's folder; give one "
            "made by save_pretrained or `hf download`"
        )
    if model.startswith(("/", ".", "~")) or folder.exists():
        return S2KDError(f"{part}: {model}: no such folder")
    return S2KDError(
        f"{part}: the model {model!r} could not be loaded from the Hugging Face hub ({reason}); "
        f"on a machine with a network, `hf download {model} --local-dir FOLDER` fetches it, then "
        "set model=FOLDER"
    )


def free_memory(device: Any) -> int | None:
    """Free bytes on a PyTorch device; None where that is unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(value) * 1024 for value in kilobytes), None)
