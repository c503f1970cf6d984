"""One frozen random vector a word: an encoder without weights, for tests and dry runs."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.core.types import S2KDError, Tokens
from s2kd.narration.text import encoders
from s2kd.narration.text.batches import padded


@encoders.register("hashed")
class Hashed:
    """Words to standard normal vectors seeded by a hash of the word: the same on every machine."""

    def __init__(self, *, width: int = 32) -> None:
        if width < 1:
            raise S2KDError(f"hashed: width must be at least 1, got {width}")
        self.width = width
        self.version = f"hashed-1 width={width}"
        self._known: dict[str, Float[Tensor, " width"]] = {}

    def encode(self, texts: Sequence[str]) -> Tokens:
        """One vector a word; an empty text is all padding."""
        words = [re.findall(r"\w+", text.lower()) for text in texts]
        nothing = torch.zeros(0, self.width)
        states = [torch.stack(list(map(self._vector, w))) if w else nothing for w in words]
        return padded(states, self.width)

    def _vector(self, word: str) -> Float[Tensor, " width"]:
        if word not in self._known:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            drawn = np.random.default_rng(seed).standard_normal(self.width, dtype=np.float32)
            self._known[word] = torch.from_numpy(drawn)
        return self._known[word]
