"""All offline stages in order: raw log -> a release. Stages whose inputs, settings and code did not change are not run again."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import Workspace
from offline.datasets.criteo import CLICK_DATASETS
from offline.preprocess.s1_data_split import split_data
from offline.preprocess.s2_term_trans import compute_features, cuts_of
from offline.rank.s1_feature_engi import engineer_features
from offline.rank.s2_model_train import train_model
from offline.rank.s3_evaluate import evaluate_ranking
from offline.recall.all_channels import fit_recall
from offline.release.s1_pack_release import pack_release
from offline.s0_run_clicks import run_clicks
from offline.stages import Stage, run_stages

RANK_CODE = ("offline/models", "offline/training", "offline/rank", "offline/recall")
RANK_SETTINGS = ("seed", "rank")


def stages_of(settings: Settings) -> list[Stage]:
    """The chain, in order. What does not depend on the seed leaves its record beside the data, for all seeds."""
    workspace = Workspace(settings)
    data, fits = workspace.run / "stages", workspace.seed / "stages"
    rank = workspace.rank
    return [
        Stage(
            "split",
            split_data,
            ("data.dataset", "data.positive_above", "split"),
            ("offline/datasets", "offline/preprocess/split.py", "offline/preprocess/s1_data_split.py"),
            (workspace.split,),
            data,
            always=True,  # it finds out whether the raw data changed
        ),
        Stage("features", compute_features, ("features",), ("offline/preprocess",), (workspace.features,), data),
        *(
            Stage(
                f"recall_{cut}",
                partial(_recall, cut=cut),
                ("seed", "recall"),
                ("offline/recall",),
                (workspace.recall(cut),),
                fits,
            )
            for cut in cuts_of(settings)
        ),
        Stage("rank_features", engineer_features, RANK_SETTINGS, RANK_CODE, (rank,), fits),
        Stage("rank_model", train_model, RANK_SETTINGS, RANK_CODE, (rank,), fits),
        Stage("rank_evaluation", evaluate_ranking, RANK_SETTINGS, RANK_CODE, (rank / "evaluation.json",), fits),
    ]


def _recall(settings: Settings, cut: str) -> Mapping[str, Any]:
    return fit_recall(settings, cut)


def run_offline(settings: Settings, *, again: bool = False) -> dict[str, Any]:
    """Runs what is not up to date, and packs a release.

    Args:
        settings: the sections data, split, features, recall and rank decide, and the seed.
        again: run every stage.

    Returns:
        The release (see pack_release), the main figures, and `stages`: seconds of each, 0 when it was up to date.
    """
    results = run_stages(settings, stages_of(settings), again=again)
    recall = results[f"recall_{cuts_of(settings)[-1]}"]
    return {
        **pack_release(settings),
        "rank": results["rank_evaluation"]["rank"],
        "recall": recall.get("recall", {}),
        "union": recall.get("union", {}),
        "stages": {name: 0.0 if result["reused"] else result["seconds"] for name, result in results.items()},
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser(
        "Raw log (or clicks, see s0_run_clicks.py) to a release: every offline stage that is not up to date."
    )
    options.add_argument("--again", action="store_true", help="run every stage, up to date or not")

    def step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
        if settings.data.dataset in CLICK_DATASETS:
            return run_clicks(settings, again=arguments.again)
        return run_offline(settings, again=arguments.again)

    run_step("offline", options, step, argv)


if __name__ == "__main__":
    main()
