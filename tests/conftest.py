import re
from collections.abc import Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling

from DmpWorkflow.core.database.mongod import EmbeddedMongod
from tests.served import served  # noqa: F401 - a fixture for all

BATCH_SYSTEM = re.compile(r"^tests/schedulers/.*\[(?P<system>local|slurm|sge|condor|pbs|lsf)\]$")
CAMPAIGN = "tests/faults/test_faults.py"


class OneProcessForEach(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Keeps tests that share a batch system, or else a module's server, in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return _batch_system(nodeid) or nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneProcessForEach:
    """Share the tests out when there are several processes."""
    return OneProcessForEach(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the batch systems and the campaign of faults, which take longest."""
    items.sort(key=lambda item: not (_batch_system(item.nodeid) or item.nodeid.startswith(CAMPAIGN)))


def _batch_system(nodeid: str) -> str:
    found = BATCH_SYSTEM.search(nodeid)
    return found["system"] if found else ""


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongod]:
    """A real mongod for the whole run, stopped at its end."""
    with EmbeddedMongod(tmp_path_factory.mktemp("mongod")) as running:
        yield running
