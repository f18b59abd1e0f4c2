"""The untrained small Janus: configuration, tokenizer and processor of its checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

BOS, EOS, PAD = "<|begin_of_sentence|>", "<|end_of_sentence|>", "<|pad|>"
IMAGE, BEGIN, END = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
SPECIAL = [PAD, BOS, EOS, IMAGE, BEGIN, END, USER, ASSISTANT]

# Janus's manner: "<|User|>: <image>\nquestion\n\n<|Assistant|>: answer<end>". The processor
# sets the system prompt before it, the tokenizer the begin-of-sentence token before that.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|User|>: {% else %}<|Assistant|>: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image_placeholder>{{ '\\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'user' %}{{ '\\n\\n' }}{% else %}<|end_of_sentence|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)


def make_tokenizer(sentences: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the prompts' own words; every answer is one token.

    Args:
        sentences: all questions and answers (answers with a leading space).
        vocab_size: upper limit; bytes make any other text expressible.

    Returns:
        the tokenizer, with Janus's image tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?[^\s.,:;?!]+|\s+|[.,:;?!]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([DEFAULT_SYSTEM_PROMPT, *sentences], trainer)
    begin = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE, "boi_token": BEGIN, "eoi_token": END},
    )


def make_processor(
    tokenizer: PreTrainedTokenizerFast, image_size: int, patch: int
) -> JanusProcessor:
    """Put tokenizer, image processor (mean and std .5, as Janus-Pro) and chat template together."""
    image_processor = JanusImageProcessor(
        size={"height": image_size, "width": image_size},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return JanusProcessor(
        image_processor,
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        use_default_system_prompt=True,
        num_image_tokens=(image_size // patch) ** 2,
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast, vision: dict[str, Any], text: dict[str, Any], seed: int
) -> JanusForConditionalGeneration:
    """Build the untrained model; its image generator is as small as the classes allow.

    Args:
        tokenizer: gives the vocabulary and the special tokens.
        vision: JanusVisionConfig's entries.
        text: LlamaConfig's entries.
        seed: Seed of the initial weights.

    Returns:
        float32 model.
    """
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    width = text["hidden_size"]
    config = JanusConfig(
        vision_config={
            **vision,
            "projection_dim": width,
            "num_image_tokens": (vision["image_size"] // vision["patch_size"]) ** 2,
        },
        text_config={
            **text,
            **tokens,
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "tie_word_embeddings": True,
        },
        vq_config={
            "embed_dim": 2,
            "num_embeddings": 4,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1],
            "num_res_blocks": 0,
            "projection_dim": 8,
            "image_token_embed_dim": width,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration._from_config(config)
    model.generation_config = GenerationConfig(
        **tokens, generation_kwargs={"boi_token_id": tokenizer.convert_tokens_to_ids(BEGIN)}
    )
    return model


def export(model: JanusForConditionalGeneration, processor: JanusProcessor, folder: Path) -> None:
    """Write the checkpoint folder: config, safetensors, tokenizer, processor, chat template."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
