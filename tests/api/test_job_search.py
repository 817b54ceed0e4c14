"""Jobs found among others: by what they are, by their counts, in any order, page by page."""

import requests

from DmpWorkflow.core.database import jobs, listing
from DmpWorkflow.core.database.connection import Database
from tests.served import Served

XML = b'<Jobs><Job name="%s" type="User"><JobWrapper executable="bash">true</JobWrapper></Job></Jobs>'


def test_a_job_is_kept_under_the_name_of_who_submitted_it(served: Served) -> None:
    token = {"Authorization": f"Bearer {served.submit_token}"}
    made = requests.post(f"{served.url}/job/", files={"file": XML % b"owned"}, headers=token, timeout=60).json()
    shown = requests.get(f"{served.url}/job/{made['jobs'][0]['slug']}/", headers=token, timeout=60).json()["job"]
    assert (shown["owner"], shown["tags"], shown["archived"], shown["parent_count"]) == ("submit", [], False, 0)


def test_a_job_stored_before_there_were_owners_reads_as_nobodys(database: Database) -> None:
    made = jobs.submit(database, jobs.NewJob("old", "User", "local", "<Jobs/>"))
    database.jobs.update_one({"_id": made["_id"]}, {"$unset": {"owner": "", "tags": "", "archived": ""}})
    row = listing.job_summary(database, jobs.by_slug(database, made["slug"]))
    assert (row["owner"], row["tags"], row["archived"]) == ("", [], False)
