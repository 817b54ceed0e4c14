"""The original's clients: requests as they send them (form bodies, also with GET), replies as they were recorded."""

import io
import json
from typing import Any

import pytest
import requests

from tests.served import Served

XML = b"""<Jobs>
	<Job release="5-1-2" type='User'>
		<MetaData>
			<Var name="USER_DIR" value="/data/userdir" var_type="str"/>
		</MetaData>
		<InputFiles/>
		<OutputFiles>
			<File source="test.dat" target="${USER_DIR}/my_test.dat" file_type="root" />
		</OutputFiles>
			<JobWrapper executable="bash"><![CDATA[
#! /bin/bash
echo "Hello World"
echo "my name is $(hostname)" > test.dat
]]>		
			</JobWrapper>
	</Job>
</Jobs>"""  # noqa: W291 - the original's example, verbatim
OVERRIDES = {"InputFiles": [], "OutputFiles": [], "MetaData": [{"name": "A", "value": "1", "var_type": "string"}]}


class OldClient:
    """What the original's scripts do with the requests library: a url with a credential in it, and dictionaries."""

    def __init__(self, served: Served, token: str) -> None:
        self.url = served.url.replace("http://", f"http://site:{token}@")

    def get(self, path: str, **data: Any) -> dict[str, Any]:
        return self.read(requests.get(self.url + path, data=data, timeout=30))

    def post(self, path: str, **data: Any) -> dict[str, Any]:
        return self.read(requests.post(self.url + path, data=data, timeout=30))

    def report(self, **arguments: Any) -> dict[str, Any]:
        return self.post("/jobstatus/", args=json.dumps(arguments))

    def create(self, **data: Any) -> dict[str, Any]:
        files = {"file": io.BytesIO(XML)}
        return self.read(requests.post(f"{self.url}/job/", data=data, files=files, timeout=30))

    @staticmethod
    def read(reply: requests.Response) -> dict[str, Any]:
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        return found


@pytest.fixture(scope="module")
def client(served: Served) -> OldClient:
    return OldClient(served, served.admin_token)


@pytest.fixture(scope="module")
def job(client: OldClient) -> str:
    made = client.create(
        taskname="rec1", t_type="User", site="TEST", n_instances=2, override_dict=str(OVERRIDES), depends="None"
    )
    assert made["result"] == "ok"
    assert (
        client.post("/jobInstances/", taskname="rec1", tasktype="User", n_instances=1, override_dict=str(OVERRIDES))[
            "result"
        ]
        == "ok"
    )
    found: str = made["jobID"]
    return found


def test_create_without_a_name(client: OldClient) -> None:
    assert client.create(taskname="", t_type="User", site="TEST", n_instances=1, override_dict="{}") == {
        "error": "task name must be defined",
        "result": "nok",
        "jobID": "None",
    }


def test_add_to_an_unknown_job(client: OldClient) -> None:
    assert client.post("/jobInstances/", taskname="nosuch", tasktype="User", n_instances=1, override_dict="{}") == {
        "result": "nok",
        "error": "Could not find job nosuch",
    }


def test_the_life_of_an_instance(client: OldClient, job: str) -> None:
    fetched = client.get("/newjobs/", site="TEST", limit=1)
    assert fetched["result"] == "ok"
    entry = json.loads(fetched["jobs"][0])
    assert entry == {
        "InputFiles": [],
        "MetaData": [
            {"name": "USER_DIR", "value": "/data/userdir", "var_type": "str"},
            {"name": "A", "value": "1", "var_type": "string"},
        ],
        "OutputFiles": [{"file_type": "root", "source": "test.dat", "target": "/data/userdir/my_test.dat"}],
        "batchId": None,
        "batchdefaults": {
            "cputime": "24:00", "extra": "", "memory": "1000.0", "name": "TEST", "queue": "", "requirements": "",
            "system": "lsf",
        },
        "error_log": "",
        "execCommand": None,
        "exec_wrapper": '\n#! /bin/bash\necho "Hello World"\necho "my name is $(hostname)" > test.dat\n',
        "executable": "bash",
        "instanceId": 1,
        "jobId": job,
        "logfile": None,
        "name": "rec1",
        "priority": "0",
        "py/object": "DmpWorkflow.core.DmpJob.DmpJob",
        "release": "5-1-2",
        "script": None,
        "site": "TEST",
        "title": "rec1",
        "type": "User",
        "wd": "/data/run",
    }  # fmt: skip
    assert client.report(
        t_id=job, inst_id=1, major_status="Submitted", minor_status="WaitingForExecution", batchId="172831.0",
        cpu=0.0, memory=0.0,
    )["result"] == "ok"  # fmt: skip
    assert client.report(
        t_id=job, inst_id=1, major_status="Running", minor_status="PreparingJob", hostname="wn042", batchId="172831",
        cpu_max=86400.0, mem_max=4000.0, body="{}",
    )["result"] == "ok"  # fmt: skip
    assert client.report(
        t_id=job, inst_id=1, major_status="Running", minor_status=None, cpu=12.5, memory=321.0
    )["result"] == "ok"  # fmt: skip
    watched = client.get("/watchdog/", site="TEST")
    assert watched["jobs"] == [
        {
            "t_id": job,
            "inst_id": 1,
            "batchId": "172831",
            "major_status": "Running",
            "max_cpu": 86400.0,
            "max_mem": 4000.0,
        }
    ]
    done = {"t_id": job, "inst_id": 1, "major_status": "Done", "minor_status": "ApplicationComplete", "log": ""}
    assert client.report(**done)["result"] == "ok"
    assert client.report(**done)["result"] == "ok"
    assert client.get("/jobstatus/", title="rec1", type="User", stat="Done") == {
        "jobs": [{"instanceId": 1, "jobId": job}],
        "result": "ok",
    }
    refused = client.report(t_id=job, inst_id=1, major_status="Running")
    assert refused["result"] == "nok" and "Done cannot become Running" in refused["error"]


