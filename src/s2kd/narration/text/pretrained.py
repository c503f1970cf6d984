"""Any Hugging Face text encoder: BERT, MPNet, RoBERTa, T5, the text half of CLIP and SigLIP."""

from functools import partial
from pathlib import Path
from typing import Any

from s2kd.core.types import S2KDError
from s2kd.narration.huggingface import identity, load, pinned
from s2kd.narration.text import encoders
from s2kd.narration.text.frozen import FrozenTransformer, Loaded

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
def pretrained(
    *,
    model: str,
    revision: str = "",
    max_tokens: int = 256,
    device: str = "auto",
    batch: int = 64,
) -> FrozenTransformer:
    """Token states of the last layer of `model`, a local folder or a name on the Hugging Face hub.

    Of a name, what is loaded is the commit that `revision` (a branch, a tag or a commit) now
    stands for. `max_tokens` is lowered to what the model can read (77 for CLIP).
    """
    if max_tokens < 3:
        raise S2KDError(f"pretrained: max_tokens must be at least 3, got {max_tokens}")
    return FrozenTransformer(
        partial(_load, model, revision),
        name="pretrained-1",
        max_tokens=max_tokens,
        device=device,
        batch=batch,
        source=partial(_source, model, revision),
    )


def _source(model: str, revision: str) -> str:
    """`name@commit`, or for a folder a hash of its content: the weights are not loaded for it."""
    if Path(model).is_dir():
        return identity(model, None)
    return identity(model, _config(model, revision))


def _config(model: str, revision: str) -> Any:
    where = {"revision": revision} if revision else {}
    return load("pretrained", "AutoConfig", model, **where)


def _load(model: str, revision: str) -> Loaded:
    """Configuration, tokeniser and the part of the network that reads, of one commit."""
    import torch

    config = _config(model, revision)
    where = pinned(config, revision)
    kind = TEXT_HALVES.get(config.model_type.removesuffix("_text_model"), "AutoModel")
    tokenizer = load("pretrained", "AutoTokenizer", model, **where)
    # float32 whatever the file holds: states are computed once, in full
    network = load("pretrained", kind, model, dtype=torch.float32, **where)
    if getattr(config, "is_encoder_decoder", False) and kind == "AutoModel":
        network = network.get_encoder()
    text = getattr(config, "text_config", config)
    return Loaded(
        tokenizer=tokenizer,
        network=network,
        width=int(getattr(text, "hidden_size", 0) or text.d_model),
        max_tokens=longest(text, tokenizer),
    )


def longest(config: Any, tokenizer: Any) -> int:
    """The most tokens that model and tokeniser can read."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in OFFSET_POSITIONS:
        positions -= 2
    return int(min(positions, tokenizer.model_max_length))
