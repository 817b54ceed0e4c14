from collections.abc import Iterator

import pytest

from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.served import served  # noqa: F401 - a fixture for all


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a batch system or a server in one process; the batch systems take longest: first."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_batch_system(item) or item.path.name))
    items.sort(key=lambda item: not _batch_system(item))


def _batch_system(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("system", "")) if callspec else ""


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongod]:
    """A real mongod for the whole run, stopped at its end."""
    with EmbeddedMongod(tmp_path_factory.mktemp("mongod")) as running:
        yield running
