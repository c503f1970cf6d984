"""A frozen transformer as a text encoder: what `minilm` and `pretrained` are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.core.types import Tokens
from s2kd.narration.text.batches import by_length, padded


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A tokeniser and the part of a network that reads; the most tokens that both can read."""

    tokenizer: Any
    network: Any
    width: int
    max_tokens: int


def best_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


class FrozenTransformer:
    """Texts to the states of the last layer, one a token, special tokens included.

    An empty text has no token at all. Nothing is loaded before the first text is read. `source`
    is what the settings alone do not say of the weights: the commit or the content of a model
    that may change under its name; empty where the settings say all.
    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        *,
        name: str,
        max_tokens: int,
        device: str,
        batch: int,
        source: Callable[[], str] = str,
    ) -> None:
        self.batch = batch
        self._load, self._name, self._device = load, name, device
        self._most, self._source = max_tokens, source

    @cached_property
    def source(self) -> str:
        """What the weights are, beyond what they are called."""
        return self._source()

    @property
    def version(self) -> str:
        """Names weights and length."""
        found = f" {self.source}" if self.source else ""
        return f"{self._name}{found} max_tokens={self._most}"

    @cached_property
    def _loaded(self) -> Loaded:
        loaded = self._load()
        loaded.network.eval().requires_grad_(False).to(best_device(self._device))
        return loaded

    @property
    def width(self) -> int:
        """D_s."""
        return self._loaded.width

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that are read."""
        return min(self._most, self._loaded.max_tokens)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """States on the CPU, float32; positions beyond a text's end are zero and `padding`."""
        ids = [self._ids(text) for text in texts]
        states = [torch.zeros(0, self.width)] * len(texts)
        full = [number for number, one in enumerate(ids) if one]
        for chosen in by_length([len(ids[number]) for number in full], self.batch):
            numbers = [full[i] for i in chosen]
            for number, state in zip(
                numbers, self._states([ids[number] for number in numbers]), strict=True
            ):
                states[number] = state
        return padded(states, self.width)

    def lost(self, text: str) -> int:
        """How many words of a text, at its end, are not or not wholly read."""
        tokenizer = self._loaded.tokenizer
        if not text.strip() or len(tokenizer(text, verbose=False)["input_ids"]) <= self.max_tokens:
            return 0
        kept = self._cut(text, return_offsets_mapping=tokenizer.is_fast)
        if tokenizer.is_fast:
            end = max(stop for _, stop in kept["offset_mapping"])
            # a word of which a part is read is lost too: the rest of it stands first
            return len(text[end:].split())
        read = tokenizer.decode(kept["input_ids"], skip_special_tokens=True)
        return max(1, len(text.split()) - len(read.split()))

    def _ids(self, text: str) -> list[int]:
        """Token numbers, cut to `max_tokens`."""
        return self._cut(text)["input_ids"] if text.strip() else []

    def _cut(self, text: str, **more: bool) -> Any:
        return self._loaded.tokenizer(text, truncation=True, max_length=self.max_tokens, **more)

    @torch.inference_mode()
    def _states(self, ids: list[list[int]]) -> list[Float[Tensor, "token width"]]:
        """The last layer of one padded batch, without the padding."""
        longest, device = max(map(len, ids)), best_device(self._device)
        fill = self._loaded.tokenizer.pad_token_id or 0
        numbers = torch.tensor([one + [fill] * (longest - len(one)) for one in ids])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        states = self._loaded.network(
            input_ids=numbers.to(device), attention_mask=mask.to(device)
        ).last_hidden_state
        return [state[: len(one)].float().cpu() for state, one in zip(states, ids, strict=True)]
