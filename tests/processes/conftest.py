"""Boroughs and receivers that end with the test that made them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.harness import ENFIELD, HACKNEY, Borough
from tests.processes.receiver import Receiver


class Town:
    """Everything that a test starts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._boroughs: list[Borough] = []
        self._receivers: list[Receiver] = []

    def borough(self, slug: str, area: str, **options: Any) -> Borough:
        """A borough that is made and not started."""
        made = Borough(self.root, slug, area, **options)
        self._boroughs.append(made)
        return made

    def receiver(self) -> Receiver:
        """A receiver that listens."""
        made = Receiver().start()
        self._receivers.append(made)
        return made

    def end(self) -> None:
        """Kill and close what is left."""
        for borough in self._boroughs:
            borough.kill()
        for receiver in self._receivers:
            receiver.stop()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """For one test."""
    made = Town(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """For all tests of a module."""
    made = Town(tmp_path_factory.mktemp("town"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def boroughs(shared_town: Town) -> tuple[Borough, Borough]:
    """Hackney and Enfield, running, each registered with the other."""
    hackney, enfield = shared_town.borough("hackney", HACKNEY), shared_town.borough("enfield", ENFIELD)
    hackney.start()
    enfield.start()
    hackney.trusts(enfield)
    enfield.trusts(hackney)
    return hackney, enfield
