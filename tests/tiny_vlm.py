"""Tiny random DeepSeek-VL and LLaVA models with their processors, saved as real ones are."""

from pathlib import Path

SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]
CORPUS = [
    "a strong cold front moves east across the domain",
    "temperature drops behind the front",
    "the plume rises and leans to the right",
] * 20
TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SIDE, PATCH = 32, 8
SMALL_EYES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE(unk_token=None))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="right",  # as some real ones have it: the narrator must turn it round
        extra_special_tokens={"image_token": "<image>"},
    )


def text_config(words):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.5,  # answers that depend on picture and prompt
    )


def llava(folder: Path, *, seed: int = 0) -> Path:
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer()
    vision = CLIPVisionConfig(num_hidden_layers=3, projection_dim=32, **SMALL_EYES)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    torch.manual_seed(seed)
    return saved(LlavaForConditionalGeneration(config), processor, folder)


def deepseek(folder: Path, *, seed: int = 0) -> Path:
    import torch
    from transformers import (
        DeepseekVLConfig,
        DeepseekVLForConditionalGeneration,
        DeepseekVLImageProcessorPil,
        DeepseekVLProcessor,
        SiglipVisionConfig,
    )

    words = tokenizer()
    vision = SiglipVisionConfig(num_hidden_layers=2, **SMALL_EYES)
    config = DeepseekVLConfig(
        text_config=text_config(words),
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    processor = DeepseekVLProcessor(
        image_processor=DeepseekVLImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, min_size=PATCH
        ),
        tokenizer=words,
        chat_template=TEMPLATE,
        num_image_tokens=(SIDE // PATCH) ** 2,
    )
    torch.manual_seed(seed)
    return saved(DeepseekVLForConditionalGeneration(config), processor, folder)


def saved(model, processor, folder: Path) -> Path:
    """As chat models are published: with settings for sampling that the narrator must overrule."""
    import torch

    with torch.no_grad():  # pictures speak louder than a random projector lets them
        for name, weight in model.named_parameters():
            if "projector" in name or "aligner" in name:
                weight.mul_(20)
    model.generation_config.update(do_sample=True, temperature=0.2, top_p=0.7, max_length=64)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


FAMILIES = {"deepseek": deepseek, "llava": llava}
