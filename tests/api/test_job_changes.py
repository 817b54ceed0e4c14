"""Changes of jobs: priority, tags, the archive, copies, and removal that survives a crash."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from bson import ObjectId

from DmpWorkflow.client import Client
from DmpWorkflow.core.database import counts, creation, job_changes, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.job_changes import JobChanges, change, remove
from DmpWorkflow.core.database.killing import kill
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.rollback import roll_back
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound
from tests.api.test_reporting import assert_counts_are_exact, claim_all, make_job, report
from tests.served import Served

XML = b'<Jobs><Job name="%s" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'


def stored(database: Database, job: ObjectId) -> dict[str, Any]:
    return jobs.by_id(database, job)


def left_of(database: Database, job: ObjectId) -> list[int]:
    """Return how many instances, counters and jobs there are of a job."""
    collections = (database.instances, database.counts)
    return [
        *(collection.count_documents({"job": job}) for collection in collections),
        database.jobs.count_documents({"_id": job}),
    ]


def test_a_priority_reaches_what_waits_and_what_is_made_later(database: Database) -> None:
    early, late = make_job(database, 2, "early"), make_job(database, 2, "late")
    change(database, stored(database, late), JobChanges(priority=5))
    creation.create_instances(database, late, 1)
    assert claim_all(database) == [(late, 1), (late, 2), (late, 3), (early, 1), (early, 2)]
    apply_report(database, report(late, 1, MajorStatus.FAILED, 1))
    change(database, stored(database, late), JobChanges(priority=-1))
    roll_back(database, late, [1])
    roll_back(database, early, [1])
    assert claim_all(database, "r2") == [(early, 1), (late, 1)]


def test_tags_are_short_words_each_once(database: Database) -> None:
    job = make_job(database, 0)
    change(database, stored(database, job), JobChanges(tags=["flight", "v6.0.1", "flight"]))
    assert stored(database, job)["tags"] == ["flight", "v6.0.1"]
    for bad in (["two words"], [""], ["x" * 33], [f"t{number}" for number in range(21)]):
        with pytest.raises(InvalidInput, match="tag"):
            change(database, stored(database, job), JobChanges(tags=bad, priority=7))
    assert (stored(database, job)["tags"], stored(database, job)["priority"]) == (["flight", "v6.0.1"], 0)


def test_only_what_is_over_is_archived_and_stays_over(database: Database) -> None:
    job = make_job(database, 2)
    with pytest.raises(Conflict, match="instance 1 is New: wait until all are over, or kill them"):
        change(database, stored(database, job), JobChanges(archived=True, priority=9))
    assert stored(database, job)["priority"] == 0, "all or nothing"
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    kill(database, job, [2])
    with pytest.raises(Conflict, match="instance 1 is Running"):
        change(database, stored(database, job), JobChanges(archived=True))
    apply_report(database, report(job, 1, MajorStatus.DONE, 2))
    change(database, stored(database, job), JobChanges(archived=True))
    for act in (lambda: roll_back(database, job, [2]), lambda: creation.create_instances(database, job, 1)):
        with pytest.raises(Conflict, match="is archived: take it out of the archive first"):
            act()
    change(database, stored(database, job), JobChanges(archived=False))
    assert roll_back(database, job, [2]) == 1
    assert_counts_are_exact(database, job)


def test_an_archived_job_may_have_new_children(database: Database) -> None:
    parent = make_job(database, 1)
    claim_all(database)
    apply_report(database, report(parent, 1, MajorStatus.DONE, 1))
    change(database, stored(database, parent), JobChanges(archived=True))
    child = make_job(database, 1, "child", (parent,))
    assert claim_all(database, "r2") == [(child, 1)]


def test_a_job_goes_with_all_that_belongs_to_it_and_others_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_changes, "CHUNK", 3)
    job, other = make_job(database, 7), make_job(database, 2, "other")
    claim_all(database)
    for number in range(1, 8):
        apply_report(database, report(job, number, MajorStatus.DONE, 1, log="x"))
    assert remove(database, stored(database, job)) == 7
    assert (left_of(database, job), left_of(database, other)) == ([0, 0, 0], [2, counts.SLOTS, 1])
    assert_counts_are_exact(database, other)
    with pytest.raises(NotFound):
        apply_report(database, report(job, 1, MajorStatus.DONE, 2))


def test_a_job_is_not_removed_while_something_of_it_is_under_way(database: Database) -> None:
    job = make_job(database, 2)
    claim_all(database)
    with pytest.raises(Conflict, match="instance 1 is New or claimed: wait until it is over, or kill it"):
        remove(database, stored(database, job))
    apply_report(database, report(job, 1, MajorStatus.RUNNING, 1))
    kill(database, job, [2])
    with pytest.raises(Conflict, match="instance 1 is Running"):
        remove(database, stored(database, job))
    assert (left_of(database, job), "removing" in stored(database, job)) == ([2, counts.SLOTS, 1], False)
    assert_counts_are_exact(database, job)


def test_what_attempts_used_is_forgotten_with_their_job(database: Database) -> None:
    job = make_job(database, 1)
    claim_all(database)
    apply_report(database, report(job, 1, MajorStatus.DONE, 1, cpu=5))
    assert database.distributions.count_documents({"_id": job}) == 1
    remove(database, stored(database, job))
    assert database.distributions.count_documents({}) == 0


def test_a_parent_is_not_removed_before_its_children(database: Database) -> None:
    parent = make_job(database, 1)
    child = make_job(database, 1, "child", (parent,))
    with pytest.raises(Conflict, match="'child' depends on it: remove that first"):
        remove(database, stored(database, parent))
    assert remove(database, stored(database, child)) == 1
    assert remove(database, stored(database, parent)) == 1


class CrashError(Exception):
    """The server died here."""


@pytest.mark.parametrize("step", ["_end_claims", "_remove_chunk", "_check_idle"])
def test_a_removal_that_crashed_is_completed_by_another_one(
    database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(job_changes, "CHUNK", 2)
    parent = make_job(database, 5, "parent")
    job = make_job(database, 5, "child", (parent,))
    calls, real = [], getattr(job_changes, step)

    def crash(*arguments: Any) -> Any:
        calls.append(step)
        if len(calls) > (0 if step == "_end_claims" else 2):
            raise CrashError
        return real(*arguments)

    with monkeypatch.context() as patched, pytest.raises(CrashError):
        patched.setattr(job_changes, step, crash)
        remove(database, stored(database, job))
    left = left_of(database, job)
    assert left[0] == {"_end_claims": 5, "_remove_chunk": 1, "_check_idle": 0}[step]
    assert_counts_are_exact(database, job)
    for act in (lambda: roll_back(database, job, [5]), lambda: creation.create_instances(database, job, 1)):
        with pytest.raises(Conflict, match="'child' is being removed"):
            act()
    assert {found for found, _ in claim_all(database)} == {parent}
    for number in range(1, 6):  # which lets children go
        apply_report(database, report(parent, number, MajorStatus.DONE, 1))
    assert claim_all(database, "r2") == []
    with pytest.raises(Conflict, match="being removed"):
        make_job(database, 1, "grandchild", (job,))
    assert remove(database, stored(database, job)) == left[0]
    assert left_of(database, job) == [0, 0, 0]


def test_a_claim_between_mark_and_removal_wins(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(database, 3)
    real = job_changes._end_claims

    def late(opened: Database, found: dict[str, Any]) -> None:
        apply_report(opened, report(job, 2, MajorStatus.SUBMITTED, None, attempt=None))
        real(opened, found)

    monkeypatch.setattr(job_changes, "_end_claims", late)
    with pytest.raises(Conflict, match="instance 2 is Submitted"):
        remove(database, stored(database, job))
    assert_counts_are_exact(database, job)
    assert claim_all(database) == [(job, 1), (job, 3)], "all is as it was"


def test_removals_and_claims_at_once_agree(database: Database) -> None:
    for round_number in range(5):
        job = make_job(database, 50, f"race{round_number}")
        doomed = stored(database, job)
        start = threading.Barrier(2)

        def take(name: str = f"r{round_number}", job: ObjectId = job, start: threading.Barrier = start) -> int:
            start.wait()
            return sum(claimed == job for claimed, _ in claim_all(database, name))  # not what is left of others

        def drop(found: dict[str, Any] = doomed, start: threading.Barrier = start) -> int:
            start.wait()
            try:
                return remove(database, found)
            except Conflict:
                return 0

        with ThreadPoolExecutor(2) as pool:
            taken, removed = pool.submit(take), pool.submit(drop)
        if removed.result():
            assert (taken.result(), removed.result(), left_of(database, job)) == (0, 50, [0, 0, 0])
        else:  # a claim may have got only a part, before the mark took the others out of reach: those are free again
            free = database.instances.count_documents({"job": job, "claimable": True})
            claimed = database.instances.count_documents({"job": job, "claim": {"$exists": True}})
            assert left_of(database, job) == [50, counts.SLOTS, 1]
            assert claimed == taken.result() and claimed + free == 50 and taken.result() > 0


def test_changes_over_http(served: Served) -> None:
    client = Client(served.url, served.submit_token)
    parent = client.create_job(XML % b"origin", instances=1)["jobs"][0]["slug"]
    job = client.create_job(XML % b"changed", instances=2, parents=[parent], priority=3)["jobs"][0]
    slug = job["slug"]
    changed = client.change_job(slug, priority=4, tags=["flight"])
    assert (changed["priority"], changed["tags"], changed["archived"]) == (4, ["flight"], False)
    with pytest.raises(Conflict, match="cannot be archived"):
        client.change_job(slug, archived=True)
    with pytest.raises(InvalidInput, match="tag 'a b'"):
        client.change_job(slug, tags=["a b"])
    made = client.clone_job(slug, "copy", 3)["jobs"][0]
    copy = client.job(made["slug"])
    assert (copy["parents"], copy["priority"], copy["counts"]["New"], copy["owner"]) == ([parent], 4, 3, "submit")
    assert 'name="copy"' in copy["body"]
    with pytest.raises(Conflict, match="there is a job 'copy'"):
        client.clone_job(slug, "copy")
    client.kill(slug)
    assert client.change_job(slug, archived=True)["archived"]
    assert [found["title"] for found in client.jobs(text="changed", archived="yes")] == ["changed"]
    assert list(client.jobs(title="changed")) == []
    with pytest.raises(InvalidInput, match="'change' is not the title of this job: nothing was removed"):
        client.remove_job(slug, "change")
    assert client.remove_job(slug, "changed") == 2
    with pytest.raises(NotFound):
        client.job(slug)
    token = {"Authorization": f"Bearer {served.submit_token}"}
    reply = requests.delete(f"{served.url}/job/{parent}/", headers=token, timeout=60)
    assert (reply.status_code, reply.json()["error"]) == (400, "the body must be a JSON object")
