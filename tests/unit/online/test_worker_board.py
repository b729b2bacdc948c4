"""Which release each worker answers from."""

import os

from online.api.worker_board import SLOTS, WorkerBoard


def test_workers_agree_when_all_have_the_same_release() -> None:
    board = WorkerBoard()
    for number, release in ((1, "a"), (2, "b")):
        child = os.fork()
        if not child:
            board.claim(number)
            board.announce(release)
            os._exit(0)
        os.waitpid(child, 0)
    assert sorted(board.releases().values()) == ["a", "b"]
    assert board.agreed() is None
    board.forget(2)
    assert board.agreed() == "a"


def test_a_worker_without_a_release_keeps_the_others_from_agreeing() -> None:
    board = WorkerBoard()
    board.claim(1)
    assert board.agreed() is None
    board.announce("release-é")
    assert board.agreed() == "release-é"


def test_numbers_beyond_the_board_take_slots_again() -> None:
    board = WorkerBoard()
    board.claim(SLOTS + 1)
    board.announce("a")
    board.forget(1)
    assert board.releases() == {}
