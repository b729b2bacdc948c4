"""Compares what a server answered with what the release says: values, then scores, and names the worst difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_exchange_center.feature_spec import Feature
from data_exchange_center.recall_scores import top_rows
from offline_to_online.rank.offline_reference import OfflineReference
from offline_to_online.rank.parity_requests import ParityRequest
from online.stores.ports import RecentEvent

Id = int | str
Score = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

SCORE_TOLERANCE = 1e-5
LOGIT_TOLERANCE = 1e-4
RECALL_TOLERANCE = 1e-5  # relative, of a recall score: float32 sums in another order
SUM_TOLERANCE = 2.0**-21  # relative, of a sum of many events that later ones were added to
MODEL = "(model)"  # stands for a feature where all features agree and the score does not


@dataclass(frozen=True)
class Difference:
    """One value that differs, served against offline."""

    user: Id
    item: Id | None
    feature: str
    served: Any
    offline: Any

    def __str__(self) -> str:
        return (
            f"user {self.user!r}, item {self.item!r}, {self.feature}: served {self.served!r}, offline {self.offline!r}"
        )


@dataclass
class Findings:
    """Everything that a run of the check found.

    Attributes:
        requests, scores: how much was compared; a score and a like count one each.
        values: feature values compared.
        differences: how many values differ, by feature; examples: the first of each feature.
        max_abs_delta, max_logit_delta: over scores and likes. worst: where the former is.
        degraded: answers that had to do without a part, by part.
    """

    requests: int = 0
    scores: int = 0
    values: int = 0
    max_abs_delta: float = 0.0
    max_logit_delta: float = 0.0
    worst: tuple[Id | None, Id | None] = (None, None)
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Difference] = field(default_factory=dict)
    degraded: Counter[str] = field(default_factory=Counter)

    def differs(self, difference: Difference, count: int = 1) -> None:
        """Notes that a value differs."""
        self.differences[difference.feature] += count
        self.examples.setdefault(difference.feature, difference)

    @property
    def ok(self) -> bool:
        """Something was compared, and nothing differs beyond the tolerances."""
        return (
            self.scores > 0
            and not self.differences
            and not self.degraded
            and self.max_abs_delta <= SCORE_TOLERANCE
            and self.max_logit_delta <= LOGIT_TOLERANCE
        )

    def named(self) -> dict[str, Any]:
        """User, item and feature of the worst difference: of a value where one differs, else of the scores."""
        if self.examples:
            feature = self.differences.most_common(1)[0][0]
            example = self.examples[feature]
            return {"user": example.user, "item": example.item, "feature": feature}
        beyond = self.max_abs_delta > SCORE_TOLERANCE or self.max_logit_delta > LOGIT_TOLERANCE
        return {"user": self.worst[0], "item": self.worst[1], "feature": MODEL if beyond else None}


class Comparison:
    """Compares one answer after the other.

    Args:
        reference: the offline side's inputs.
        score: the offline side's model.
        per_channel: items that the server asks of each channel.
        clock: the server's `clock` setting.
    """

    def __init__(self, reference: OfflineReference, score: Score, per_channel: int, clock: str) -> None:
        self.reference, self._score, self._per_channel, self._clock = reference, score, per_channel, clock
        self.findings = Findings()
        self._expected: Counter[Id] = Counter()
        self._missing: dict[Id, list[Difference]] = {}

    def add(self, request: ParityRequest, answer: dict[str, Any], accepted: Sequence[RecentEvent] = ()) -> None:
        """Compares one answer with what the release says.

        Args:
            accepted: the user's events that the stores had accepted when the request came.
        """
        self.reference.follow(request.user, accepted, request.now)
        self.findings.requests += 1
        self.findings.degraded.update(answer["degraded"])
        if request.path == "/ml/score":
            ids, entries = answer["itemids"], answer["items"]
            score, like = answer["score"], answer["like"]
        else:
            entries = answer["item_list"]
            ids = [entry["itemid"] for entry in entries]
            score, like = [entry["score"] for entry in entries], [entry["like"] for entry in entries]
        if not ids:
            return
        now = self._now(request, entries[0]["features"])
        offline = self.reference.inputs(request.user, ids, now)
        self._values(request.user, ids, [entry["features"] for entry in entries], offline)
        self._scores(request.user, ids, {"score": score, "like": like}, entries, self._score(offline))
        if request.path == "/ml/rec":
            self._channels(request, ids, entries)

    def finish(self) -> Findings:
        """Also judges items that the index does not find: one miss may be an approximation, missing always is not."""
        for item, missed in self._missing.items():
            if 2 * len(missed) > self._expected[item]:
                self.findings.differs(missed[0], len(missed))
        return self.findings

    def _now(self, request: ParityRequest, served: dict[str, Any]) -> int:
        """The moment that the request was for. Events that came after the release move the server's clock, never back."""
        if request.now is not None:
            return request.now
        earliest = self.reference.last_timestamp(request.user) + 1
        clock = served.get("now", earliest)
        return clock if self._clock == "wall" or clock > earliest else earliest

    def _values(self, user: Id, ids: list[Id], served: list[dict[str, Any]], offline: dict[str, np.ndarray]) -> None:
        for feature in self.reference.spec.inputs:
            expected = offline[feature.name]
            shared = feature.entity in ("user", "context")
            rows = served[:1] if shared else served
            if any(feature.name not in row for row in rows):
                self.findings.differs(Difference(user, None, feature.name, None, expected[0].tolist()))
                continue
            got = np.array([row[feature.name] for row in rows], expected.dtype)
            self.findings.values += expected.size
            for place in np.flatnonzero(unequal(feature, got, expected, followed=self.reference.follows(user))):
                item = None if shared else ids[place]
                difference = Difference(user, item, feature.name, got[place].tolist(), expected[place].tolist())
                self.findings.differs(difference)

    def _scores(
        self,
        user: Id,
        ids: list[Id],
        served: dict[str, list[float]],
        entries: list[dict[str, Any]],
        offline: Mapping[str, np.ndarray],
    ) -> None:
        for head, values in served.items():
            delta = np.abs(np.array(values, np.float64) - offline[head])
            self.findings.scores += len(delta)
            worst = int(delta.argmax())
            if delta[worst] > self.findings.max_abs_delta or self.findings.worst[0] is None:
                self.findings.max_abs_delta = max(float(delta[worst]), self.findings.max_abs_delta)
                self.findings.worst = (user, ids[worst])
            if any(entry["logits"] is None for entry in entries):
                self.findings.differs(Difference(user, ids[worst], MODEL, None, float(offline[head][worst])))
                continue
            logits = np.array([entry["logits"][head] for entry in entries], np.float64)
            apart = np.abs(logits - offline[f"{head}_logit"])
            self.findings.max_logit_delta = max(float(apart.max()), self.findings.max_logit_delta)

    def _channels(self, request: ParityRequest, ids: list[Id], entries: list[dict[str, Any]]) -> None:
        """The scores with which the index found items, and whether it found what it should have."""
        reference = self.reference
        catalog = reference.arrays.catalog_scores(reference.taste(request.user))
        eligible = reference.eligible(request.user, request.body)
        rows = np.array([reference.item_rows[item] for item in ids])
        for channel in ("vector", "term"):
            scores = catalog[f"recall_{channel}"]
            for item, row, entry in zip(ids, rows, entries, strict=True):
                found = entry["channels"].get(channel)
                if found is not None and not close(found["score"], float(scores[row])):
                    named = f"index:{channel}"
                    self.findings.differs(Difference(request.user, item, named, found["score"], float(scores[row])))
            if channel not in request.body.get("channels", [channel]):
                continue
            due = top_rows(scores, eligible & (scores != 0), self._per_channel)
            certain = set(due[scores[due] > scores[due[-1]] + RECALL_TOLERANCE].tolist()) if len(due) else set()
            for item, row, entry in zip(ids, rows.tolist(), entries, strict=True):
                if row in certain:
                    self._expected[item] += 1
                    if channel not in entry["channels"]:
                        missed = Difference(request.user, item, f"index:{channel}", None, float(scores[row]))
                        self._missing.setdefault(item, []).append(missed)


def close(served: float, offline: float) -> bool:
    """Whether two recall scores are the same but for the order of float32 sums."""
    return abs(served - offline) <= RECALL_TOLERANCE * max(1.0, abs(offline))


def unequal(feature: Feature, served: np.ndarray, offline: np.ndarray, *, followed: bool) -> np.ndarray:
    """Bool per row: stored values are the same to the bit, but for the order of float32 sums in recall scores.

    Args:
        followed: later events were added to the user's sums, which their float32 may round otherwise than offline does once.
    """
    if served.shape != offline.shape:
        return np.ones(len(offline), bool)
    if feature.entity == "candidate":
        apart = ~(np.abs(served - offline) <= RECALL_TOLERANCE * np.maximum(1.0, np.abs(offline)))
    elif followed and feature.entity == "user" and offline.dtype == np.float32:
        apart = ~(np.abs(served - offline) <= SUM_TOLERANCE * np.maximum(1.0, np.abs(offline)))
    else:
        apart = served != offline
    return np.asarray(apart.reshape(len(offline), -1).any(axis=1))
