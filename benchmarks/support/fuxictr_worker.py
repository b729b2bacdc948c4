"""Trains FuxiCTR's DeepFM on encoded rows, in FuxiCTR's own environment (benchmarks/train.py makes it and runs this there).

    <python with fuxictr> fuxictr_worker.py <folder> <batch size> <learning rate> <seed>

The folder holds train_ids.npy and test_ids.npy (int32 [R, F]), train_labels.npy (float32 [R]) and sizes.json (ids per field), and
of each seed order-<seed>.npy (int64 [R], in which the rows are learned) and initial-<seed>.npz (weights to begin with: field-<n>
[ids, size + 1] with the first-order weight last, weight-<n> and bias-<n> of the MLP); the worker adds predictions-<seed>.npy
(float32 [test rows]). The model is put together from the package's layers as its model zoo does it, and each step is the package's
own `train_step`. Batches are sliced from arrays in memory: no reader of the package's slows it.
The last line on stdout is a JSON object.
"""

import json
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

SIZE, HIDDEN = 16, [400, 400, 400]
WARM_UP = 3  # steps of a network that is thrown away


class DeepFM(BaseModel):
    def __init__(self, feature_map: Any, folder: Path, rate: float) -> None:
        super().__init__(
            feature_map, task="binary_classification", gpu=-1, verbose=0, model_root=str(folder), metrics=["AUC"]
        )
        self.embedding_layer = FeatureEmbedding(feature_map, SIZE)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=HIDDEN,
            hidden_activations="ReLU",
            output_activation=None,
            dropout_rates=0,
            batch_norm=False,
        )
        self.compile("adam", "binary_crossentropy", rate)
        self.reset_parameters()
        self._max_gradient_norm = 10.0

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        given = self.get_inputs(inputs)
        embedded = self.embedding_layer(given)
        logit = self.fm(given, embedded) + self.mlp(embedded.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logit)}


def feature_map_of(sizes: list[int], folder: Path) -> Any:
    made = FeatureMap("clicks", str(folder))
    made.labels = ["label"]
    made.features = OrderedDict(
        (f"f{place}", {"type": "categorical", "source": "", "vocab_size": size, "padding_idx": 0})
        for place, size in enumerate(sizes)
    )
    made.num_fields, made.total_features, made.input_length = len(sizes), sum(sizes), len(sizes)
    made.default_emb_dim = SIZE
    made.set_column_index()
    return made


@torch.no_grad()
def begin(model: DeepFM, weights: Any) -> None:
    """Puts weights of another DeepFM into this one."""
    vectors = model.embedding_layer.embedding_layer.embedding_layers
    first_order = model.fm.lr_layer.embedding_layer.embedding_layer.embedding_layers
    for place in range(len(vectors)):
        rows = torch.from_numpy(weights[f"field-{place}"])
        vectors[f"f{place}"].weight.copy_(rows[:, :-1])
        first_order[f"f{place}"].weight.copy_(rows[:, -1:])
    for place, layer in enumerate(module for module in model.mlp.modules() if isinstance(module, torch.nn.Linear)):
        layer.weight.copy_(torch.from_numpy(weights[f"weight-{place}"]))
        layer.bias.copy_(torch.from_numpy(weights[f"bias-{place}"]))


def batches(
    ids: torch.Tensor, labels: torch.Tensor, size: int, order: torch.Tensor
) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, len(ids), size):
        taken = order[start : start + size]
        block = ids[taken].long()
        yield {f"f{place}": block[:, place] for place in range(block.shape[1])} | {"label": labels[taken]}


def main() -> None:
    folder, size, rate, seed = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    seed_everything(seed)
    ids, test = (torch.from_numpy(np.load(folder / f"{part}_ids.npy")) for part in ("train", "test"))
    labels = torch.from_numpy(np.load(folder / "train_labels.npy"))
    feature_map = feature_map_of(json.loads((folder / "sizes.json").read_text()), folder)
    warm = DeepFM(feature_map, folder, rate).train()
    for _, batch in zip(range(WARM_UP), batches(ids, labels, size, torch.arange(len(ids))), strict=False):
        warm.train_step(batch)
    model = DeepFM(feature_map, folder, rate).train()
    begin(model, np.load(folder / f"initial-{seed}.npz"))
    order = torch.from_numpy(np.load(folder / f"order-{seed}.npy"))
    wall, processor, loss = time.perf_counter(), time.process_time(), 0.0
    for batch in batches(ids, labels, size, order):
        loss += model.train_step(batch).item() * len(batch["label"])
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    model.eval()
    with torch.no_grad():
        made = [
            model(batch)["y_pred"][:, 0]
            for batch in batches(test, torch.zeros(len(test)), 16_384, torch.arange(len(test)))
        ]
    np.save(folder / f"predictions-{seed}.npy", torch.cat(made).numpy())
    print(json.dumps({"seconds": wall, "cpu_seconds": processor, "rows": len(ids), "train_loss": loss / len(ids)}))


if __name__ == "__main__":
    main()
