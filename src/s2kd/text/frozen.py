"""A frozen transformer as a text encoder: what `minilm` and `pretrained` share."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.types import S2KDError, Tokens

log = logging.getLogger(__name__)


def blank(texts: int, tokens: int, width: int) -> Tokens:
    """All padding, zeros everywhere; never without a position, so that attention has a shape."""
    tokens = max(1, tokens)
    return Tokens(
        values=torch.zeros(texts, tokens, width),
        padding=torch.ones(texts, tokens, dtype=torch.bool),
    )


def best_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


class FrozenTransformer:
    """Tokeniser and model to the states of the last layer, one a token, special tokens included.

    An empty text has no token at all. Texts are encoded in order of length, so that short ones
    are not padded to the longest. `texts_cut` and `tokens_lost` count what did not fit into
    `max_tokens`, over all calls.
    """

    def __init__(
        self, tokenizer: Any, model: Any, *, width: int, max_tokens: int, device: str, batch: int
    ) -> None:
        self.width, self.max_tokens, self.batch = width, max_tokens, batch
        self.device = best_device(device)
        self.texts_cut = self.tokens_lost = 0
        self._tokenizer = tokenizer
        self._model = model.eval().requires_grad_(False).to(self.device)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """States on the CPU, float32; positions beyond a text's end are zero and `padding`."""
        full = [number for number, text in enumerate(texts) if text.strip()]
        ids = [self._ids(texts[number]) for number in full]
        tokens = blank(len(texts), max(map(len, ids), default=0), self.width)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for first in range(0, len(order), self.batch):
            chosen = order[first : first + self.batch]
            states = self._states([ids[i] for i in chosen])
            for i, state in zip(chosen, states, strict=True):
                tokens.values[full[i], : len(state)] = state
                tokens.padding[full[i], : len(state)] = False
        return tokens

    def _ids(self, text: str) -> list[int]:
        """Token numbers, cut to `max_tokens`; what was cut is counted and warned of once."""
        whole = self._tokenizer(text, verbose=False)["input_ids"]
        if len(whole) <= self.max_tokens:
            return whole
        if not self.texts_cut:
            log.warning(
                "a narrative of %d tokens is cut to the %d that the text encoder reads",
                len(whole),
                self.max_tokens,
            )
        self.texts_cut += 1
        self.tokens_lost += len(whole) - self.max_tokens
        return self._tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]

    @torch.inference_mode()
    def _states(self, ids: list[list[int]]) -> list[Float[Tensor, "token width"]]:
        """The last layer of one padded batch, without the padding."""
        longest = max(map(len, ids))
        fill = self._tokenizer.pad_token_id or 0
        numbers = torch.tensor([one + [fill] * (longest - len(one)) for one in ids])
        mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
        states = self._model(
            input_ids=numbers.to(self.device), attention_mask=mask.to(self.device)
        ).last_hidden_state
        return [state[: len(one)].float().cpu() for state, one in zip(states, ids, strict=True)]


@contextmanager
def quiet() -> Iterator[Any]:
    """The transformers package, imported, without progress bars and chatter."""
    try:
        import transformers
        from transformers.utils import logging as chatter
    except ImportError:
        raise S2KDError(
            "this text encoder needs transformers; install it: pip install 'transformers>=5.10,<6'"
        ) from None
    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield transformers
    finally:
        chatter.set_verbosity(level)
        if bars:
            chatter.enable_progress_bar()
