"""What every step script shares: the command line, the summary on stderr and the JSON object that ends stdout."""

from __future__ import annotations

import argparse
import errno
import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tqdm import tqdm

from data_exchange_center.errors import DiskError, MarqueeError
from data_exchange_center.settings import Settings, load_settings

log = logging.getLogger("marquee")

# command-line option -> the setting it stands for
COMMON_OPTIONS = {
    "dataset": "data.dataset",
    "data": "data.source",
    "store": "data.store",
    "seed": "seed",
    "protocol": "split.protocol",
    "holdout": "split.holdout",
}


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps a description's lines, and shows a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, "", []) else super()._get_help_string(action)


OPTION_HELP: dict[str, dict[str, Any]] = {
    "dataset": {
        "help": "ml-100k, ml-1m, ml-latest-small, ml-20m, ml-25m, ml-32m, synthetic, a YAML of one's own; criteo, criteo-synthetic"
    },
    "data": {"help": "a local copy: folder or archive in the publisher's layout"},
    "store": {"help": "folder for all artifacts"},
    "seed": {"type": int, "help": "seed of every random choice"},
    "protocol": {"choices": ["per_user", "global_time"], "help": "how rows are split"},
    "holdout": {"choices": ["online", "none"], "help": "what a release must not have seen"},
}


def parser(description: str, common: Collection[str] = tuple(COMMON_OPTIONS)) -> argparse.ArgumentParser:
    """A parser with the options that steps share; a step adds its own.

    Args:
        description: shown by --help.
        common: those of COMMON_OPTIONS that the step heeds; any other is an error, not silently without effect.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=_Formatter)
    made.add_argument("--settings", help="TOML file of settings (default: marquee.toml in the root, when there)")
    for option in COMMON_OPTIONS:
        if option in common:
            made.add_argument(f"--{option}", **OPTION_HELP[option])
    made.add_argument("--quiet", action="store_true", help="no progress bars and summaries")
    return made


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Settings with the common options applied over file and environment."""
    chosen = {
        dotted: getattr(arguments, option)
        for option, dotted in COMMON_OPTIONS.items()
        if getattr(arguments, option, None) is not None
    }
    if arguments.quiet:
        os.environ["TQDM_DISABLE"] = "1"  # for the programs that this one starts: tqdm reads it once, when imported
        tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # type: ignore[assignment]
    return load_settings(arguments.settings).with_values(**chosen)


def run_step(
    name: str,
    arguments: argparse.ArgumentParser,
    step: Callable[[Settings, argparse.Namespace], Mapping[str, Any]],
    argv: list[str] | None = None,
) -> None:
    """Runs one step as a program and exits: 0 when it ended well, 1 when its result says `ok: false`, 2 on a known error.

    Args:
        name: shown in the summary and the JSON.
        arguments: made by `parser`, with the step's own options added.
        step: gets the settings and the parsed arguments, returns what it read, wrote and measured (JSON values).
        argv: the command line; by default `sys.argv[1:]`.
    """
    parsed = arguments.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING if parsed.quiet else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    for noisy in ("elastic_transport", "httpx", "feast", "onnxscript", "onnx_ir", "torch", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    started = time.perf_counter()
    try:
        try:
            result = dict(step(settings_from(parsed), parsed))
        except OSError as error:
            raise (_of_the_disk(error) or error) from error
    except MarqueeError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        print(
            json.dumps(
                {
                    "step": name,
                    "ok": False,
                    "error": {"code": error.code, "message": error.message, "field": error.field},
                }
            )
        )
        raise SystemExit(2) from error
    result = {"step": name, "ok": True, **result, "seconds": round(time.perf_counter() - started, 3)}
    for key, value in result.items():
        log.info("  %-24s %s", key, value)
    print(json.dumps(result, ensure_ascii=False), flush=True)
    raise SystemExit(0 if result["ok"] else 1)


def _of_the_disk(error: OSError) -> DiskError | None:
    """What a person can do something about: no room, or no right to write; None for any other problem."""
    advice = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
        errno.ENOTDIR: "a file stands where a folder is wanted: choose another one (STORE=)",
        errno.EROFS: "choose a folder that can be written (STORE=)",
        errno.EACCES: "give this user the right to it, or choose another folder (STORE=)",
        errno.EPERM: "give this user the right to it, or choose another folder (STORE=)",
    }.get(error.errno or (errno.ENOSPC if "requested and" in str(error) else 0))  # NumPy gives no number
    if advice is None:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return DiskError(f"{place}{error.strerror or error}; {advice}, then run it again: nothing half-written was kept")
