"""The limits that docs/server.md lists: what a request just above each of them is answered."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from DmpWorkflow.core import batch_needs, job_xml, literals
from DmpWorkflow.core import overrides as core_overrides
from DmpWorkflow.core.database import creation, data_catalogue, job_changes, submission
from DmpWorkflow.core.names import LONGEST_ACCOUNT, LONGEST_RELEASE, LONGEST_TITLE
from DmpWorkflow.core.variables import LONGEST_VALUE, MOST_TOGETHER
from DmpWorkflow.frontend import parameters
from DmpWorkflow.frontend.api import schemas
from tests.documented import ROOT
from tests.served import Served

Answer = tuple[int, str]
WRAPPER = '<JobWrapper executable="b">x</JobWrapper>'
JOB = "6b04cc916a00b242cb9c95ef"
LARGEST_BODY, LARGEST_FIELD = 16 * 1024 * 1024, 4 * 1024 * 1024  # as app.py has them
LONG_LITERAL = "{}".ljust(literals.LONGEST_LITERAL + 1)


class Server:
    """Sends requests of an administrator."""

    def __init__(self, served: Served) -> None:
        self.url, self.token = served.url, served.admin_token

    def send(self, method: str, path: str, **values: Any) -> Answer:
        """Return status and error."""
        headers = {"Authorization": f"Bearer {self.token}"} | values.pop("headers", {})
        reply = requests.request(method, self.url + path, headers=headers, timeout=60, **values)
        try:
            body = reply.json()
        except ValueError:
            return reply.status_code, reply.text
        told = [body.get(name) for name in ("problems", "warnings", "results")]
        return reply.status_code, str(body.get("error", told))

    def post(self, path: str, **body: Any) -> Answer:
        return self.send("POST", path, json=body)

    def xml(self, xml: str, **fields: Any) -> Answer:
        """Have a definition checked."""
        return self.send("POST", "/job/check/", files={"file": xml}, data=fields)

    def job(self, inside: str = "", attributes: str = 'name="other" type="User"') -> Answer:
        return self.xml(f"<Jobs><Job {attributes}>{inside}{WRAPPER}</Job></Jobs>")

    def variables(self, *pairs: tuple[str, str]) -> Answer:
        items = "".join(f'<Var name="{name}" value="{value}"/>' for name, value in pairs)
        return self.job(f"<MetaData>{items}</MetaData>")

    def report(self, **values: Any) -> Answer:
        start = {"t_id": JOB, "inst_id": 1, "attempt": 1, "sequence": 1, "major_status": "Running"}
        return self.post("/jobstatus/", args=start | values)

    def instances(self, **values: Any) -> Answer:
        return self.post("/jobInstances/", **({"taskname": "limits", "n_instances": 1} | values))

    def raw(self, body: bytes) -> Answer:
        return self.send("POST", "/jobInstances/", data=body, headers={"Content-Type": "application/json"})


def override(length: int) -> dict[str, Any]:
    return {"MetaData": [{"name": "A", "value": "x" * length}]}


ABOVE: dict[str, tuple[Callable[[Server], Answer], int, str]] = {
    "a request": (lambda s: s.raw(b" " * (LARGEST_BODY + 1)), 413, "Request Entity Too Large"),
    "the fields of a form": (lambda s: s.xml("", taskname="x" * (LARGEST_FIELD + 1)), 413, "Too Large"),
    "parts of a form": (lambda s: s.xml("", depends=["a"] * 1001), 413, "Too Large"),
    "lists and objects in JSON": (
        lambda s: s.raw(b'{"a": [' + b"{}," * parameters.MOST_CONTAINERS + b"{}]}"),
        400,
        f"at most {parameters.MOST_CONTAINERS}",
    ),
    "an address": (lambda s: s.send("GET", "/job/?text=" + "x" * 4094), 414, "Request Line is too large"),
    "a definition": (lambda s: s.xml(" " * (job_xml.LARGEST + 1)), 200, f"at most {job_xml.LARGEST}"),
    "elements in a definition": (
        lambda s: s.job("<InputFiles>" + "<File/>" * job_xml.MOST_ELEMENTS + "</InputFiles>"),
        200,
        f"at most {job_xml.MOST_ELEMENTS}",
    ),
    "jobs in a definition": (
        lambda s: s.xml("<Jobs>" + f"<Job>{WRAPPER}</Job>" * (job_xml.MOST_JOBS + 1) + "</Jobs>"),
        200,
        f"at most {job_xml.MOST_JOBS}",
    ),
    "elements within each other": (lambda s: s.xml("<Jobs>" + "<Job>" * 256), 200, "Excessive depth"),
    "problems told at once": (
        lambda s: s.job("<InputFiles>" + "<File/>" * 100 + "</InputFiles>"),
        200,
        "and 150 more of the kind",
    ),
    "a job's name": (lambda s: s.job("", f'name="{"é" * 128}" type="User"'), 200, f"at most {LONGEST_TITLE} bytes"),
    "a release": (
        lambda s: s.job("", f'name="r" type="User" release="{"x" * (LONGEST_RELEASE + 1)}"'),
        200,
        f"at most {LONGEST_RELEASE} bytes",
    ),
    "parents": (
        lambda s: s.xml(f"<Jobs><Job>{WRAPPER}</Job></Jobs>", depends=",".join(["x"] * 101)),
        200,
        f"at most {submission.MOST_PARENTS}",
    ),
    "instances at once": (
        lambda s: s.instances(n_instances=creation.MOST_AT_ONCE + 1),
        422,
        f"less than or equal to {creation.MOST_AT_ONCE}",
    ),
    "overrides of an instance": (
        lambda s: s.instances(override_dict=override(core_overrides.LARGEST)),
        422,
        f"larger than {core_overrides.LARGEST}",
    ),
    "overrides of all instances at once": (
        lambda s: s.instances(n_instances=5000, override_dict=override(60_000)),
        422,
        f"at most {creation.MOST_BYTES} at once",
    ),
    "a dictionary in a form": (
        lambda s: s.send("POST", "/jobInstances/", data={"taskname": "limits", "override_dict": LONG_LITERAL}),
        422,
        f"longer than {literals.LONGEST_LITERAL}",
    ),
    "lists within each other in a form": (
        lambda s: s.send("POST", "/jobstatus/", data={"args": "[" * (literals.DEEPEST_LITERAL + 1)}),
        422,
        f"deeper than {literals.DEEPEST_LITERAL}",
    ),
    "the value of a variable": (
        lambda s: s.variables(("A", "x" * (LONGEST_VALUE + 1))),
        200,
        f"grows beyond {LONGEST_VALUE}",
    ),
    "the values of all variables": (
        lambda s: s.variables(("A", "x" * 60_000), *((f"B{number}", "$A") for number in range(20))),
        200,
        f"grow beyond {MOST_TOGETHER}",
    ),
    "a word for the batch system": (
        lambda s: s.variables(("BATCH_OVERRIDE_QUEUE", "x" * (batch_needs.LONGEST_WORD + 1))),
        200,
        f"at most {batch_needs.LONGEST_WORD}",
    ),
    "any other word": (lambda s: s.report(hostname="x" * 1025), 422, "at most 1024 characters"),
    "a log": (lambda s: s.report(log="x" * (2**20 + 1)), 422, f"at most {2**20} characters"),
    "an amount": (lambda s: s.report(cpu=schemas.MOST_AMOUNT * 1.1), 422, "equal to 1000000000000"),
    "a number": (lambda s: s.report(sequence=2**63), 422, f"equal to {2**63 - 1}"),
    "a priority": (lambda s: s.xml(f"<Jobs><Job>{WRAPPER}</Job></Jobs>", priority=2**31), 422, f"{2**31 - 1}"),
    "reports at once": (lambda s: s.post("/jobstatusBulk/", reports=[{}] * 1001), 422, "at most 1000 items"),
    "instances that an agent holds": (
        lambda s: s.post("/agents/heartbeat/", site="local", agent="a", hostname="h", version="3",
                         holds=[{"job_id": JOB, "instances": [1] * 50_001, "attempt": 1}]),
        422,
        "at most 50000 items",
    ),
    "instances in a claim": (
        lambda s: s.post("/newjobs/", site="local", limit=1001, agent="a", request_id="12345678"),
        422,
        "equal to 1000",
    ),
    "instances named one by one": (
        lambda s: s.post("/kill/", job=JOB, instances=[1] * (schemas.MOST_CHOSEN + 1)),
        422,
        f"at most {schemas.MOST_CHOSEN} items",
    ),
    "files at once": (
        lambda s: s.post("/datacat/", site="local", action="register", filename="/a," * 1001),
        422,
        f"at most {data_catalogue.MOST_FILES}",
    ),
    "the name of a file": (
        lambda s: s.post("/datacat/", site="local", action="register", filename="/" + "a" * 1024),
        422,
        f"1 to {data_catalogue.LONGEST_NAME}",
    ),
    "the name of a token or user": (
        lambda s: s.post("/administration/tokens/", name="x" * (LONGEST_ACCOUNT + 1), role="read"),
        422,
        f"at most {LONGEST_ACCOUNT}",
    ),
    "a password": (
        lambda s: s.post("/administration/users/", name="x", role="read", password="x" * 1025),
        422,
        "at most 1024",
    ),
    "tags": (
        lambda s: s.send("PATCH", f"/job/{SLUG}/", json={"tags": [f"t{number}" for number in range(21)]}),
        422,
        f"at most {job_changes.MOST_TAGS}",
    ),
}  # fmt: skip
SLUG = "limits"  # of a job that the test makes


@pytest.fixture(scope="module")
def server(served: Served) -> Server:
    made = Server(served)
    reply = requests.post(
        f"{served.url}/job/",
        headers={"Authorization": f"Bearer {served.admin_token}"},
        files={"file": f'<Jobs><Job name="limits" type="User">{WRAPPER}</Job></Jobs>'},
        timeout=60,
    )
    served.database.jobs.update_one({"slug": reply.json()["jobs"][0]["slug"]}, {"$set": {"slug": SLUG}})
    return made


@pytest.mark.parametrize("what", ABOVE)
def test_a_request_just_above_a_limit_is_told_which(what: str, server: Server, served: Served) -> None:
    send, status, told = ABOVE[what]
    found, error = send(server)
    assert (found, told in error) == (status, True), error[:500]
    assert len(error) < 20_000
    assert served.database.instances.count_documents({}) == 0 and served.database.jobs.count_documents({}) == 1


def test_the_documentation_lists_these_limits() -> None:
    page = (ROOT / "docs" / "server.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+ \|$", page[page.index("## Limits") :], flags=re.MULTILINE)
    assert set(ABOVE) <= set(rows), set(ABOVE) - set(rows)
    assert set(rows) - set(ABOVE) == {"what", "---", *KEPT}


# What is kept of a log and of a life; tests of their own show it.
KEPT = {"kept of a log", "kept of an instance's life", "a search"}
