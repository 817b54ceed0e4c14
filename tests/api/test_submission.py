import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from DmpWorkflow.backend.environment import payload_environment
from DmpWorkflow.backend.run_file import PayloadVariable, RunFile
from DmpWorkflow.core.database import credentials, jobs, listing, work
from DmpWorkflow.core.database.claims import ClaimRequest, claim
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.creation_requests import CreationRequest
from DmpWorkflow.core.database.reporting import apply_report
from DmpWorkflow.core.database.status_report import StatusReport
from DmpWorkflow.core.database.submission import Submission, Words, check_xml, clone, submit_xml
from DmpWorkflow.core.job_definition import Variable
from DmpWorkflow.core.job_xml import Problem
from DmpWorkflow.core.lifecycle import MajorStatus
from DmpWorkflow.core.overrides import Overrides
from DmpWorkflow.core.reports import Report
from DmpWorkflow.core.variables import VariableCycle
from DmpWorkflow.utils.errors import Conflict, InvalidInput, NotFound

WORDS = Words(types=("User", "Other", "Reco"), sites=("local", "CNAF"))
XML = b"""<Jobs><Job release="5-1-2" type="User" name="hello">
<MetaData><Var name="DIR" value="${ROOT}/out"/><Var name="ROOT" value="/data"/></MetaData>
<OutputFiles><File source="o.root" target="${DIR}/${DWF_SIXDIGIT}.root" file_type="root"/></OutputFiles>
<JobWrapper executable="bash">true</JobWrapper></Job></Jobs>"""
TWO = b"""<Jobs><Job name="a"><JobWrapper executable="bash">true</JobWrapper></Job>
<Job name="b" site="%s"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>"""


def request(number: int = 100, request_id: str = "r1") -> ClaimRequest:
    return ClaimRequest("local", "agent", request_id, number, timedelta(minutes=5))


def test_a_file_becomes_a_job_with_instances(database: Database) -> None:
    rows, warnings = submit_xml(database, Submission(XML, instances=3), WORDS)
    assert [(row["title"], row["type"], row["site"], row["first"], row["last"]) for row in rows] == [
        ("hello", "User", "local", 1, 3)
    ]
    assert warnings == []
    again, _ = submit_xml(database, Submission(XML, instances=2), WORDS)
    assert (again[0]["slug"], again[0]["first"], again[0]["last"]) == (rows[0]["slug"], 4, 5)


def test_nothing_is_made_of_a_file_that_is_partly_bad(database: Database) -> None:
    with pytest.raises(InvalidInput, match="site 'NOWHERE' is not known: expected one of local, CNAF"):
        submit_xml(database, Submission(TWO % b"NOWHERE"), WORDS)
    assert database.jobs.count_documents({}) == 0
    assert len(submit_xml(database, Submission(TWO % b"CNAF"), WORDS)[0]) == 2


def test_a_repeated_submission_makes_nothing_and_tells_the_same(database: Database) -> None:
    once = CreationRequest("submit anna", "key", "digest")
    first = submit_xml(database, Submission(TWO % b"CNAF", instances=3), WORDS, once)
    assert submit_xml(database, Submission(TWO % b"CNAF", instances=3), WORDS, once) == first
    assert database.instances.count_documents({}) == 6


def test_a_repeated_clone_is_the_same_job(database: Database) -> None:
    submit_xml(database, Submission(XML, instances=1), WORDS)
    original = database.jobs.find_one({}) or {}
    once = CreationRequest("submit anna", "key", "digest")
    first = clone(database, original, "copy", 2, "anna", WORDS, once)
    assert clone(database, original, "copy", 2, "anna", WORDS, once) == first
    with pytest.raises(Conflict, match="already"):
        clone(database, original, "copy", 2, "anna", WORDS, replace(once, key="other"))
    assert database.instances.count_documents({}) == 3


@pytest.mark.parametrize("title", ["a/b", "..", "x" * 256, "a\nb"])
def test_a_title_must_be_fit_for_a_folder(database: Database, title: str) -> None:
    with pytest.raises(InvalidInput, match="printable characters"):
        submit_xml(database, Submission(XML, title=title), WORDS)


def test_a_name_is_needed_a_parent_must_exist_and_a_circle_is_refused(database: Database) -> None:
    with pytest.raises(InvalidInput, match="task name must be defined"):
        submit_xml(database, Submission(XML.replace(b' name="hello"', b"")), WORDS)
    with pytest.raises(NotFound):
        submit_xml(database, Submission(XML, parents=("nosuch",)), WORDS)
    with pytest.raises(VariableCycle, match="DIR -> ROOT -> DIR"):
        submit_xml(database, Submission(XML.replace(b'"/data"', b'"$DIR"')), WORDS)
    assert database.jobs.count_documents({}) == 0


