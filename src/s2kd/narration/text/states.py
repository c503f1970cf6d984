"""Token states of all narratives of a split: computed once, stored in float16, read per batch."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s2kd.core.files import check_seal, write_sealed
from s2kd.core.tensors import Tokens
from s2kd.core.types import S2KDError
from s2kd.narration.text import TextEncoder

FORMAT = "s2kd text states 1"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Numbers of narratives, of those too long for the encoder, of all words and of lost words."""

    narratives: int = 0
    too_long: int = 0
    words: int = 0
    lost: int = 0

    def __str__(self) -> str:
        share = 100 * self.too_long / max(1, self.narratives)
        return (
            f"{self.too_long} of {self.narratives} narratives ({share:.0f} %) are longer than the "
            f"text encoder reads: {self.lost} of {self.words} words are lost"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextStates:
    """Token states of every window's text; equal texts once, end to end without padding.

    Text u holds rows `offsets[u]` up to `offsets[u + 1]` of `values`; window i reads text
    `index[i]`. `key` identifies texts and weights, `source` is that of the
    encoder, and `cut` counts what did not fit into it.
    """

    values: Float16[Tensor, "state width"]
    offsets: Int[Tensor, " boundary"]
    index: Int[Tensor, " window"]
    key: str = ""
    source: str = ""
    cut: Cut = Cut()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """D_s."""
        return self.values.shape[1]

    @property
    def lengths(self) -> Int[Tensor, " unique"]:
        """Tokens per different text."""
        return self.offsets.diff()

    def to(self, device: torch.device | str) -> "TextStates":
        """The same states on `device`."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **moved)

    def tokens(self, index: Int[Tensor, " batch"], device: torch.device | str = "cpu") -> Tokens:
        """The states of these windows in float32, padded with zeros to the longest of them.

        There is always at least one position, so that a batch of empty texts has a shape.
        """
        text = self.index[index.to(self.index.device)]
        first, length = self.offsets[text], self.lengths[text]
        longest = max(1, int(length.max())) if len(text) else 1
        position = torch.arange(longest, device=text.device)
        padding = position >= length[:, None]
        values = self.values.new_zeros(len(text), longest, self.width)
        values[~padding] = self.values[(first[:, None] + position)[~padding]]
        return Tokens(values=values.to(device).float(), padding=padding.to(device))

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name).cpu().contiguous() for name in _TENSORS}
        metadata = {"format": FORMAT, "key": self.key, "source": self.source}
        metadata |= {name: str(value) for name, value in asdict(self.cut).items()}
        write_sealed(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> "TextStates":
        """Read what `save` wrote; a damaged file is an S2KDError."""
        from safetensors import SafetensorError, safe_open

        try:
            check_seal(path, "delete it to have it made again")
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
        except FileNotFoundError:
            raise S2KDError(f"{path}: no such file") from None
        except (SafetensorError, OSError) as error:
            raise S2KDError(f"{path}: not readable as text states ({error})") from None
        if metadata.get("format") != FORMAT or not _consistent(**tensors):
            raise S2KDError(f"{path}: does not hold text states; delete it to have it made again")
        cut = Cut(**{field.name: int(metadata.get(field.name, 0)) for field in fields(Cut)})
        return cls(**tensors, key=metadata["key"], source=metadata.get("source", ""), cut=cut)


_TENSORS = ("values", "offsets", "index")


def _consistent(values: Tensor, offsets: Tensor, index: Tensor) -> bool:
    """Whether three tensors can be text states: types, shapes, bounds, finite values."""
    if values.dtype != torch.float16 or values.ndim != 2:
        return False
    if any(t.dtype != torch.int64 or t.ndim != 1 for t in (offsets, index)) or not len(offsets):
        return False
    bounded = not len(index) or (index.min() >= 0 and index.max() < len(offsets) - 1)
    ordered = offsets[0] == 0 and offsets[-1] == len(values) and bool((offsets.diff() >= 0).all())
    return bool(bounded) and bool(ordered) and bool(values.isfinite().all())


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers of all texts, the shortest first, in batches: short texts need little padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for first in range(0, len(order), size):
        yield order[first : first + size]


def padded(states: Sequence[Float[Tensor, "_ width"]], width: int) -> Tokens:
    """The states of each text, padded with zeros to the longest, which is at least 1."""
    values = pad_sequence([torch.zeros(1, width), *states], batch_first=True)[1:]
    lengths = torch.tensor([len(state) for state in states], dtype=torch.long)
    return Tokens(values=values, padding=torch.arange(values.shape[1]) >= lengths[:, None])


def encode_states(
    texts: Sequence[str],
    encoder: TextEncoder,
    *,
    key: str = "",
    batch: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> TextStates:
    """Encode every different text once; `progress(done, total)` counts different texts.

    States are rounded to float16: relative error at most 2⁻¹¹. A state beyond its range
    (65504), or not finite, is an S2KDError.
    """
    number: dict[str, int] = {}
    index = torch.tensor([number.setdefault(text, len(number)) for text in texts]).long()
    unique = list(number)
    states: list[Tensor] = [torch.zeros(0, encoder.width, dtype=torch.float16)] * len(unique)
    done = 0
    for numbers in by_length(list(map(len, unique)), batch):
        tokens = encoder.encode([unique[i] for i in numbers])
        for i, value, padding in zip(numbers, tokens.values, tokens.padding, strict=True):
            states[i] = value[~padding].cpu().half()
            if not states[i].isfinite().all():
                raise S2KDError(
                    f"text encoder {encoder.version!r} gives states that are not finite in "
                    f"float16 for the text {unique[i][:60]!r}"
                )
        done += len(numbers)
        if progress is not None:
            progress(done, len(unique))
    lengths = torch.tensor([0, *map(len, states)])
    values = torch.cat([torch.zeros(0, encoder.width, dtype=torch.float16), *states])
    return TextStates(
        values=values,
        offsets=lengths.cumsum(0),
        index=index,
        key=key,
        source=encoder.source(),
        cut=cut_of(texts, encoder),
    )


def cut_of(texts: Sequence[str], encoder: TextEncoder) -> Cut:
    """The words that an encoder cuts off, each text counted as often as it occurs."""
    times = Counter(texts)
    lost = {text: encoder.lost(text) for text in times}
    return Cut(
        narratives=len(texts),
        too_long=sum(count for text, count in times.items() if lost.get(text)),
        words=sum(count * len(text.split()) for text, count in times.items()),
        lost=sum(times[text] * number for text, number in lost.items()),
    )
