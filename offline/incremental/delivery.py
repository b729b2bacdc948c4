"""How a promoted run leaves the job: nowhere, as a release on disk, or live in every store.

The online side is asked and changed by programs of its own (offline never imports it): which release is live, what numbers
its vocabularies have given out, and the flip.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from data_exchange_center.errors import DataError, ReleaseError
from data_exchange_center.programs import run_program
from data_exchange_center.release import find_release, list_releases
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace, sha256, write_json
from offline.incremental.journal import DayJournal
from offline.incremental.scene import Scene
from offline.incremental.state import JobState
from offline.models.ranker import WEIGHTS_FILE
from offline.rank.click_run import NETWORK

PUBLISH = "offline_to_online/publish.py"
ONLINE_STATE = "offline_to_online/rank/s6_export_vocabularies.py"
PROGRAM_S = 600.0

Vocabularies = Mapping[str, Vocabulary]


class Delivery(Protocol):
    """What the job asks."""

    def as_live(self, state: JobState) -> JobState:
        """The state with the run last that is live, when somebody has rolled back since."""
        ...

    def numbered(self, grown: Vocabularies, known: Vocabularies) -> dict[str, Vocabulary]:
        """The day's vocabularies with the numbers that hold online."""
        ...

    def deliver(self, scene: Scene, run: Path, note: Mapping[str, Any], journal: DayJournal) -> str:
        """Releases a run and makes it live; returns the release's id, "" without one."""
        ...


class Nowhere:
    """Runs are promoted and not released: for experiments."""

    def as_live(self, state: JobState) -> JobState:
        return state

    def numbered(self, grown: Vocabularies, known: Vocabularies) -> dict[str, Vocabulary]:
        return dict(grown)

    def deliver(self, scene: Scene, run: Path, note: Mapping[str, Any], journal: DayJournal) -> str:
        return ""


class Released:
    """Runs become releases; with `incremental.publish` they go live."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self._publishes = settings, settings.incremental.publish

    def as_live(self, state: JobState) -> JobState:
        """See Delivery.

        Raises:
            DataError: what is live is no run of the job, or one whose folder is gone. What a job made live that was killed
                before it could say so is no contradiction: the job that is run again says it.
        """
        if not self._publishes:
            return state
        live = run_program(ONLINE_STATE, [], self.settings, PROGRAM_S)["live"]
        known = [one.release for one in state.promoted]
        if not live or live == known[-1] or (live not in known and self._of_a_killed_job(live)):
            return state
        if live not in known:
            raise DataError(
                f"release {live} of scene {self.settings.scene} is live, and the daily job has no run of it (it has "
                f"{', '.join(known)}); publish one of these, or begin anew with s1_init_train.py on an empty folder"
            )
        return state.with_values(promoted=state.promoted[: known.index(live) + 1])

    def numbered(self, grown: Vocabularies, known: Vocabularies) -> dict[str, Vocabulary]:
        """See Delivery; where the scene is not live yet, the numbers are those of the fit."""
        if not self._publishes or not grown:
            return dict(grown)
        tokens = {
            name: [token for token in vocabulary.tokens if token is not None and not _knows(known, name, token)]
            for name, vocabulary in grown.items()
        }
        with tempfile.TemporaryDirectory(prefix="vocabularies-") as place:
            folder = Path(place)
            write_json(folder / "tokens.json", tokens)
            arguments = ["--tokens", str(folder / "tokens.json"), "--out", str(folder / "online")]
            found = run_program(ONLINE_STATE, arguments, self.settings, PROGRAM_S)["features"]
            return {
                name: Vocabulary.load(folder / "online", name) if name in found else vocabulary
                for name, vocabulary in grown.items()
            }

    def deliver(self, scene: Scene, run: Path, note: Mapping[str, Any], journal: DayJournal) -> str:
        full = {**note, "network_sha256": sha256(run / NETWORK / WEIGHTS_FILE)}
        release = str(journal.once("release", lambda: self._packed_before(full) or scene.release(run, full)))
        if self._publishes:
            run_program(PUBLISH, ["--release", release], self.settings, PROGRAM_S)
        return release

    def _of_a_killed_job(self, live: str) -> bool:
        """Whether the release was made of a run that lies among the job's."""
        try:
            note = find_release(self.settings, live, verify=False).manifest.get("incremental", {})
        except ReleaseError:
            return False
        run = Workspace(self.settings).incremental / "runs" / str(note.get("run", ""))
        weights = run / NETWORK / WEIGHTS_FILE
        return weights.is_file() and sha256(weights) == note.get("network_sha256")

    def _packed_before(self, note: Mapping[str, Any]) -> str:
        """The release of a job that was killed before it could note it; "" when there is none."""
        for release in reversed(list_releases(self.settings)):
            if find_release(self.settings, release, verify=False).manifest.get("incremental") == note:
                return release
        return ""


def _knows(known: Vocabularies, name: str, token: int | str) -> bool:
    return name in known and token in known[name].ids
