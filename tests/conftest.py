"""What all tests share: no test fails because the machine is busy; a PostgreSQL server for those that want one."""

import pytest
from hypothesis import settings

from tests import databases

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a server that runs until the tests end."""
    return databases.start_server(tmp_path_factory.mktemp("postgresql"))
