"""A multimodal model run here: DeepSeek-VL, LLaVA-1.5, or any other that answers about pictures."""

from collections.abc import Sequence
from functools import cached_property

from s2kd.core.types import Past, S2KDError
from s2kd.narration.narrators import narrators
from s2kd.narration.narrators.prompts import VERSION, prompt, tidied
from s2kd.narration.narrators.render import Sheets, image
from s2kd.narration.narrators.vision_model import TooLarge, VisionModel

SMALLEST_SHEET, LARGEST_SHEET, USUAL_SHEET = 224, 1024, 384
"""Pixels; for a model whose image processor wants less, more, or does not say."""


@narrators.register("transformers")
class Transformers:
    """The greedy answers of `model`, a name on the Hugging Face hub or a local folder.

    Any model that `AutoModelForImageTextToText` loads and that has a chat template will do. A
    name is resolved to a commit (of `revision`, if given), a folder to a hash of its content, and
    that is part of `version`. Sheets are `size` pixels wide (0: what the model's image processor
    wants). A batch that does not fit into memory is halved. In half precision a batch of another
    size may change a word here and there; in float32 it does not.
    """

    reads_future = False
    needs = "a model of some gigabytes"

    def __init__(
        self,
        *,
        model: str = "deepseek-community/deepseek-vl-1.3b-chat",
        revision: str = "",
        size: int = 0,
        labels: bool = True,
        channels: Sequence[str] = (),
        max_new_tokens: int = 200,
        batch: int = 8,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        if min(max_new_tokens, batch) < 1:
            raise S2KDError(
                "transformers: max_new_tokens and batch must be at least 1, "
                f"got {max_new_tokens} and {batch}"
            )
        self.model = VisionModel(model, revision=revision, dtype=dtype, device=device)
        self.max_new_tokens, self.batch = max_new_tokens, batch
        self._size, self._labels, self._channels = size, labels, tuple(channels)

    @cached_property
    def version(self) -> str:
        """Model and commit, sheet, prompt and decoding; the weights are not loaded for it."""
        how = f"max_new_tokens={self.max_new_tokens} dtype={self.model.dtype}"
        return f"transformers-1 {self.model.identity} {self.sheets.version} {VERSION} {how}"

    @cached_property
    def sheets(self) -> Sheets:
        """What draws the windows."""
        size = self._size
        if not size:
            wanted = self.model.picture_size or USUAL_SHEET
            size = min(LARGEST_SHEET, max(SMALLEST_SHEET, wanted))
        return Sheets(size=size, labels=self._labels, channels=self._channels)

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text a past, in order, of at most 120 words."""
        texts: list[str] = []
        while len(texts) < len(pasts):
            block = pasts[len(texts) : len(texts) + self.batch]
            pictures = [image(self.sheets(past)) for past in block]
            prompts = [prompt(past, channels=self._channels) for past in block]
            try:
                said = self.model.answers(pictures, prompts, most=self.max_new_tokens)
            except TooLarge:
                if self.batch == 1:
                    raise self.model.too_large() from None
                self.batch = (self.batch + 1) // 2
            else:
                texts += map(tidied, said)
        return texts