def test_variables_of_one_instance_never_reach_another(database: Database) -> None:
    submit_xml(database, Submission(XML, instances=1), WORDS)
    special = Overrides(variables=(Variable("ROOT", "/mine"), Variable("EXTRA", "1")))
    submit_xml(database, Submission(XML, instances=1, overrides=special), WORDS)
    submit_xml(database, Submission(XML, instances=1), WORDS)
    got = work.claim_work(database, request(), b"secret")
    seen = []
    for instance in got["instances"]:
        definition = got["definitions"][instance["definition"]]
        values = {item["name"]: item["value"] for item in definition["variables"]}
        seen.append((instance["instance_id"], values, definition["output_files"][0]["target"]))
    plain = {"DIR": "/data/out", "ROOT": "/data"}
    assert seen == [
        (1, plain, "/data/out/${DWF_SIXDIGIT}.root"),
        (2, {"DIR": "/mine/out", "ROOT": "/mine", "EXTRA": "1"}, "/mine/out/${DWF_SIXDIGIT}.root"),
        (3, plain, "/data/out/${DWF_SIXDIGIT}.root"),
    ]
    assert len(got["definitions"]) == 2


def test_a_child_inherits_variables_and_takes_its_parents_output_as_input(database: Database) -> None:
    parent = submit_xml(database, Submission(XML, instances=1), WORDS)[0][0]
    child_xml = b"""<Jobs><Job name="child"><MetaData><Var name="ROOT" value="/child"/></MetaData>
    <JobWrapper executable="bash">true</JobWrapper></Job></Jobs>"""
    child = submit_xml(database, Submission(child_xml, instances=1, parents=(parent["slug"],)), WORDS)[0][0]
    claim(database, request())
    done = Report(MajorStatus.DONE, 1, 1)
    apply_report(database, StatusReport(jobs.by_slug(database, parent["slug"])["_id"], 1, done))
    got = work.claim_work(database, request(request_id="r2"), b"secret")
    definition = got["definitions"]["0"]
    assert definition["title"] == "child"
    assert {item["name"]: item["value"] for item in definition["variables"]} == {
        "DIR": "/child/out",
        "ROOT": "/child",
    }
    source = "/data/out/${DWF_SIXDIGIT}.root"
    assert definition["input_files"] == [{"source": source, "target": "${DWF_SIXDIGIT}.root", "file_type": "root"}]
    assert listing.job_summary(database, jobs.by_slug(database, child["slug"]))["parents"] == [parent["slug"]]


def test_an_attempts_token_is_good_for_it_alone(database: Database) -> None:
    submit_xml(database, Submission(XML, instances=1), WORDS)
    key = credentials.secret(database)
    assert credentials.secret(database) == key
    instance = work.claim_work(database, request(), key)["instances"][0]
    principal = credentials.find(database, instance["token"], key)
    assert principal is not None
    assert (principal.role, principal.job, principal.instance, principal.attempt) == (
        "attempt", instance["job_id"], 1, 1,
    )  # fmt: skip
    assert credentials.find(database, instance["token"].replace(".1.1.", ".2.1."), key) is None
    assert credentials.find(database, instance["token"], b"other") is None


def test_tokens_are_stored_hashed_listed_without_secrets_and_revoked(database: Database) -> None:
    text, _ = credentials.create(database, "cnaf", "site", "CNAF")
    assert text not in str(list(database.credentials.find()))
    principal = credentials.find(database, text, b"")
    assert principal == credentials.Principal(role="site", name="cnaf", site="CNAF")
    assert [(token["name"], "digest" in token) for token in credentials.all_tokens(database)] == [("cnaf", False)]
    with pytest.raises(Conflict, match="there is a token named 'cnaf'"):
        credentials.create(database, "cnaf", "read")
    with pytest.raises(InvalidInput, match="names its site"):
        credentials.create(database, "other", "site")
    credentials.revoke(database, "cnaf")
    assert credentials.find(database, text, b"") is None
    with pytest.raises(NotFound):
        credentials.revoke(database, "cnaf")


def test_a_legacy_entry_is_plain_json_with_the_originals_marker(database: Database) -> None:
    submit_xml(database, Submission(XML, instances=1), WORDS)
    (text,) = work.legacy_entries(database, claim(database, request()), {"system": "lsf"}, "/data/run")
    entry = json.loads(text)
    assert entry["py/object"] == "DmpWorkflow.core.DmpJob.DmpJob"
    assert (entry["instanceId"], entry["release"], entry["exec_wrapper"], entry["wd"]) == (
        1,
        "5-1-2",
        "true\n",
        "/data/run",
    )
    assert entry["MetaData"][0] == {"name": "DIR", "value": "/data/out", "var_type": "string"}
    assert entry["batchdefaults"] == {"system": "lsf"}


