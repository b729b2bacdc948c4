"""The whole network of a fit: one trunk, a head for `like` and a head for `choose`, and their calibration.

    like     probability that the user likes an item that was shown; learned on exposed rows
    choose   orders candidates; learned on candidates with unexposed ones, calibrated as the chance that a candidate is chosen

Several members (settings `rank.towers`) are averaged as logits before calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_exchange_center.encoder import ENCODED, RAW, encoded_inputs, raw_inputs
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.workspace import atomic_path, read_json, write_json
from offline.models.registry import architecture, options_of, options_to_json
from offline.models.trunk import HEADS, Head, Trunk

OUTPUTS = ("score", "like", "score_logit", "like_logit")
WEIGHTS_FILE, CONFIG_FILE = "network.safetensors", "network.json"


@dataclass(frozen=True)
class NetworkConfig:
    """All that rebuilds a network, as JSON.

    Attributes:
        model, options: architecture and its switches.
        rows: embedding rows by the feature that owns the table.
        members: networks whose logits are averaged.
        id_types: dtypes of user and item ids.
        has_like: false when the log holds positives only: there is nothing to learn `like` from, and `like` repeats `choose`.
    """

    model: str
    options: dict[str, Any]
    rows: dict[str, int]
    members: int
    id_types: tuple[str, str]
    has_like: bool = True


class Member(nn.Module):
    """One trunk with its two heads."""

    def __init__(self, spec: FeatureSpec, config: NetworkConfig) -> None:
        super().__init__()
        entry = architecture(config.model)
        tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in config.options.items()}
        options = options_of(config.model, changes=tuples)
        self.trunk = Trunk(spec, config.rows, reads=entry.reads(options))
        self.heads = nn.ModuleDict({head: entry.build(self.trunk.shape(head), options) for head in HEADS})

    def logit(self, inputs: Mapping[str, Tensor], head: Head) -> Tensor:
        """Uncalibrated logit of a head from encoded inputs, [*i]."""
        return self.heads[head](self.trunk.assemble(inputs, self.trunk.numbers(inputs, head)))


class Ranker(nn.Module):
    """Encoded inputs -> (score, like, score_logit, like_logit), each float32 [*i].

    Args:
        spec: the scene's features.
        config: architecture and sizes.
    """

    def __init__(self, spec: FeatureSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.members = nn.ModuleList(Member(spec, config) for _ in range(config.members))
        self.calibration: Tensor
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0]] * len(HEADS)))  # slope and offset per head

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in the order that `ordered` takes them."""
        return [ENCODED + feature.name for feature in encoded_inputs(self.spec)] + [
            RAW + feature.name for feature in raw_inputs(self.spec)
        ]

    def member(self, place: int) -> Member:
        """One of the averaged networks."""
        member = self.members[place]
        assert isinstance(member, Member)  # noqa: S101  # for the type checker: the list holds nothing else
        return member

    def logits(self, inputs: Mapping[str, Tensor], head: Head) -> Tensor:
        """Calibrated logit of a head, members averaged."""
        total = torch.stack([self.member(place).logit(inputs, head) for place in range(len(self.members))]).mean(0)
        slope, offset = self.calibration[HEADS.index(head)]
        return total * slope + offset

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        score_logit = self.logits(inputs, "choose")
        like_logit = self.logits(inputs, "like") if self.config.has_like else score_logit
        return torch.sigmoid(score_logit), torch.sigmoid(like_logit), score_logit, like_logit

    def save(self, folder: Path) -> None:
        """Writes the weights (safetensors) and what rebuilds the network (JSON), each atomically."""
        with atomic_path(folder / WEIGHTS_FILE) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, temporary)
        config = self.config
        write_json(
            folder / CONFIG_FILE,
            {
                "model": config.model,
                "options": config.options,
                "rows": config.rows,
                "members": config.members,
                "id_types": list(config.id_types),
                "has_like": config.has_like,
                "numbers": self.member(0).trunk.all_numbers,
                "spec": self.spec.model_dump(mode="json"),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Reads what `save` wrote, ready for inference.

        Raises:
            DataError: a file is missing, broken, or does not fit the other.
        """
        content = read_json(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        try:
            spec = FeatureSpec.model_validate(content["spec"])
            config = NetworkConfig(
                content["model"],
                content["options"],
                content["rows"],
                content["members"],
                (content["id_types"][0], content["id_types"][1]),
                content["has_like"],
            )
            ranker = cls(spec, config)
            ranker.load_state_dict(load_file(path))
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise DataError(f"{path}: not the weights of {folder / CONFIG_FILE}: {error}") from error
        return ranker.eval()


def config_for(
    model: str,
    preset: str,
    rows: dict[str, int],
    members: int,
    id_types: tuple[str, str],
    has_like: bool,
    **changes: Any,
) -> NetworkConfig:
    """The configuration of a preset.

    Raises:
        SettingsError: no such model, preset or option.
    """
    return NetworkConfig(model, options_to_json(options_of(model, preset, changes)), rows, members, id_types, has_like)
