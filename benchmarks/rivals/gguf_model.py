"""A Llama folder as one GGUF file, without a vocabulary. Knows the format, runs nothing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def convert(folder: Path, dtype: str) -> Path:
    """The file beside the weights, written once for each of float32 and bfloat16."""
    path = folder / f"{dtype}.gguf"
    if path.exists():
        return path
    gguf = importlib.import_module("gguf")
    config = json.loads((folder / "config.json").read_text())
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(str(partial), "llama")
    _describe(writer, config)
    wide = gguf.GGMLQuantizationType[{"float32": "F32", "bfloat16": "BF16"}[dtype]]
    for name, tensor in _weights(folder / "model.safetensors"):
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        key = next((heads[part] for part in name.split(".") if part in heads), None)
        turned = tensor if key is None else _interleave(tensor, config[key])
        kind = wide if turned.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_renamed(name), gguf.quants.quantize(turned, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.rename(path)


def _describe(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _renamed(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def _interleave(tensor: Floats, heads: int) -> Floats:
    """Rotary pairs side by side, where Hugging Face keeps the halves of a head apart."""
    rows, columns = tensor.shape
    split = tensor.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows, columns))


def _weights(path: Path) -> list[tuple[str, Floats]]:
    """All tensors as float32, bfloat16 ones too, which numpy does not know."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    found = []
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(raw[begin:end], np.uint16).astype(np.uint32) << 16
            values: Floats = bits.view(np.float32)
        else:
            values = np.frombuffer(raw[begin:end], np.float32)
        found.append((name, values.reshape(entry["shape"])))
    return found
