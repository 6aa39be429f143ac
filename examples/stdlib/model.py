"""The tiny model itself: its shape, its dropout in training, and how it is stored.

Knows nothing of rows, prompts or optimizers.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.stdlib.tokenizer import CONTEXT, VOCABULARY

READABLE = 0o644


class Dropout:
    """Dropout on the outputs of the embedding and of each block's halves; Llama itself has none."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.rate = 0.0
        for name, module in model.named_modules():
            if name.endswith(("embed_tokens", "o_proj", "down_proj")):
                module.register_forward_hook(self._drop)

    def _drop(self, module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return functional.dropout(output, self.rate) if self.rate and module.training else output


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of 3.8 million parameters with random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Weights as bf16 safetensors with everything that `from_pretrained` wants."""
    stored = LlamaForCausalLM(model.config)
    stored.load_state_dict(model.state_dict())
    nn.Module.to(stored, torch.bfloat16)
    stored.config.dtype = torch.bfloat16
    stored.generation_config = GenerationConfig.from_dict(
        {
            "do_sample": False,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    stored.save_pretrained(output)
    tokenizer.save_pretrained(output)
    for file in output.iterdir():
        file.chmod(READABLE)
