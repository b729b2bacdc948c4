"""A sentence model of random weights and few words, in the files of a real one, for tests in which vectors need only differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HIDDEN, HEADS, LAYERS, INNER, PLACES = 16, 2, 2, 32, 32
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "door", "##s", "is", "broken", "brakes", "squeal", ",", "，")


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Writes config.json, tokenizer.json and model.safetensors of a BERT; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tiny_weights(seed), folder / "model.safetensors")
    return folder


def tiny_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """The model's weights by their names in BertModel."""
    random = np.random.default_rng(seed)
    sizes = {
        "embeddings.word_embeddings.weight": (len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": (PLACES, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        dense = {f"{at}.attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")}
        dense |= {
            f"{at}.attention.output.dense": (HIDDEN, HIDDEN),
            f"{at}.intermediate.dense": (INNER, HIDDEN),
            f"{at}.output.dense": (HIDDEN, INNER),
        }
        for name, shape in dense.items():
            sizes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    made = {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in sizes.items()}
    for name in norms:
        made[f"{name}.weight"] = random.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
        made[f"{name}.bias"] = random.normal(0, 0.1, HIDDEN).astype(np.float32)
    return made
