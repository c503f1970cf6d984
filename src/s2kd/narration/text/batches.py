"""What all text encoders share: texts in batches of like length, states padded to one tensor."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.core.types import Tokens


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers of all texts from the shortest on, `size` at a time.

    So short texts are not padded to the longest.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for first in range(0, len(order), size):
        yield order[first : first + size]


def padded(states: Sequence[Float[Tensor, "_ width"]], width: int) -> Tokens:
    """The states of each text, filled up with zeros to the longest.

    There is always at least one position, so that attention has a shape.
    """
    longest = max([1, *map(len, states)])
    tokens = Tokens(
        values=torch.zeros(len(states), longest, width),
        padding=torch.ones(len(states), longest, dtype=torch.bool),
    )
    for number, state in enumerate(states):
        tokens.values[number, : len(state)] = state
        tokens.padding[number, : len(state)] = False
    return tokens
