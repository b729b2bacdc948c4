"""The contract of vocabularies that grow online, on every adapter."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.tokens import MAX_TOKEN_BYTES, cleaned
from data_exchange_center.vocabulary import FIRST, UNKNOWN, Vocabulary
from online.pipeline.online_vocabulary import OnlineVocabulary
from online.stores.open import open_users
from online.stores.vocabulary_store import VocabularyStore
from tests.contract.backends import Backend

SCENE, FEATURE, SECONDS = "shop", "brand", 5.0


@pytest.fixture(autouse=True)
def _empty(vocabularies: VocabularyStore) -> Iterator[None]:
    yield
    vocabularies.drop(SCENE, FEATURE)


def test_what_was_seeded_keeps_its_ids_and_new_tokens_follow(vocabularies: VocabularyStore) -> None:
    assert vocabularies.seed(SCENE, Vocabulary(FEATURE, ("Audi", "宝马"), 5)) == 2
    found = vocabularies.assign(SCENE, FEATURE, ["宝马", "奔驰", "Audi", "奔驰", "Fiat"], SECONDS)
    assert found.ids.tolist() == [FIRST + 1, FIRST + 2, FIRST, FIRST + 2, FIRST + 3]
    assert (found.added, found.full) == (2, 0)
    assert vocabularies.export(SCENE, FEATURE).tokens == ("Audi", "宝马", "奔驰", "Fiat")


def test_a_full_vocabulary_answers_unknown_and_counts(vocabularies: VocabularyStore) -> None:
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a",), 2))
    found = vocabularies.assign(SCENE, FEATURE, ["b", "c", "d", "a"], SECONDS)
    assert found.ids.tolist() == [FIRST + 1, UNKNOWN, UNKNOWN, FIRST]
    assert (found.added, found.full) == (1, 2)


def test_a_client_brings_no_more_new_tokens_than_its_rate(vocabularies: VocabularyStore) -> None:
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a",), 50))
    first = vocabularies.assign(SCENE, FEATURE, [f"x{n}" for n in range(5)], SECONDS, "one", 3)
    again = vocabularies.assign(SCENE, FEATURE, ["a", "y", "x0"], SECONDS, "one", 3)
    other = vocabularies.assign(SCENE, FEATURE, ["y"], SECONDS, "two", 3)
    assert (first.added, first.limited) == (3, 2)
    assert again.ids.tolist() == [FIRST, UNKNOWN, FIRST + 1] and again.limited == 1
    assert other.added == 1
    assert vocabularies.assign(SCENE, FEATURE, ["never"], SECONDS, "three", 0).ids.tolist() == [UNKNOWN]


def test_seeding_twice_adds_nothing_and_a_contradiction_changes_nothing(vocabularies: VocabularyStore) -> None:
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a", "b"), 9))
    vocabularies.assign(SCENE, FEATURE, ["c"], SECONDS)
    assert vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a", "b", "c"), 9)) == 0
    for wrong, says in (
        (Vocabulary(FEATURE, ("b", "a"), 9), "id 2 there and 3 here"),
        (Vocabulary(FEATURE, ("a", "b", "z"), 9), "belongs to another token"),
        (Vocabulary(FEATURE, ("a", "b", "c"), 8), "capacity 8 is below 9"),
    ):
        with pytest.raises(StoreError, match=says):
            vocabularies.seed(SCENE, wrong)
    assert vocabularies.export(SCENE, FEATURE).tokens == ("a", "b", "c")


def test_many_tokens_and_holes_come_back_as_they_were(vocabularies: VocabularyStore) -> None:
    whole = Vocabulary(FEATURE, tuple(range(2500)), 2500).evict([7, 1999], "rule", "now")
    vocabularies.seed(SCENE, whole)
    vocabularies.seed(SCENE, whole)
    assert vocabularies.export(SCENE, FEATURE) == whole
    found = vocabularies.assign(SCENE, FEATURE, [9000, 9001, 9002], SECONDS)
    assert sorted(found.ids.tolist()) == [UNKNOWN, FIRST + 7, FIRST + 1999]


def test_an_evicted_token_is_unknown_until_it_is_assigned_again(vocabularies: VocabularyStore) -> None:
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a", "b"), 3))
    assert vocabularies.evict(SCENE, FEATURE, ["a", "absent"], "not seen for 90 days", "2026-01-01") == 1
    found = vocabularies.export(SCENE, FEATURE)
    assert found.tokens == (None, "b")
    assert found == Vocabulary(FEATURE, ("a", "b"), 3).evict(["a"], "not seen for 90 days", "2026-01-01")
    assert vocabularies.assign(SCENE, FEATURE, ["a"], SECONDS).ids.tolist() == [FIRST + 2]  # never-used ids first


def test_what_was_never_seeded_assigns_nothing(vocabularies: VocabularyStore) -> None:
    with pytest.raises(StoreError, match="publish a release"):
        vocabularies.assign(SCENE, "absent", ["a"], SECONDS)
    with pytest.raises(StoreError, match="publish a release"):
        vocabularies.export(SCENE, "absent")


def test_no_id_twice_and_no_gap_whoever_asks_at_the_same_time(backend: Backend, vocabularies: VocabularyStore) -> None:
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a",), 150))
    seen: list[dict[int, int]] = []

    def ask(number: int) -> None:
        users, random = open_users(backend.settings), np.random.default_rng(number)
        known: dict[int, int] = {}
        for _ in range(40):
            tokens = random.integers(0, 200, 20).tolist()
            known |= dict(
                zip(tokens, users.vocabularies.assign(SCENE, FEATURE, tokens, SECONDS).ids.tolist(), strict=True)
            )
        users.close()
        seen.append(known)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = vocabularies.export(SCENE, FEATURE)
    assert len(seen) == 6 and len(final.tokens) == 150 and None not in final.tokens
    for known in seen:
        assert all(final.encode(token) == number for token, number in known.items() if number != UNKNOWN)


def test_a_process_remembers_and_notices_that_the_store_was_emptied(vocabularies: VocabularyStore) -> None:
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a",), 9))
    own = OnlineVocabulary(vocabularies, SCENE, FEATURE)
    assert own.ids(["a", "new"], SECONDS).ids.tolist() == [FIRST, FIRST + 1]
    assert own.ids(["new", "a"], SECONDS).assigned is None  # from memory
    vocabularies.drop(SCENE, FEATURE)
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("other", "a"), 9))
    own._looked = 0.0  # as after LOOK_SECONDS
    assert own.ids(["a"], SECONDS).ids.tolist() == [FIRST + 1]


def test_without_the_store_known_tokens_keep_their_ids_and_others_are_unknown(vocabularies: VocabularyStore) -> None:
    class Away:
        """The store as it was, until it goes away."""

        gone = False

        def generation(self, *arguments: object) -> str:
            return vocabularies.generation(*arguments)  # type: ignore[arg-type]

        def assign(self, *arguments: object) -> object:
            if self.gone:
                raise StoreUnavailable("gone")
            return vocabularies.assign(*arguments)  # type: ignore[arg-type]

    store = Away()
    vocabularies.seed(SCENE, Vocabulary(FEATURE, ("a",), 9))
    own = OnlineVocabulary(store, SCENE, FEATURE)  # type: ignore[arg-type]
    assert not own.ids(["a"], SECONDS).degraded
    store.gone = True
    found = own.ids(["a", "new"], SECONDS)
    assert found.degraded and found.ids.tolist() == [FIRST, UNKNOWN]


@pytest.mark.parametrize(
    ("token", "kept"),
    [
        ("  Audi ", "Audi"),
        ("e\u0301", "é"),
        ("奥迪", "奥迪"),
        ("", None),
        ("   ", None),
        ("a\x00b", None),
        ("a\nb", None),
        ("\ud800", None),
        ("x" * MAX_TOKEN_BYTES, "x" * MAX_TOKEN_BYTES),
        ("x" * (MAX_TOKEN_BYTES + 1), None),
        ("宝" * MAX_TOKEN_BYTES, None),
        (2**63, None),
        (7, 7),
        (True, None),
        (1.5, None),
        (None, None),
    ],
)
def test_what_is_a_token(token: object, kept: object) -> None:
    assert cleaned(token) == kept
