import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.farm import Site
from tests.schedulers import systems
from tests.schedulers.systems import SYSTEMS, System
from tests.schedulers.worker_python import make_worker_python
from tests.served import Served


@pytest.fixture(scope="session", params=list(SYSTEMS))
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    """A batch system that runs."""
    chosen = SYSTEMS[request.param]
    systems.start(chosen)
    yield chosen
    chosen.control("stop")


@pytest.fixture
def folder(system: System) -> Iterator[Path]:
    """A folder that the submitting user and the jobs can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="dwf-test-"))
    if system.user:
        shutil.chown(path, system.user)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def worker_python(system: System) -> Iterator[str]:
    """The Python of a system whose jobs run as another user; "" for ours."""
    if not system.user:
        yield ""
        return
    folder = Path(tempfile.mkdtemp(prefix="dwf-python-"))
    folder.chmod(0o755)
    yield make_worker_python(folder)
    shutil.rmtree(folder)


@pytest.fixture
def site(system: System, served: Served, folder: Path, worker_python: str) -> Iterator[Site]:
    """A site with that batch system, whose agent acts as the user who submits."""
    served.database.instances.delete_many({})  # what other tests left is not ours to run
    with systems.acting_as(system.user):
        made = Site(served, folder, system.configuration, python=worker_python)
        yield made
        made.close()
