"""A model that answers about a picture, loaded from a hub or a folder and asked greedily."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from s2kd.core.types import S2KDError
from s2kd.narration.huggingface import free_memory, identity, load, pinned, quiet
from s2kd.narration.narrators.layout import pillow

DTYPES = ("auto", "float32", "bfloat16", "float16")


class TooLarge(Exception):
    """A batch did not fit into memory; a smaller one might."""


class VisionModel:
    """`model` at one commit; each part is loaded when first needed, the weights last.

    `dtype` `auto` is bfloat16 on a GPU and float32 on a CPU.
    """

    def __init__(self, model: str, *, revision: str, dtype: str, device: str) -> None:
        if dtype not in DTYPES:
            raise S2KDError(f"transformers: dtype={dtype!r} must be one of {', '.join(DTYPES)}")
        self.model, self._revision, self._dtype, self._device = model, revision, dtype, device

    @cached_property
    def identity(self) -> str:
        """`name@commit`, or for a folder a hash of its content; needs no weights in memory."""
        return identity(self.model, self._config)

    @cached_property
    def device(self) -> Any:
        """The PyTorch device."""
        import torch

        name = self._device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            found = torch.device(name)
        except RuntimeError:
            raise S2KDError(
                f"transformers: device={name!r} must be auto, cpu, cuda or cuda:N"
            ) from None
        if found.type == "cuda" and not torch.cuda.is_available():
            raise S2KDError(f"transformers: device={name!r}, but PyTorch finds no GPU here")
        return found

    @cached_property
    def dtype(self) -> str:
        """The precision of the weights."""
        if self._dtype != "auto":
            return self._dtype
        return "bfloat16" if self.device.type == "cuda" else "float32"

    @cached_property
    def _config(self) -> Any:
        return self._loaded(
            "AutoConfig", **({"revision": self._revision} if self._revision else {})
        )

    @cached_property
    def _pinned(self) -> dict[str, str]:
        """So that processor and weights are of the commit that `identity` names."""
        return pinned(self._config, self._revision)

    def _loaded(self, kind: str, **more: Any) -> Any:
        return load("transformers", kind, self.model, **more)

    @cached_property
    def processor(self) -> Any:
        """Pictures and words to tensors; padded on the left, so that all answers begin at once."""
        pillow()  # first: without it the error would be about the model
        # Pillow's resizing everywhere: torchvision's differs, and its presence would decide
        processor = self._loaded("AutoProcessor", backend="pil", **self._pinned)
        for part in ("image_processor", "tokenizer"):
            if getattr(processor, part, None) is None:
                raise S2KDError(
                    f"transformers: {self.model} has no {part.replace('_', ' ')}, so it cannot be "
                    "asked about a picture; choose an image-text-to-text model"
                )
        if not getattr(processor, "chat_template", None):
            raise S2KDError(
                f"transformers: {self.model} has no chat template; choose a chat model, such as "
                "deepseek-community/deepseek-vl-1.3b-chat"
            )
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor

    @property
    def picture_size(self) -> int | None:
        """The side in pixels that pictures are brought to before the model sees them."""
        found = self.processor.image_processor
        size = getattr(found, "crop_size", None) or getattr(found, "size", None) or {}
        return max((v for v in dict(size).values() if isinstance(v, int)), default=None)

    @cached_property
    def _network(self) -> Any:
        import torch

        processor, dtype = self.processor, getattr(torch, self.dtype)
        with quiet() as transformers:
            try:
                with torch.device("meta"):
                    outline = transformers.AutoModelForImageTextToText.from_config(self._config)
            except ValueError:
                raise S2KDError(
                    f"transformers: {self.model} is a {self._config.model_type!r} model, which "
                    "does not answer about pictures; choose an image-text-to-text model"
                ) from None
        needed = sum(p.numel() for p in outline.parameters()) * dtype.itemsize
        free = free_memory(self.device)
        if free is not None and needed > free:
            raise self.too_large(f" ({needed / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB free)")
        network = self._loaded("AutoModelForImageTextToText", dtype=dtype, **self._pinned)
        greedy(network.generation_config, processor.tokenizer)
        try:
            return network.eval().requires_grad_(False).to(self.device)
        except torch.OutOfMemoryError:
            raise self.too_large() from None

    def too_large(self, why: str = "") -> S2KDError:
        """What to say where not even one picture fits."""
        return S2KDError(
            f"transformers: {self.model} as {self.dtype} does not fit into the memory of "
            f"{self.device}{why}; choose a smaller model, dtype='bfloat16' or another device"
        )

    def answers(self, pictures: Sequence[Any], prompts: Sequence[str], *, most: int) -> list[str]:
        """The model's answer to each prompt about each Pillow picture, at most `most` tokens.

        Raises `TooLarge` where the batch does not fit into the GPU's memory.
        """
        import torch

        talks = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": picture},
                        {"type": "text", "text": prompt},
                    ],
                }
            ]
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
        asked = self.processor.apply_chat_template(
            talks,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        network = self._network
        asked = asked.to(self.device, dtype=getattr(torch, self.dtype))
        try:
            with torch.inference_mode():
                said = network.generate(**asked, max_new_tokens=most)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            raise TooLarge from None
        new = said[:, asked["input_ids"].shape[1] :]
        return self.processor.batch_decode(new, skip_special_tokens=True)


def greedy(settings: Any, tokenizer: Any) -> None:
    """Always the likeliest word: what a model's own file says of sampling is taken out."""
    settings.do_sample, settings.num_beams = False, 1
    settings.temperature = settings.top_p = settings.top_k = settings.max_length = None
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