def test_instances_are_found_as_old_clients_ask(database: Database) -> None:
    submit_xml(database, Submission(XML, instances=5), WORDS)
    found = listing.find_instances(database, "hello", "User", n_min=1, n_max=3)
    assert [item["instanceId"] for item in found] == [3, 2]
    assert [item["instanceId"] for item in listing.find_instances(database, "hello", "User", "New", instance=4)] == [
        4
    ]
    assert listing.find_instances(database, "hello", "User", "Done") == []


def places(problems: Iterable[Problem]) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.text) for problem in problems]


def test_a_check_finds_every_problem_with_its_line_and_makes_nothing(database: Database) -> None:
    text = b"""<Jobs>
<Job name="a" type="Nonsense" site="NOWHERE"><JobWrapper executable="bash">true</JobWrapper></Job>
<Job name="b">
<MetaData><Var name="X" value="$Y"/><Var name="Y" value="$X"/></MetaData>
<JobWrapper executable="bash">true</JobWrapper></Job>
</Jobs>"""
    checked = check_xml(database, Submission(text, parents=("nosuch", "neither")), WORDS)
    assert places(checked.problems) == [
        (None, "Could not find job nosuch"),
        (None, "Could not find job neither"),
        (2, "type 'Nonsense' is not known: expected one of User, Other, Reco"),
        (2, "site 'NOWHERE' is not known: expected one of local, CNAF"),
        (3, "variables refer to each other in a circle: X -> Y -> X"),
    ]
    assert database.jobs.count_documents({}) == 0
    with pytest.raises(InvalidInput, match=r"nosuch; .*neither; line 2: type 'Nonsense'"):
        submit_xml(database, Submission(text, parents=("nosuch", "neither")), WORDS)


def test_a_preview_is_what_the_payload_of_the_first_instance_gets(database: Database) -> None:
    submission = Submission(
        XML, instances=2, overrides=Overrides(variables=(Variable("ROOT", "/n${DWF_INSTANCE_ID}"),))
    )
    (preview,) = check_xml(database, submission, WORDS).previews
    assert database.jobs.count_documents({}) == 0
    submit_xml(database, submission, WORDS)
    got = work.claim_work(database, request(), b"secret")
    instance, definition = got["instances"][0], got["definitions"]["0"]
    run = RunFile(
        "", "", instance["job_id"], instance["instance_id"], instance["attempt"], "",
        title=definition["title"], type=definition["type"], release=definition["release"],
        variables=tuple(PayloadVariable(**item) for item in definition["variables"]),
        attributes=definition["attributes"],
    )  # fmt: skip
    seen = payload_environment(run, {})
    shown = {item["name"]: item["value"] for item in (*preview["variables"], *preview["automatic"])}
    assert shown.items() <= seen.items()
    assert (shown["DIR"], shown["DWF_SIXDIGIT"], "DWF_JOB_ID" in shown) == ("/n1/out", "000001", False)
    assert [file["target"] for file in preview["output_files"]] == ["/n1/out/000001.root"]


def test_a_check_warns_of_what_is_there_already_and_of_what_may_be_meant_otherwise(database: Database) -> None:
    made = submit_xml(database, Submission(XML, instances=3), WORDS)[0][0]
    checked = check_xml(database, Submission(XML, instances=2), WORDS)
    assert checked.warnings == ["job hello is there already: these become its instances 4 to 5"]
    assert (checked.previews[0]["slug"], checked.previews[0]["first"]) == (made["slug"], 4)
    assert {"name": "DWF_JOB_ID", "value": made["jobID"]} in checked.previews[0]["automatic"]
    batch = Overrides(variables=(Variable("BATCH_OVERRIDE_MEMORY", "lots"),))
    child = Submission(XML, title="child", instances=9, parents=(made["slug"],), overrides=batch)
    checked = check_xml(database, child, WORDS)
    assert [warning.split(":")[0] for warning in checked.warnings] == [
        "parent hello has 3 instances",
        "the site's batch system may refuse job child",
    ]
    assert checked.previews[0]["parents"] == [{"slug": made["slug"], "title": "hello"}]
    other = check_xml(database, Submission(XML.replace(b"true", b"false")), WORDS)
    assert places(other.problems)[0][0] == 1 and "exists with another definition" in other.problems[0].text


def test_variables_of_instances_that_make_a_circle_are_refused_before_a_site_gets_them(database: Database) -> None:
    circle = Overrides(variables=(Variable("ROOT", "$DIR"),))
    with pytest.raises(VariableCycle):
        submit_xml(database, Submission(XML, instances=1, overrides=circle), WORDS)
    assert database.jobs.count_documents({}) == 0
