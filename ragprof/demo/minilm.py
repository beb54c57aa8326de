"""all-MiniLM-L6-v2 in numpy: the encoder of BERT, forward only.

Devlin et al., "BERT" (2019), for the architecture; Wang et al., "MiniLM" (2020), and the
sentence-transformers model card for the weights and for mean pooling with unit length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

MAX_TOKENS = 512


class MiniLM:
    """Token ids in, token vectors out; thread-safe, since nothing changes after loading."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.dimensions: int = config["hidden_size"]
        self.epsilon: float = config["layer_norm_eps"]
        self.weights: dict[str, Floats] = {
            # x @ W wants W as (in, out), stored contiguously; the file has (out, in).
            name: np.ascontiguousarray(array.T) if name.endswith("dense.weight") else array
            for name, array in load_file(folder / "model.safetensors").items()
            if array.dtype == np.float32
        }
        for index in range(self.layers):
            self._join_attention(f"encoder.layer.{index}.attention.self")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def _join_attention(self, prefix: str) -> None:
        """Query, key and value as one matrix: one product instead of three."""
        parts = [f"{prefix}.{name}" for name in ("query", "key", "value")]
        weights = [self.weights.pop(f"{part}.weight").T for part in parts]
        biases = [self.weights.pop(f"{part}.bias") for part in parts]
        self.weights[f"{prefix}.joined.weight"] = np.ascontiguousarray(np.concatenate(weights, 1))
        self.weights[f"{prefix}.joined.bias"] = np.concatenate(biases)

    def tokenize(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP], at most 512."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def encode(self, ids: Ids) -> Floats:
        """(batch, length) ids of equal length, without padding → (batch, length, 384)."""
        w = self.weights
        length = ids.shape[1]
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][:length]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._normalise(x, "embeddings.LayerNorm")
        for index in range(self.layers):
            layer = f"encoder.layer.{index}"
            attended = self._attend(x, f"{layer}.attention.self.joined")
            attended = self._dense(attended, f"{layer}.attention.output.dense")
            x = self._normalise(x + attended, f"{layer}.attention.output.LayerNorm")
            inner = _gelu(self._dense(x, f"{layer}.intermediate.dense"))
            inner = self._dense(inner, f"{layer}.output.dense")
            x = self._normalise(x + inner, f"{layer}.output.LayerNorm")
        return x

    def _attend(self, x: Floats, joined: str) -> Floats:
        batch, length, width = x.shape
        size = width // self.heads
        qkv = self._dense(x, joined).reshape(batch, length, 3, self.heads, size)
        query, key, value = (qkv[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(size))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        attended: Floats = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        return attended

    def _dense(self, x: Floats, name: str) -> Floats:
        flat = x.reshape(-1, x.shape[-1]) @ self.weights[f"{name}.weight"]
        flat += self.weights[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], -1)

    def _normalise(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        scaled: Floats = centred / np.sqrt(variance + np.float32(self.epsilon))
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _gelu(x: Any) -> Floats:
    result: Floats = x * np.float32(0.5) * (np.float32(1) + erf(x * np.float32(2**-0.5)))
    return result
