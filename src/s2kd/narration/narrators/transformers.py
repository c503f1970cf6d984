"""Narratives by a multimodal model on this machine: DeepSeek-VL, LLaVA-1.5, or a similar one."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from s2kd.core.reading import Size
from s2kd.core.types import Past, S2KDError
from s2kd.narration.huggingface import free_memory, identity, load, pinned, quiet
from s2kd.narration.narrators import Narrator, narrators
from s2kd.narration.prompts import VERSION, prompt, tidied
from s2kd.narration.sheet import Sheet, Sheets

SMALLEST_SHEET, LARGEST_SHEET, DEFAULT_SHEET = 224, 1024, 384
"""Pixels; for a model whose image processor takes less, more, or does not say."""


@narrators.register("transformers")
class Transformers(Narrator):
    """The greedy answers of `model`, a name on the Hugging Face hub or a local folder.

    Any model that `AutoModelForImageTextToText` loads and that has a chat template works. A name
    is resolved to a commit (of `revision`, if set), a folder to a hash of its content; either is
    part of `version`. Sheets are `size` pixels wide (0: as the model's image processor takes
    them). A `batch` that does not fit into memory is halved. `dtype` `auto` is bfloat16 on a GPU
    and float32 on a CPU; in half precision another batch size may change a word.
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
        max_new_tokens: Size = 200,
        batch: Size = 8,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
    ) -> None:
        self.model, self.batch = model, batch
        self._revision, self._dtype, self._device = revision, dtype, device
        self._max_new_tokens = max_new_tokens
        self._size, self._labels, self._channels = size, labels, tuple(channels)

    @cached_property
    def version(self) -> str:
        """Model and commit, sheet, prompt and decoding; the weights are not loaded for it."""
        decoding = f"max_new_tokens={self._max_new_tokens} dtype={self.dtype}"
        model = identity(self.model, self._config)
        return f"transformers-1 {model} {self.sheets.version} {VERSION} {decoding}"

    @cached_property
    def sheets(self) -> Sheets:
        """Draws the windows."""
        size = self._size
        if not size:
            images = self.processor.image_processor
            sides = dict(getattr(images, "crop_size", None) or getattr(images, "size", None) or {})
            size = max((v for v in sides.values() if isinstance(v, int)), default=DEFAULT_SHEET)
            size = min(LARGEST_SHEET, max(SMALLEST_SHEET, size))
        return Sheets(size=size, labels=self._labels, channels=self._channels)

    def narrate(self, pasts: Sequence[Past]) -> list[str]:
        """One text per past, in order, of at most 120 words."""
        import torch

        texts: list[str] = []
        while len(texts) < len(pasts):
            block = pasts[len(texts) : len(texts) + self.batch]
            sheets = [self.sheets(past) for past in block]
            prompts = [prompt(past, channels=self._channels) for past in block]
            try:
                texts += map(tidied, self.answers(sheets, prompts))
            except torch.OutOfMemoryError:
                if self.batch == 1:
                    raise self._too_large() from None
                self.batch = (self.batch + 1) // 2
                torch.cuda.empty_cache()
        return texts

    def answers(self, sheets: Sequence[Sheet], prompts: Sequence[str]) -> list[str]:
        """The model's answer to each prompt about each sheet, as one batch."""
        import torch
        from PIL import Image

        chats = []
        for sheet, text in zip(sheets, prompts, strict=True):
            picture = {"type": "image", "image": Image.fromarray(sheet)}
            content = [picture, {"type": "text", "text": text}]
            chats.append([{"role": "user", "content": content}])
        inputs = self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        network = self._network
        inputs = inputs.to(self.device, dtype=getattr(torch, self.dtype))
        with torch.inference_mode():
            tokens = network.generate(**inputs, max_new_tokens=self._max_new_tokens)
        answer = tokens[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(answer, skip_special_tokens=True)

    @cached_property
    def device(self) -> Any:
        """The PyTorch device."""
        import torch

        gpu, name = torch.cuda.is_available(), self._device
        if name == "auto":
            name = "cuda" if gpu else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError:
            raise S2KDError(
                f"transformers: device={name!r} must be auto, cpu, cuda or cuda:N"
            ) from None
        if device.type == "cuda" and not gpu:
            raise S2KDError(f"transformers: device={name!r}, but PyTorch finds no GPU here")
        return device

    @cached_property
    def dtype(self) -> str:
        """The precision of the weights."""
        if self._dtype != "auto":
            return self._dtype
        return "bfloat16" if self.device.type == "cuda" else "float32"

    def _load(self, kind: str, **settings: Any) -> Any:
        return load("transformers", kind, self.model, **settings)

    @cached_property
    def _config(self) -> Any:
        return self._load("AutoConfig", **({"revision": self._revision} if self._revision else {}))

    @cached_property
    def processor(self) -> Any:
        """Pictures and words to tensors, padded on the left, so that all answers begin together."""
        # Pillow's resizing everywhere: torchvision's differs, and its presence would decide
        commit = pinned(self._config, self._revision)
        processor = self._load("AutoProcessor", backend="pil", **commit)
        for part in ("image_processor", "tokenizer"):
            if getattr(processor, part, None) is None:  # a tokenizer, for a model of text
                raise S2KDError(
                    f"transformers: {self.model} has no {part.replace('_', ' ')}, so it cannot "
                    "answer about a picture; choose an image-text-to-text model"
                )
        if not processor.chat_template:
            raise S2KDError(
                f"transformers: {self.model} has no chat template; choose a chat model, such as "
                "deepseek-community/deepseek-vl-1.3b-chat"
            )
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor

    @cached_property
    def _network(self) -> Any:
        import torch

        kind, dtype = "AutoModelForImageTextToText", getattr(torch, self.dtype)
        with quiet() as transformers, torch.device("meta"):
            try:
                outline = transformers.AutoModelForImageTextToText.from_config(self._config)
            except ValueError:
                raise S2KDError(
                    f"transformers: {self.model} is a {self._config.model_type!r} model, which "
                    "does not answer about pictures; choose an image-text-to-text model"
                ) from None
        needed = sum(p.numel() for p in outline.parameters()) * dtype.itemsize
        free = free_memory(self.device)
        if free is not None and needed > free:
            raise self._too_large(f" ({needed / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB free)")
        network = self._load(kind, dtype=dtype, **pinned(self._config, self._revision))
        # always the likeliest word: a model's own file may ask for sampling
        decoding = network.generation_config
        decoding.do_sample, decoding.num_beams = False, 1
        decoding.temperature = decoding.top_p = decoding.top_k = decoding.max_length = None
        if decoding.pad_token_id is None:
            decoding.pad_token_id = self.processor.tokenizer.pad_token_id
        try:
            return network.eval().requires_grad_(False).to(self.device)
        except torch.OutOfMemoryError:
            raise self._too_large() from None

    def _too_large(self, sizes: str = "") -> S2KDError:
        return S2KDError(
            f"transformers: {self.model} as {self.dtype} does not fit into the memory of "
            f"{self.device}{sizes}; choose a smaller model, dtype='bfloat16' or another device"
        )
