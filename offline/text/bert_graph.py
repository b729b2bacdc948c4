"""A BERT sentence model as an ONNX graph, from its safetensors: token ids in, one vector of length 1 out.

The network is the encoder of Devlin et al., BERT (2018): embeddings, then layers of self-attention and an MLP, each followed by
a residual sum and a layer norm. A sentence's vector is the mean over its tokens, as sentence-transformers' `mean` pooling takes it
(Reimers and Gurevych: Sentence-BERT, 2019). Nothing of torch or transformers is needed, and the same files give the same graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper
from pydantic import BaseModel, Field

from data_exchange_center.errors import DataError
from data_exchange_center.graph_nodes import Graph

NOWHERE = -1e9  # is added to the attention that padding would get


class BertConfig(BaseModel):
    """What is needed of a model's `config.json`."""

    model_type: str = Field(pattern="^bert$")
    hidden_act: str = Field("gelu", pattern="^gelu$")
    hidden_size: int = Field(ge=1, le=8192)
    intermediate_size: int = Field(ge=1, le=65_536)
    num_attention_heads: int = Field(ge=1, le=256)
    num_hidden_layers: int = Field(ge=1, le=96)
    layer_norm_eps: float = Field(1e-12, gt=0, lt=1)
    position_embedding_type: str = Field("absolute", pattern="^absolute$")


def bert_graph(config: BertConfig, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Builds the graph: `input_ids` and `attention_mask`, int64 [N, T] -> `sentence`, float32 [N, hidden_size].

    Args:
        weights: by their names in BertModel, with or without `bert.` before them.

    Raises:
        DataError: a weight is missing or of another shape.
    """
    return _Builder(config, weights).model()


def places_of(weights: Mapping[str, np.ndarray]) -> int:
    """Tokens of the longest text that the model can read."""
    name = "embeddings.position_embeddings.weight"
    return len(weights[name] if name in weights else weights[f"bert.{name}"])


class _Builder:
    def __init__(self, config: BertConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config, self.weights, self.graph = config, weights, Graph()
        self.head = config.hidden_size // config.num_attention_heads

    def model(self) -> onnx.ModelProto:
        graph, config = self.graph, self.config
        for name in ("input_ids", "attention_mask"):
            graph.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]))
        mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        absent = graph.add("Mul", graph.add("Sub", graph.floats(1.0), mask), graph.floats(NOWHERE))
        absent = graph.add("Unsqueeze", absent, self.whole(1, 2))  # [N, 1, 1, T]: the same for all heads and queries
        hidden = self.norm(self.embeddings(), "embeddings.LayerNorm")
        for layer in range(config.num_hidden_layers):
            at = f"encoder.layer.{layer}"
            attended = self.dense(
                self.attention(hidden, absent, f"{at}.attention.self"), f"{at}.attention.output.dense"
            )
            hidden = self.norm(graph.add("Add", attended, hidden), f"{at}.attention.output.LayerNorm")
            inner = graph.add("Gelu", self.dense(hidden, f"{at}.intermediate.dense", config.intermediate_size))
            out = self.dense(inner, f"{at}.output.dense")
            hidden = self.norm(graph.add("Add", out, hidden), f"{at}.output.LayerNorm")
        column = graph.add("Unsqueeze", mask, self.whole(2))
        total = graph.add("ReduceSum", graph.add("Mul", hidden, column), self.whole(1), keepdims=0)
        tokens = graph.add("Max", graph.add("ReduceSum", column, self.whole(1), keepdims=0), graph.floats(1.0))
        vector = graph.add("LpNormalization", graph.add("Div", total, tokens), axis=-1, p=2)
        graph.output("sentence", vector, TensorProto.FLOAT, ["texts", config.hidden_size])
        return graph.model()

    def embeddings(self) -> str:
        """Sums of the embeddings of token, place and (the first) segment, [N, T, hidden]."""
        graph, size = self.graph, self.config.hidden_size
        words = graph.add("Gather", self.weight("embeddings.word_embeddings.weight", None, size), "input_ids")
        places = self.weight("embeddings.position_embeddings.weight", None, size)
        length = graph.add("Gather", graph.add("Shape", "input_ids"), self.whole(1))
        here = graph.add("Slice", places, self.whole(0), length, self.whole(0))
        segments = self.array("embeddings.token_type_embeddings.weight", None, size)
        return graph.add("Add", graph.add("Add", words, here), graph.constant(segments[0]))

    def attention(self, hidden: str, absent: str, at: str) -> str:
        """Self-attention of all heads, [N, T, hidden]."""
        graph = self.graph
        query, key, value = (self.heads(self.dense(hidden, f"{at}.{part}")) for part in ("query", "key", "value"))
        scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        scores = graph.add("Add", graph.add("Mul", scores, graph.floats(self.head**-0.5)), absent)
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        together = graph.add("Transpose", mixed, perm=[0, 2, 1, 3])
        return graph.add("Reshape", together, self.whole(0, 0, self.config.hidden_size))

    def heads(self, rows: str) -> str:
        """[N, T, hidden] -> [N, heads, T, hidden / heads]."""
        apart = self.graph.add("Reshape", rows, self.whole(0, 0, self.config.num_attention_heads, self.head))
        return self.graph.add("Transpose", apart, perm=[0, 2, 1, 3])

    def dense(self, rows: str, name: str, size: int | None = None) -> str:
        size = size or self.config.hidden_size
        matrix = self.array(f"{name}.weight", size, None)
        product = self.graph.add("MatMul", rows, self.graph.constant(np.ascontiguousarray(matrix.T)))
        return self.graph.add("Add", product, self.weight(f"{name}.bias", size))

    def norm(self, rows: str, name: str) -> str:
        scale, shift = (self.weight(f"{name}.{part}", self.config.hidden_size) for part in ("weight", "bias"))
        return self.graph.add("LayerNormalization", rows, scale, shift, axis=-1, epsilon=self.config.layer_norm_eps)

    def weight(self, name: str, *shape: int | None) -> str:
        return self.graph.constant(self.array(name, *shape))

    def array(self, name: str, *shape: int | None) -> np.ndarray:
        """A weight as float32; None in its shape is any size."""
        found = self.weights.get(name, self.weights.get(f"bert.{name}"))
        if found is None:
            raise DataError(f"the sentence model has no weight {name!r}")
        fits = found.ndim == len(shape) and all(
            want in (None, size) for want, size in zip(shape, found.shape, strict=True)
        )
        if not fits:
            raise DataError(f"the sentence model's weight {name!r} is {list(found.shape)}, wanted is {list(shape)}")
        return np.asarray(found, np.float32)

    def whole(self, *values: int) -> str:
        return self.graph.constant(np.array(values, np.int64))
