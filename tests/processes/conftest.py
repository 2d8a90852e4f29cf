"""Boroughs and receivers that end with the test that made them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.harness import ENFIELD, HACKNEY, Borough, introduce
from tests.processes.receiver import Receiver


class Town:
    """Everything that a test starts."""

    def __init__(self, root: Path, templates: Path) -> None:
        self.root = root
        self._templates = templates
        self._boroughs: list[Borough] = []
        self._receivers: list[Receiver] = []

    def borough(self, slug: str, area: str, **options: Any) -> Borough:
        """A borough that is made and not started."""
        made = Borough(self.root, self._templates, slug, area, **options)
        self._boroughs.append(made)
        return made

    def copy_of(self, borough: Borough, name: str) -> Borough:
        """A second node with the keys and the store of one that does not run."""
        made = borough.copied(name)
        self._boroughs.append(made)
        return made

    def replica_of(self, borough: Borough, name: str) -> Borough:
        """Another process for a node whose store is in PostgreSQL."""
        made = borough.replica(name)
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


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where directories of new nodes are kept to be copied."""
    return tmp_path_factory.mktemp("templates")


@pytest.fixture
def town(tmp_path: Path, templates: Path) -> Iterator[Town]:
    """For one test."""
    made = Town(tmp_path, templates)
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared_town(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[Town]:
    """For all tests of a module."""
    made = Town(tmp_path_factory.mktemp("town"), templates)
    yield made
    made.end()


@pytest.fixture(scope="module")
def boroughs(shared_town: Town) -> tuple[Borough, Borough]:
    """Hackney and Enfield, running, each registered with the other."""
    hackney, enfield = shared_town.borough("hackney", HACKNEY), shared_town.borough("enfield", ENFIELD)
    hackney.start()
    enfield.start()
    introduce(hackney, enfield)
    return hackney, enfield
