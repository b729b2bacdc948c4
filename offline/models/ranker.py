"""The whole network of a fit: one trunk, a head for `like` and a head for `choose`, and their calibration.

    like     probability that the user likes an item that was shown; learned on exposed rows
    choose   orders candidates; learned on candidates with unexposed ones, calibrated as the chance that a candidate is chosen

Several members (settings `rank.towers`) are averaged as logits before calibration. Boosted trees, where a click run has
some, have their share of that logit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.workspace import atomic_path, read_json, write_json
from offline.models.numbers import HEADS, Head
from offline.models.registry import architecture, options_of, options_to_json
from offline.models.trees import Trees
from offline.models.trunk import Trunk

OUTPUTS = ("score", "like", "score_logit", "like_logit")
WEIGHTS_FILE, CONFIG_FILE = "network.safetensors", "network.json"


@dataclass(frozen=True)
class TreesPart:
    """Trees of a ranker.

    Attributes:
        count, depth: see `Trees`.
        share: weight of their logit; the members' mean has the rest.
    """

    count: int
    depth: int
    share: float


@dataclass(frozen=True)
class NetworkConfig:
    """All that rebuilds a network, as JSON.

    Attributes:
        model, options: architecture and its switches.
        rows: embedding rows by the feature that owns the table.
        members: networks whose logits are averaged.
        id_types: dtypes of user and item ids.
        heads: `choose` alone when the log holds positives only: there is nothing to learn `like` from, which repeats `choose`.
            `like` alone when nothing was recalled (rows of clicks): `score` repeats `like`.
        trees: on the numbers, beside the networks; None without.
    """

    model: str
    options: dict[str, Any]
    rows: dict[str, int]
    members: int
    id_types: tuple[str, str]
    heads: tuple[Head, ...] = HEADS
    trees: TreesPart | None = None


class Member(nn.Module):
    """One trunk with its two heads."""

    def __init__(self, spec: FeatureSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        entry = architecture(config.model)
        options = options_of(config.model, changes=config.options)
        self.trunk = Trunk(spec, config.rows, reads=entry.reads(options))
        self.heads = nn.ModuleDict({head: entry.build(self.trunk.shape(head), options) for head in config.heads})

    def logits(self, inputs: Mapping[str, Tensor]) -> dict[Head, Tensor]:
        """Uncalibrated logit of each head from encoded inputs, [*i]; what the heads share is computed once."""
        numbers, names = self.trunk.numbers(inputs), self.config.heads
        assembled = self.trunk.assemble(inputs, numbers[names[0]])
        return {head: self.heads[head](assembled._replace(numbers=numbers[head])) for head in names}


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
        self.trees = Trees(config.trees.count, config.trees.depth) if config.trees else None
        self.calibration: Tensor
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0]] * len(HEADS)))  # slope and offset per head

    def member(self, place: int) -> Member:
        """One of the averaged networks."""
        member = self.members[place]
        assert isinstance(member, Member)  # noqa: S101  # for the type checker: the list holds nothing else
        return member

    def add_trees(self, trees: Trees, share: float) -> None:
        """From now on they have their share of the logit of a ranker of single rows, which has the head `like` alone."""
        self.config = replace(self.config, trees=TreesPart(trees.count, trees.depth, share))
        self.trees = trees

    def logits(self, inputs: Mapping[str, Tensor]) -> dict[Head, Tensor]:
        """Calibrated logit of each head that there is; members averaged, and trees with them."""
        each = [self.member(place).logits(inputs) for place in range(len(self.members))]
        numbers = self.member(0).trunk.numbers(inputs)["like"].item if self.trees else None
        made = {}
        for head in self.config.heads:
            slope, offset = self.calibration[HEADS.index(head)]
            made[head] = self.averaged([logits[head] for logits in each], numbers) * slope + offset
        return made

    def averaged(self, logits: Sequence[Tensor], numbers: Tensor | None) -> Tensor:
        """Logits of the members, and that of the trees where there are some, as one before calibration, [*i].

        Args:
            numbers: [*i, m] of the item's side, which trees read.
        """
        mean = logits[0] if len(logits) == 1 else torch.stack(list(logits)).mean(0)
        if self.trees is None or self.config.trees is None:
            return mean
        share = self.config.trees.share
        added: Tensor = mean * (1 - share) + self.trees(numbers) * share
        return added

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits = self.logits(inputs)
        only = logits[self.config.heads[0]]
        score_logit, like_logit = logits.get("choose", only), logits.get("like", only)
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
                "heads": list(config.heads),
                "trees": asdict(config.trees) if config.trees else None,
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
                tuple(content["heads"]),
                TreesPart(**content["trees"]) if content.get("trees") else None,
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
    heads: tuple[Head, ...] = HEADS,
    **changes: Any,
) -> NetworkConfig:
    """The configuration of a preset.

    Raises:
        SettingsError: no such model, preset or option.
    """
    return NetworkConfig(model, options_to_json(options_of(model, preset, changes)), rows, members, id_types, heads)
