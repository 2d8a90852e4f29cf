"""What all tests share: no test fails because the machine is busy; a PostgreSQL server for those that want one."""

import pytest
from hypothesis import settings

from tests import databases

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", choices=databases.KINDS, default="sqlite", help="where nodes keep their stores")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--store") != "sqlite":
        skip = pytest.mark.skip(reason="looks into the files of SQLite")
        for item in items:
            if item.get_closest_marker("sqlite"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a server that runs until the tests end."""
    return databases.start_server(tmp_path_factory.mktemp("postgresql"))


@pytest.fixture(scope="session", autouse=True)
def stores_of_nodes(request: pytest.FixtureRequest) -> None:
    """Have nodes keep their stores where the command line says."""
    if request.config.getoption("--store") == "postgresql":
        databases.server = request.getfixturevalue("postgresql_server")
