"""The `--cut` of the recall steps, and the cut that a release is served from."""

from __future__ import annotations

import argparse

from data_exchange_center.settings import Settings
from data_exchange_center.step import parser
from data_exchange_center.workspace import CUTS


def serving_cut(settings: Settings) -> str:
    """What a release knows: every row before the held-out online ones, or every row."""
    return "offline" if settings.split.holdout == "online" else "all"


def cut_parser(description: str) -> argparse.ArgumentParser:
    """A step's parser with `--cut`."""
    made = parser(description)
    made.add_argument("--cut", choices=CUTS, help="which rows are known (default: those that a release is served from)")
    return made


def chosen_cut(settings: Settings, arguments: argparse.Namespace) -> str:
    """The cut asked for, else the serving one."""
    return arguments.cut or serving_cut(settings)
