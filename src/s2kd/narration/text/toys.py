"""Text encoders without weights: `hashed` for tests and dry runs, `random` as a control."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.core.reading import Above, Size
from s2kd.core.tensors import Tokens
from s2kd.narration.text import TextEncoder, encoders
from s2kd.narration.text.states import padded


def noise(text: str, shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Standard normal values seeded by a hash of the text: the same on every machine."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@encoders.register("hashed")
class Hashed(TextEncoder):
    """One frozen random vector per word, seeded by the word."""

    def __init__(self, *, width: Size = 32) -> None:
        self.width = width
        self.version = f"hashed-1 width={width}"
        self._vectors: dict[str, Float[Tensor, " width"]] = {}

    def encode(self, texts: Sequence[str]) -> Tokens:
        """One vector per word; an empty text is all padding."""
        words = [re.findall(r"\w+", text.lower()) for text in texts]
        for word in {word for text in words for word in text} - self._vectors.keys():
            self._vectors[word] = noise(word, (self.width,))
        empty = torch.zeros(0, self.width)
        states = [
            torch.stack([self._vectors[w] for w in text]) if text else empty for text in words
        ]
        return padded(states, self.width)


@encoders.register("random")
class Random(TextEncoder):
    """Normal noise in place of token states, one vector per word.

    The noise is seeded by the whole text, so two narratives that differ in one word have nothing
    in common: a teacher that gains from these states gains from extra parameters or from
    memorised narratives, not from their content. `width` and `scale` default to those of
    MiniLM's states (384 wide, root mean square 0.27).
    """

    def __init__(self, *, width: Size = 384, scale: Above = 0.27) -> None:
        self.width, self.scale = width, scale
        self.version = f"random-1 width={width} scale={scale}"

    def encode(self, texts: Sequence[str]) -> Tokens:
        """One vector per word; an empty text is all padding."""
        lengths = [len(re.findall(r"\w+", text)) for text in texts]
        states = [
            noise(text, (length, self.width)) * self.scale
            for text, length in zip(texts, lengths, strict=True)
        ]
        return padded(states, self.width)
