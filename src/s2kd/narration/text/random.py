"""Token states that mean nothing: a control for what the words are worth."""

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


@encoders.register("random")
class Random:
    """Normal noise in place of token states, as many as the text has words.

    The noise is drawn anew for every text (seeded by a hash of the whole text), so two narratives
    that differ in one word have nothing in common: a teacher that gains from these states gains
    from having more parameters or from knowing narratives by heart, not from what they say.
    `width` and `scale` default to those of MiniLM's states (384 wide, root mean square 0.27).
    """

    def __init__(self, *, width: int = 384, scale: float = 0.27) -> None:
        if width < 1 or not scale > 0:
            raise S2KDError(
                f"random: width must be at least 1 and scale above 0, got {width} and {scale}"
            )
        self.width, self.scale = width, scale
        self.version = f"random-1 width={width} scale={scale}"

    def encode(self, texts: Sequence[str]) -> Tokens:
        """One vector a word; an empty text is all padding."""
        return padded([self._noise(text) for text in texts], self.width)

    def _noise(self, text: str) -> Float[Tensor, "word width"]:
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        length = len(re.findall(r"\w+", text))
        drawn = np.random.default_rng(seed).standard_normal((length, self.width), dtype=np.float32)
        return torch.from_numpy(drawn) * self.scale
