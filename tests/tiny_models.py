"""Tiny random models with their own tokenizers, so that every test runs on four architectures.

    from tiny_models import ARCHITECTURES, tiny_model
    folder = tiny_model(tmp_path / "model", "qwen2", chat_template=False, tied=True)

A model is a plain ``save_pretrained`` folder (safetensors) with its tokenizer. The same arguments
give the same bytes. The tokenizers differ on purpose where real ones do: the marks of a turn, the
end token, a padding token or none, a leading space that the tokenizer adds or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Architecture = Literal["llama", "gpt2", "qwen2", "gpt_neox"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

TEXT = [
    "Question: How much is 2 and 3?\nAnswer: The answer is 5.",
    "Question: Which pest troubles the variety Amber Gate?\nAnswer: The aphid.",
    "Sow barley in early spring, when the soil is dry enough to walk on without sinking.",
    "The farmer has 12 sheep and sells 4 of them. 12 - 4 = 8. The answer is 8.",
    "def double(x):\n    return 2 * x\n\nassert double(4) == 8",
    "A field of rye stands taller than a field of oats, and it ripens a week before the wheat.",
    "User: Sort the words pear, apple, fig.\nAssistant: apple, fig, pear",
    "Ask the question again and give the answer in one sentence, then stop.",
]
"""What the tokenizers are trained on."""

_SEEDLING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TURNS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}### Assistant: {{ m.content | trim }}"
    "{{ eos_token }}{% else %}### {{ m.role | capitalize }}: {{ m.content | trim }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Assistant:{% endif %}"
)
_BRACKETS = (
    "{% set s = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.index0 < 2 %}{{ s }}"
    "{% endif %}{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
_FORMS: dict[str, tuple[str, list[str], str, str | None]] = {
    # template, special tokens, end token, padding token
    "llama": (
        _SEEDLING,
        ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        "<|endoftext|>",
        "<|pad|>",
    ),
    "gpt2": (_TURNS, ["<|endoftext|>"], "<|endoftext|>", None),
    "qwen2": (
        _CHATML,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "<|im_end|>",
        "<|endoftext|>",
    ),
    "gpt_neox": (_BRACKETS, ["<|endoftext|>", "<|padding|>"], "<|endoftext|>", "<|padding|>"),
}


def tiny_tokenizer(
    architecture: Architecture = "llama", *, chat_template: bool = True, vocab: int = 400
):
    """A byte-level BPE tokenizer trained on :data:`TEXT`, in the manner of `architecture`.

    Llama's puts a space before the first word after every mark, as the seedlings' does; Qwen2's and
    GPT-NeoX's normalise to NFC; GPT-2's has no padding token.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    template, special, end, pad = _FORMS[architecture]
    tokenizer = Tokenizer(models.BPE())
    if architecture in ("qwen2", "gpt_neox"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
        if architecture == "qwen2"
        else [pre_tokenizers.ByteLevel(add_prefix_space=architecture == "llama")]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=pad,
        additional_special_tokens=[t for t in special if t not in (end, pad)],
        clean_up_tokenization_spaces=False,
    )
    if chat_template:
        fast.chat_template = template
    return fast


def tiny_model(
    folder: Path,
    architecture: Architecture = "llama",
    *,
    chat_template: bool = True,
    tied: bool = False,
    vocab: int = 400,
    hidden: int = 32,
    layers: int = 2,
    context: int = 256,
    seed: int = 0,
) -> Path:
    """Saves a tiny random model with its tokenizer and returns `folder`.

    Args:
        folder: Where to write; made where it is missing.
        architecture: One of :data:`ARCHITECTURES`.
        chat_template: Whether the tokenizer brings its own template.
        tied: Whether input and output embeddings are one tensor.
        vocab: Size of the vocabulary, special tokens and 256 bytes included.
        hidden: Width; four heads.
        layers: Depth.
        context: Positions.
        seed: Seed of the random weights.
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        Qwen2Config,
    )

    tokenizer = tiny_tokenizer(architecture, chat_template=chat_template, vocab=vocab)
    ids = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": tied,
        "vocab_size": len(tokenizer),
    }
    rows = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": context,
    }
    if architecture == "llama":
        config = LlamaConfig(**rows, **ids, num_key_value_heads=2)
    elif architecture == "qwen2":
        config = Qwen2Config(**rows, **ids, num_key_value_heads=2)
    elif architecture == "gpt_neox":
        config = GPTNeoXConfig(**rows, **ids)
    else:
        config = GPT2Config(n_embd=hidden, n_layer=layers, n_head=4, n_positions=context, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        # Wider than the usual 0.02: greedy decoding of random weights then varies with its input.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.15)
    model.tie_weights()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_adapter(folder: Path, base: Path | str, *, rank: int = 4, seed: int = 0) -> Path:
    """Saves a random LoRA adapter for `base` (a folder) and returns `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=rank,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
                init_lora_weights=False,
                fan_in_fan_out=model.config.model_type == "gpt2",
            ),
        )
    adapted.save_pretrained(folder)
    return folder
