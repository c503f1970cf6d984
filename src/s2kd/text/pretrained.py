"""Any Hugging Face text encoder: BERT, MPNet, RoBERTa, T5, the text half of CLIP and SigLIP."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2kd.text import encoders
from s2kd.text.frozen import FrozenTransformer, quiet
from s2kd.types import S2KDError, Tokens

TEXT_HALVES = {
    "clip": "CLIPTextModel",
    "siglip": "SiglipTextModel",
    "siglip2": "Siglip2TextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
}
"""Model types of which only the part that reads is wanted."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types that begin to count positions after the padding token: two of them are no use."""


@encoders.register("pretrained")
class Pretrained:
    """Token states of the last layer of `model`, a local folder or a name on the Hugging Face hub.

    `max_tokens` is lowered to what the model can read (77 for CLIP); `texts_cut` and
    `tokens_lost` say what that cost.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str = "",
        max_tokens: int = 256,
        device: str = "auto",
        batch: int = 64,
    ) -> None:
        if max_tokens < 3:
            raise S2KDError(f"pretrained: max_tokens must be at least 3, got {max_tokens}")
        with quiet() as transformers:
            config, tokenizer, network = _load(transformers, model, revision)
        text = getattr(config, "text_config", config)
        self.width = int(getattr(text, "hidden_size", 0) or text.d_model)
        self.max_tokens = min(max_tokens, longest(text, tokenizer))
        self.version = f"pretrained-1 {identity(model, config)} max_tokens={self.max_tokens}"
        self._frozen = FrozenTransformer(
            tokenizer,
            network,
            width=self.width,
            max_tokens=self.max_tokens,
            device=device,
            batch=batch,
        )

    def encode(self, texts: Sequence[str]) -> Tokens:
        """One state a token; an empty text is all padding."""
        return self._frozen.encode(texts)

    @property
    def texts_cut(self) -> int:
        """How many texts were longer than `max_tokens`."""
        return self._frozen.texts_cut

    @property
    def tokens_lost(self) -> int:
        """How many tokens those texts lost."""
        return self._frozen.tokens_lost


def _load(transformers: Any, model: str, revision: str) -> tuple[Any, Any, Any]:
    """Configuration, tokeniser and the part of the network that reads."""
    import torch

    where: dict[str, str] = {"revision": revision} if revision else {}
    try:
        config = transformers.AutoConfig.from_pretrained(model, **where)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **where)
        kind = TEXT_HALVES.get(config.model_type.removesuffix("_text_model"), "AutoModel")
        # float32 whatever the file holds: states are computed once, in full
        network = getattr(transformers, kind).from_pretrained(model, dtype=torch.float32, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise S2KDError(
            f"pretrained: {model!r} could not be loaded ({reason}); "
            "give a folder made by save_pretrained or a name on the Hugging Face hub"
        ) from None
    if getattr(config, "is_encoder_decoder", False) and kind == "AutoModel":
        network = network.get_encoder()
    return config, tokenizer, network


def longest(config: Any, tokenizer: Any) -> int:
    """The most tokens that model and tokeniser can read."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in OFFSET_POSITIONS:
        positions -= 2
    return int(min(positions, tokenizer.model_max_length))


def identity(model: str, config: Any) -> str:
    """`name@commit` on the hub; for a folder a hash of its configuration, words and weights."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{getattr(config, '_commit_hash', None) or 'unknown'}"
    content = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".txt", ".model"):
            with path.open("rb") as file:
                content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"sha256={content.hexdigest()[:16]}"
