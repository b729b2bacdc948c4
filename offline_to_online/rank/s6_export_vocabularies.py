"""Writes what the online vocabularies of a scene have given out, for the next training; new tokens get their numbers first.

    s6_export_vocabularies.py                                 which release is live, and how many tokens there are
    s6_export_vocabularies.py --tokens FILE --out FOLDER      FILE: JSON, feature -> tokens; FOLDER: <feature>.json each

Once a scene is live its online vocabulary alone hands out ids, to the daily job too. Before that there is nothing to export, and
the answer names no feature.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from data_exchange_center.errors import DataError
from data_exchange_center.release import find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.vocabulary import Token
from data_exchange_center.workspace import read_json
from offline_to_online.rank.growing_vocabularies import growing_features
from online.stores.open import open_users
from online.stores.vocabulary_store import MAX_TOKENS, VocabularyStore

TIMEOUT_S = 30.0


def export_vocabularies(settings: Settings, tokens: Path | None = None, out: Path | None = None) -> dict[str, Any]:
    """Assigns and exports.

    Args:
        tokens: file of new tokens by feature; None: none are.
        out: folder that the vocabularies are written into; None: they are only counted.

    Returns:
        live: the scene's release, or None; features: name -> tokens, added, and refused for lack of room.

    Raises:
        StoreError: the store is away, or a vocabulary contradicts itself. DataError: the file is no map of lists of tokens.
    """
    given = _tokens(tokens) if tokens else {}
    with closing(open_users(settings)) as users:
        live = users.live(settings.scene, TIMEOUT_S)
        if live is None:
            return {"live": None, "features": {}}
        names = [feature.name for feature in growing_features(find_release(settings, live, verify=False))]
        found = {name: _exported(users.vocabularies, settings.scene, name, given.get(name, []), out) for name in names}
    return {"live": live, "features": found}


def _exported(
    store: VocabularyStore, scene: str, feature: str, tokens: Sequence[Token], out: Path | None
) -> dict[str, int]:
    added = full = 0
    for start in range(0, len(tokens), MAX_TOKENS):
        assigned = store.assign(scene, feature, tokens[start : start + MAX_TOKENS], TIMEOUT_S)
        added, full = added + assigned.added, full + assigned.full
    vocabulary = store.export(scene, feature)
    if out is not None:
        vocabulary.save(out)
    return {"tokens": len(vocabulary.ids), "added": added, "full": full}


def _tokens(path: Path) -> Mapping[str, list[Token]]:
    found = read_json(path)
    kinds = (int, str)
    good = isinstance(found, dict) and all(
        isinstance(tokens, list) and all(isinstance(token, kinds) and not isinstance(token, bool) for token in tokens)
        for tokens in found.values()
    )
    if not good:
        raise DataError(f"{path}: not a map of features to lists of tokens")
    return dict(found)


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("--tokens", help="JSON file of new tokens by feature")
    arguments.add_argument("--out", help="folder for the vocabularies")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return export_vocabularies(settings, *(Path(path) if path else None for path in (parsed.tokens, parsed.out)))

    run_step("s6_export_vocabularies", arguments, step, argv)


if __name__ == "__main__":
    main()