def test_reports_that_make_no_sense(client: OldClient, job: str) -> None:
    assert client.report(t_id=job, inst_id=99, major_status="Running")["result"] == "nok"
    nonsense = client.report(t_id=job, inst_id=2, major_status="Nonsense", minor_status="x")
    assert nonsense["result"] == "nok" and "status not found in supported list of statii" in nonsense["error"]


def test_no_match_and_a_range(client: OldClient, job: str) -> None:
    assert client.get("/jobstatus/", title="rec1", type="User", stat="Failed") == {
        "result": "nok",
        "error": "could not find any job instances matching query",
    }
    assert client.get("/jobstatus/", title="rec1", type="User", stat="Any", n_min=1, n_max=3) == {
        "jobs": [{"instanceId": 3, "jobId": job}, {"instanceId": 2, "jobId": job}],
        "result": "ok",
    }


def test_roll_back_as_the_script_and_as_the_browser_send_it(client: OldClient, served: Served, job: str) -> None:
    arguments = {
        "t_id": job, "inst_id": 2, "major_status": "New", "minor_status": "AwaitingBatchSubmission", "hostname": None,
        "batchId": None, "status_history": [], "body": str(OVERRIDES), "log": "", "cpu": [], "memory": [],
        "created_at": "Now",
    }  # fmt: skip
    assert client.report(**arguments)["result"] == "ok"
    reply = requests.post(f"{client.url}/jobstatus/", json={"args": arguments}, timeout=30)
    assert (reply.status_code, reply.json()["result"]) == (200, "ok")


def test_heartbeats(client: OldClient) -> None:
    beat = {
        "hostname": "wn042.example.org",
        "timestamp": "2016-09-01 12:00:00",
        "process": "JobFetcher",
        "version": "2.1.8",
    }
    assert client.post("/testDB/", **beat) == {"result": "ok"}
    assert client.get("/testDB/", limit=5) == {"beats": ["wn042.example.org"], "result": "ok"}


def test_the_data_catalogue(client: OldClient) -> None:
    files = {"filename": "/a/rec1.root,/a/rec2.root", "site": "TEST", "action": "register", "overwrite": "False"}
    assert client.post("/datacat/", **files) == {"docId": [], "result": "ok"}
    listed = {"site": "TEST", "status": "New", "filetype": "root", "limit": 5}
    assert client.get("/datacat/", **listed) == {"files": ["/a/rec2.root", "/a/rec1.root"], "result": "ok"}
    changed = client.post("/datacat/", filename="/a/rec1.root", site="TEST", action="setStatus", status="Copied")
    assert changed["result"] == "ok" and len(changed["docId"]) == 1
    assert client.post("/datacat/", filename="/a/none.root", site="TEST", action="delete") == {
        "result": "nok",
        "error": "cannot find file in DB",
    }
    assert client.post("/datacat/", filename="/a/rec2.root", site="TEST", action="delete") == {
        "docId": ["/a/rec2.root"],
        "result": "ok",
    }


def test_the_forks_count_and_bulk_report(client: OldClient, job: str) -> None:
    client.post("/jobInstances/", taskname="rec1", tasktype="User", n_instances=2, override_dict="{}")
    active = {"site": "TEST", "status_list": "Running,Submitted,Suspended", "fastQuery": "True"}
    before = client.get("/newjobs/", **active)["jobs"]
    items = json.dumps([{"t_id": job, "instanceId": 4}, {"t_id": job, "instanceId": 5}])
    sent = client.post("/jobstatusBulk/", data=items, status="Submitted", minor_status="WaitingForExecution")
    assert sent == {"result": "ok", "njobs": 2}
    assert client.get("/newjobs/", **active)["jobs"] == before + 2


def test_a_literal_is_read_and_never_run(client: OldClient, job: str) -> None:
    for text in ("__import__('os').getcwd()", "{'MetaData': " + "[" * 500 + "]" * 500 + "}", "{" * 70_000):
        reply = client.post("/jobInstances/", taskname="rec1", tasktype="User", n_instances=1, override_dict=text)
        assert reply["result"] == "nok" and reply["error"].startswith("override_dict")


def test_what_a_site_may_do_with_its_credential(served: Served, job: str) -> None:
    site = OldClient(served, served.site_token)
    assert site.get("/newjobs/", site="local", limit=1)["jobs"] == []
    with pytest.raises(requests.HTTPError, match="403"):
        site.get("/newjobs/", site="TEST", limit=1)
    with pytest.raises(requests.HTTPError, match="403"):
        site.report(t_id=job, inst_id=3, major_status="Submitted")
