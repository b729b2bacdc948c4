"""A stage runs again exactly when something that it depends on changed."""

from pathlib import Path
from typing import Any

import pytest

from data_exchange_center.settings import Settings, load_settings
from offline.stages import Stage, run_stages


class Chain:
    """Two stages that write a file each and count their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[str] = []
        self.settings = load_settings(environment={})

    def stage(self, name: str, reads: tuple[str, ...]) -> Stage:
        def work(settings: Settings) -> dict[str, Any]:
            self.runs.append(name)
            (self.folder / name).write_text(f"{name} of seed {settings.seed}")
            return {"made_by": name}

        return Stage(name, work, reads, ("offline/stages.py",), (self.folder / name,), self.folder / "records")

    def run(self, **options: bool) -> dict[str, dict[str, Any]]:
        self.runs.clear()
        stages = [self.stage("first", ("data",)), self.stage("second", ("seed", "rank.epochs"))]
        return run_stages(self.settings, stages, **options)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_nothing_runs_twice(chain: Chain) -> None:
    assert {name: result["reused"] for name, result in chain.run().items()} == {"first": False, "second": False}
    again = chain.run()
    assert chain.runs == []
    assert again["second"]["made_by"] == "second"
    assert again["second"]["reused"]


def test_a_setting_runs_the_stage_that_reads_it_and_all_after_it(chain: Chain) -> None:
    chain.run()
    chain.settings = chain.settings.with_values(seed=1)
    chain.run()
    assert chain.runs == ["second"]
    chain.settings = chain.settings.with_values(**{"data.positive_above": 2.0})
    chain.run()
    assert chain.runs == ["first", "second"]
    chain.settings = chain.settings.with_values(**{"serve.port": 6000})
    chain.run()
    assert chain.runs == []


@pytest.mark.parametrize("harm", ["remove", "alter", "record"])
def test_an_output_that_is_gone_or_altered_is_made_again(chain: Chain, harm: str) -> None:
    chain.run()
    if harm == "remove":
        (chain.folder / "second").unlink()
    elif harm == "alter":
        (chain.folder / "second").write_text("something else")
    else:
        (chain.folder / "records" / "second.json").write_text("{half a rec")
    chain.run()
    assert chain.runs == ["second"]
    assert (chain.folder / "second").read_text() == "second of seed 0"


def test_a_stage_that_fails_leaves_no_record(chain: Chain) -> None:
    def fails(settings: Settings) -> dict[str, Any]:
        raise RuntimeError("disk full")

    stage = Stage("third", fails, (), ("offline/stages.py",), (chain.folder / "third",), chain.folder / "records")
    with pytest.raises(RuntimeError):
        run_stages(chain.settings, [stage])
    assert not (chain.folder / "records" / "third.json").exists()


def test_all_run_when_asked(chain: Chain) -> None:
    chain.run()
    chain.run(again=True)
    assert chain.runs == ["first", "second"]


def test_a_stage_that_reads_from_outside_runs_always_and_the_rest_when_it_found_something_new(chain: Chain) -> None:
    outside = chain.folder / "outside"
    outside.write_text("1")

    def read(settings: Settings) -> dict[str, Any]:
        chain.runs.append("outside")
        return {"content": outside.read_text()}

    def run() -> list[str]:
        chain.runs.clear()
        first = Stage("outside", read, (), (), (outside,), chain.folder / "records", always=True)
        run_stages(chain.settings, [first, chain.stage("after", ())])
        return list(chain.runs)

    assert run() == ["outside", "after"]
    assert run() == ["outside"]
    outside.write_text("2")
    assert run() == ["outside", "after"]
