"""A site with two clusters: two agents with two configurations, side by side."""

from collections import Counter
from pathlib import Path

from DmpWorkflow.backend import journal
from tests.agent.farm import Site
from tests.schedulers.systems import LSF, PBS, standing_in
from tests.served import Served


def test_two_agents_share_the_work_of_their_site(served: Served, tmp_path: Path) -> None:
    """With stand-ins: what matters here is that the agents do not disturb each other."""
    served.database.instances.delete_many({})
    pbs, lsf = standing_in(PBS, tmp_path), standing_in(LSF, tmp_path)
    for system in (pbs, lsf):
        system.control("start")
    try:
        first = Site(served, tmp_path / "a", pbs.configuration + "\nagent = a")
        second = Site(served, tmp_path / "b", lsf.configuration + "\nagent = b")
        job = first.submit(30)
        assert (first.cycle(chunk=10).submitted, second.cycle(chunk=10).submitted) == (10, 10)

        def done() -> bool:
            first.cycle(chunk=5)
            second.cycle(chunk=5)
            return first.counts(job) == {"Done": 30}

        first.wait(done)
        assert first.runs() == Counter({str(number): 1 for number in range(1, 31)})
        agents = served.database.agents.distinct("agent", {"site": "local"})
        assert len(agents) >= 2
        first.close()
        second.close()
    finally:
        for system in (pbs, lsf):
            system.control("stop")


def test_agents_of_one_work_folder_have_journals_of_their_own(tmp_path: Path) -> None:
    folders = [journal.agent_folder(tmp_path, "SITE", name) for name in ("", "a", "b")]
    with journal.opened(folders[0]) as one, journal.opened(folders[1]) as two, journal.opened(folders[2]) as three:
        assert len({one.agent, two.agent, three.agent}) == 3
