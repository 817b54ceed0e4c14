"""The HTTP client of the server: for agents, for the command line, and for people in notebooks.

    from DmpWorkflow.client import Client
    client = Client("http://server:5000", token="...")
    for job in client.jobs():
        print(job["title"], job["counts"])

Every method raises an error of ``DmpWorkflow.utils.errors``: Unavailable if the server does not answer (its
``transient`` says that trying again may help), AccessDenied, NotFound, Conflict or InvalidInput.
"""

import json
import logging
import ssl
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import quote

import requests
from requests.auth import AuthBase
from urllib3.exceptions import MaxRetryError, NewConnectionError

from DmpWorkflow.utils.errors import (
    AccessDenied,
    Conflict,
    DmpWorkflowError,
    InvalidInput,
    NotFound,
    Unavailable,
)
from DmpWorkflow.utils.parts import in_parts
from DmpWorkflow.utils.patience import Patience
from DmpWorkflow.utils.text import printable
from DmpWorkflow.utils.urls import split_credential

Json = dict[str, Any]

CONNECT_SECONDS = 10.0
READ_SECONDS = 120.0
PATIENCE_SECONDS = 120.0  # longer than a server needs to be started again
ERRORS: Mapping[int, type[DmpWorkflowError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    422: InvalidInput,
}
MOST_REPORTS = 1000  # in one request
PART_OF_A_FILE = 64 * 1024  # bytes
BUSY = (429, 502, 503, 504)
NO_ANSWER = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
TRUST = "check the address, and ca_file in [server] if the server's certificate is of an authority of your own"

log = logging.getLogger(__name__)


class Given(TypedDict, total=False):
    """What a submission says beside its XML; what is left out is as the XML says."""

    title: str
    job_type: str
    site: str
    instances: int
    overrides: Mapping[str, Any]
    parents: Sequence[str]
    replace: bool
    priority: int | None


class Client:
    """A connection to the server at ``url``, with the credential ``token``; also a context manager.

    A credential in the url (``http://user:TOKEN@server``) is taken out of it, so that no message shows it.
    ``ca_file`` names the certificates to trust, if the system's do not do. Requests are repeated with growing pauses
    before Unavailable is raised, the last one ``patience`` seconds after the first; those that may not be done twice
    only until they reached the server. Each has READ_SECONDS to be answered. Redirects are not followed, so that a
    token never reaches another host.
    """

    def __init__(
        self, url: str, token: str = "", ca_file: str | Path = "", patience: float = PATIENCE_SECONDS
    ) -> None:
        url, written = split_credential(url)
        self.url = url.rstrip("/")
        self._patience = patience
        # Given with every request: a session's is overruled by REQUESTS_CA_BUNDLE in the environment.
        self._trust = str(ca_file) if ca_file else None
        self._session = requests.Session()
        self._session.auth = _Bearer(token or written)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def health(self) -> Json:
        """Return version, state of the database, and whether credentials are required."""
        return self._call("GET", "/health", patience=0)

    def whoami(self) -> Json:
        """Return role, site and name of the credential."""
        return self._call("GET", "/whoami/")

    def create_job(self, xml: bytes, **given: Unpack[Given]) -> Json:
        """Make the jobs of an XML file; returns ``jobs`` (jobID, slug, title, first, last ...) and ``warnings``."""
        return self._call("POST", "/job/", headers=_key(), **_submission(xml, given))

    def check_job(self, xml: bytes, **given: Unpack[Given]) -> Json:
        """Return what ``create_job`` would do: ``valid``, ``problems`` (line, text), ``warnings``, ``jobs``."""
        return self._call("POST", "/job/check/", **_submission(xml, given))

    def add_instances(
        self,
        title: str,
        job_type: str = "",
        number: int = 1,
        *,
        site: str = "",
        first: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Json:
        """Add instances to a job; returns ``first`` and ``last``, their numbers."""
        body: Json = {"taskname": title, "tasktype": job_type, "site": site, "n_instances": number}
        body |= {"override_dict": dict(overrides or {})} | ({"instanceId": first} if first is not None else {})
        return self._call("POST", "/jobInstances/", headers=_key(), json=body)

    def jobs(
        self, *, title: str = "", job_type: str = "", site: str = "", most: int | None = None, **chosen: Any
    ) -> Iterator[Json]:
        """Iterate over jobs with their counts, the youngest first, or as ``sort`` and ``descending`` say.

        ``chosen`` may hold text (part of title, slug, owner or tag), status, owner, tag, archived ("no", "yes" or
        "any"), since and until (ISO 8601), sort (created, title, site, type, progress, failed, total), descending.
        """
        query: Json = {"title": title, "type": job_type, "site": site, "limit": min(most or 100, 100)} | chosen
        return self._rows("/job/", query, "jobs", "before", most)

    def _rows(self, path: str, query: Json, field: str, cursor: str, most: int | None) -> Iterator[Json]:
        """Iterate over at most so many rows in ``field`` of a list's pages; ``cursor`` says where the next begins."""
        seen = 0
        while True:
            page = self._call("GET", path, params=query)
            for row in page[field]:
                yield row
                seen += 1
                if seen == most:
                    return
            if page["next"] is None:
                return
            query[cursor] = page["next"]

    def job(self, slug: str) -> Json:
        """Return one job with its counts, XML and parents."""
        found: Json = self._call("GET", f"/job/{quote(slug, safe='')}/")["job"]
        return found

    def change_job(
        self,
        slug: str,
        *,
        priority: int | None = None,
        tags: Sequence[str] | None = None,
        archived: bool | None = None,
        retries: int | None = None,
        retry_on: Sequence[str] | None = None,
        lost_after: int | None = None,
        paused: bool | None = None,
    ) -> Json:
        """Change what is given of a job, and return the job; one with unfinished instances cannot be archived.

        ``retry_on`` has classes of failure (site, payload, limits, lost) or details like ApplicationExitCode3;
        ``lost_after`` are seconds of silence, 0 for those of the server's settings.
        """
        lists = {"tags": tags, "retry_on": retry_on}
        given: Json = {name: None if words is None else list(words) for name, words in lists.items()}
        given |= {"priority": priority, "archived": archived, "retries": retries}
        given |= {"lost_after": lost_after, "paused": paused}
        body = {name: value for name, value in given.items() if value is not None}
        changed: Json = self._call("PATCH", f"/job/{quote(slug, safe='')}/", json=body)["job"]
        return changed

    def remove_job(self, slug: str, title: str) -> int:
        """Remove a job, ``title`` being its name for safety, with all its instances; returns how many these were."""
        reply = self._call("DELETE", f"/job/{quote(slug, safe='')}/", once=True, json={"confirm": title})
        number: int = reply["removed"]
        return number

    def clone_job(self, slug: str, title: str, instances: int = 0) -> Json:
        """Make a job of another name from a job's XML and parents; returns what create_job does."""
        body = {"title": title, "n_instances": instances}
        return self._call("POST", f"/job/{quote(slug, safe='')}/clone/", headers=_key(), json=body)

    def instances(
        self, slug: str, *, status: str = "", after: int | None = None, most: int | None = None, **chosen: Any
    ) -> Iterator[Json]:
        """Iterate over a job's instances in the order of their numbers, those above ``after``.

        ``status`` may name several with commas. ``chosen`` may hold minor_status, host, n_min (exclusive), n_max
        (inclusive), text (part of the log), sort (number, last_update, host, attempt, cpu_peak, memory_peak) and
        descending.
        """
        query: Json = {"status": status, "after": after, "limit": min(most or 1000, 1000)} | chosen
        return self._rows(f"/job/{quote(slug, safe='')}/instances/", query, "instances", "after", most)

    def export(self, slug: str, file_format: str = "csv", **chosen: Any) -> Iterator[bytes]:
        """Iterate over parts of a file, "csv" or "json", of a job's instances; ``chosen`` as for ``instances``."""
        path, query = f"/job/{quote(slug, safe='')}/export/", {"format": file_format} | chosen
        with self._send("GET", path, params=query, stream=True) as reply:
            if not reply.ok or reply.is_redirect:
                self._read(reply)  # raises what that means
            try:
                yield from reply.iter_content(PART_OF_A_FILE)
            except requests.RequestException as error:
                raise Unavailable(f"{self.url} broke off: what came is not complete") from error

    def instance(self, slug: str, number: int) -> Json:
        """Return all that is known of one instance."""
        found: Json = self._call("GET", f"/job/{quote(slug, safe='')}/instances/{number}/")["instance"]
        return found

    def find_instances(self, title: str, job_type: str, status: str = "Any", **bounds: int | None) -> list[Json]:
        """Return jobId and instanceId of instances; ``bounds``: inst, n_min (exclusive), n_max (inclusive)."""
        query = {"title": title, "type": job_type, "stat": status}
        query |= {name: str(value) for name, value in bounds.items() if value is not None}
        try:
            found: list[Json] = self._call("GET", "/jobstatus/", params=query)["jobs"]
        except NotFound:
            return []
        return found

    def roll_back(
        self,
        job: str,
        *,
        instances: Sequence[int] | None = None,
        status: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        **chosen: Any,
    ) -> int:
        """Roll instances of a job (slug or id) back to New, the failed ones if none are named; returns how many.

        ``chosen`` may hold minor_status, host, n_min (exclusive), n_max (inclusive) and text (part of the log).
        """
        body: Json = {"job": job} | {name: value for name, value in chosen.items() if value is not None}
        body |= {"instances": list(instances)} if instances is not None else {}
        body |= {"status": status} if status else {}
        body |= {"override_dict": dict(overrides)} if overrides is not None else {}
        number: int = self._call("POST", "/rollback/", once=True, json=body)["rolled_back"]
        return number

    def kill(
        self,
        job: str,
        *,
        instances: Sequence[int] | None = None,
        status: str = "Any",
        **chosen: Any,
    ) -> Json:
        """End instances of a job (slug or id); returns ``ended`` and ``ordered``, which end with the next cycles.

        ``chosen`` may hold minor_status, host, n_min (exclusive), n_max (inclusive) and text (part of the log).
        """
        body: Json = {"job": job, "status": status}
        body |= {name: value for name, value in chosen.items() if value is not None}
        body |= {"instances": list(instances)} if instances is not None else {}
        return self._call("POST", "/kill/", json=body)

    def site_healths(self, site: str = "") -> list[Json]:
        """Return how sites do (site, light, reason, last_beat, counts, ended, failing), those in trouble first."""
        found: list[Json] = self._call("GET", "/statistics/sites/", params={"site": site})["sites"]
        return found

    def failures(self, site: str = "") -> list[Json]:
        """Return the most frequent failures of the last day (site, status, minor_status, number)."""
        found: list[Json] = self._call("GET", "/statistics/failures/", params={"site": site})["failures"]
        return found

    def hosts(self, site: str) -> list[Json]:
        """Return a site's hosts (hostname, done, failed, terminated, rate), those that fail most first."""
        found: list[Json] = self._call("GET", "/statistics/hosts/", params={"site": site})["hosts"]
        return found

    def job_progress(self, slug: str) -> Json:
        """Return how far a job is (over, total, per_hour, expected_end, events, efficiency)."""
        found: Json = self._call("GET", f"/statistics/jobs/{quote(slug, safe='')}/progress/")
        return {name: value for name, value in found.items() if name != "result"}

    def job_failures(self, slug: str, by: str) -> list[Json]:
        """Return groups of a job's failures (value, number, example) by minor_status, hostname or last_line."""
        path = f"/statistics/jobs/{quote(slug, safe='')}/failures/{by}/"
        found: list[Json] = self._call("GET", path)["groups"]
        return found

    def claim(self, site: str, limit: int, *, agent: str, request_id: str, lease: int = 3600) -> Json:
        """Claim instances; returns ``definitions`` and ``instances``. The same ``request_id`` returns the same."""
        body = {"site": site, "limit": limit, "agent": agent, "request_id": request_id, "lease": lease}
        return self._call("POST", "/newjobs/", json=body)

    def waiting(self, site: str, statuses: Sequence[str] = ("New",)) -> int:
        """Return how many instances of the site are in these statuses."""
        query = {"site": site, "status_list": ",".join(statuses), "fastQuery": "True"}
        number: int = self._call("GET", "/newjobs/", params=query)["jobs"]
        return number

    def watched(self, site: str) -> list[Json]:
        """Return the running instances of a site with their limits (t_id, inst_id, max_cpu, max_mem ...)."""
        found: list[Json] = self._call("GET", "/watchdog/", params={"site": site})["jobs"]
        return found

    def report(self, arguments: Mapping[str, Any]) -> Json:
        """Send one report (t_id, inst_id, major_status ...)."""
        return self._call("POST", "/jobstatus/", json={"args": dict(arguments)})

    def report_many(self, reports: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Send reports, as many in one request as the server takes; returns a result for each, in their order."""
        results: list[Json] = []
        for part in in_parts(reports, MOST_REPORTS):
            body = {"reports": [dict(report) for report in part]}
            results += self._call("POST", "/jobstatusBulk/", json=body)["results"]
        return results

    def agent_heartbeat(
        self, beat: Mapping[str, Any], holds: Sequence[Mapping[str, Any]] | None = None
    ) -> list[Json]:
        """Send an agent's sign of life (site, agent, hostname, version, problem) with what it holds, if it knows.

        ``holds`` has rows of job_id, attempt and instances (numbers). Returns such rows with the ``answer`` adopt,
        over, kill, cancel or unknown; what is in none just goes on.
        """
        body = dict(beat) | ({} if holds is None else {"holds": [dict(held) for held in holds]})
        answers: list[Json] = self._call("POST", "/agents/heartbeat/", json=body)["answers"]
        return answers

    def heartbeat(self, hostname: str, process: str, version: str) -> None:
        """Send a sign of life of a process."""
        self._call("POST", "/testDB/", json={"hostname": hostname, "process": process, "version": version})

    def heartbeats(self, most: int = 100) -> list[str]:
        """Return the hosts that were heard of last."""
        hosts: list[str] = self._call("GET", "/testDB/", params={"limit": most})["beats"]
        return hosts

    def files(self, *, site: str = "", status: str = "", filetype: str = "", most: int = 100) -> list[str]:
        """Return names of files in the catalogue."""
        query = {"site": site, "status": status, "filetype": filetype, "limit": most}
        names: list[str] = self._call("GET", "/datacat/", params=query)["files"]
        return names

    def file_rows(
        self,
        *,
        name: str = "",
        site: str = "",
        status: str = "",
        filetype: str = "",
        sort: str = "time",
        most: int | None = None,
    ) -> Iterator[Json]:
        """Iterate over files in the catalogue (id, filename, site, filetype, status, created_at, last_update).

        ``name`` is the beginning of a full name (/data/..., root://...) or any part of one; ``sort``: time, name.
        """
        query: Json = {"name": name, "site": site, "status": status, "filetype": filetype, "sort": sort}
        query["limit"] = min(most or 1000, 1000)
        return self._rows("/datacat/files/", query, "files", "after", most)

    def change_file(self, action: str, filename: str, *, site: str, **fields: str) -> list[str]:
        """Register a file, set its status or delete it (``action``: register, setStatus, delete)."""
        body = {"action": action, "filename": filename, "site": site} | fields
        ids: list[str] = self._call("POST", "/datacat/", json=body)["docId"]
        return ids

    def tokens(self) -> list[Json]:
        """Return all tokens (name, role, site, created_at, last_used, expires), less their secrets."""
        found: list[Json] = self._call("GET", "/administration/tokens/")["tokens"]
        return found

    def create_token(self, name: str, role: str, site: str | None = None, expires: str = "") -> str:
        """Make a token (role: admin, operator, submit, read, or site with its ``site``) and return it.

        ``expires``: after so many days, or with a date as in 2027-01-31; an empty text means never.
        """
        body = {"name": name, "role": role, "site": site, "expires": expires}
        text: str = self._call("POST", "/administration/tokens/", once=True, json=body)["token"]
        return text

    def revoke_token(self, name: str) -> None:
        """Make a token worthless, at once."""
        self._call("POST", "/administration/tokens/revoke/", once=True, json={"name": name})

    def users(self) -> list[Json]:
        """Return all users (name, role, site, created_at, last_used, disabled)."""
        found: list[Json] = self._call("GET", "/administration/users/")["users"]
        return found

    def create_user(self, name: str, password: str, role: str, site: str | None = None) -> None:
        """Make a user who logs in with a password."""
        body = {"name": name, "password": password, "role": role, "site": site}
        self._call("POST", "/administration/users/", once=True, json=body)

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password, which ends all sessions of that user."""
        self._call("POST", "/administration/users/password/", json={"name": name, "password": password})

    def disable_user(self, name: str, disabled: bool = True) -> None:
        """Keep a user out, at once, or let the user in again."""
        path = f"/administration/users/{'disable' if disabled else 'enable'}/"
        self._call("POST", path, json={"name": name})

    def remove_user(self, name: str) -> None:
        """Remove a user, at once."""
        self._call("POST", "/administration/users/remove/", once=True, json={"name": name})

    def words(self) -> Json:
        """Return ``types`` and ``sites``: each word, whether it is configured, and how many jobs use it."""
        return self._call("GET", "/administration/words/")

    def detailed_health(self) -> Json:
        """Return facts about the ``server`` and the ``database``."""
        return self._call("GET", "/administration/health/")

    def maintenance(self) -> list[Json]:
        """Return the maintenance actions with their last results."""
        found: list[Json] = self._call("GET", "/administration/maintenance/")["actions"]
        return found

    def maintain(self, action: str, dry_run: bool = False) -> Json:
        """Do a maintenance action, or with ``dry_run`` say what it would do; returns it with its result."""
        body = {"action": action, "dry_run": dry_run}
        done: Json = self._call("POST", "/administration/maintenance/", once=True, json=body)["action"]
        return done

    def audit(self, *, most: int | None = None, **chosen: Any) -> Iterator[Json]:
        """Iterate over changes (time, who, role, address, action, target, before, after), the newest first.

        ``chosen`` may hold who, action (as in job.remove), target (as in job/SLUG), since and until (ISO 8601).
        """
        query: Json = {"limit": min(most or 1000, 1000)} | chosen
        return self._rows("/administration/audit/", query, "rows", "before", most)

    def _call(
        self, method: str, path: str, once: bool = False, patience: float | None = None, **content: Any
    ) -> Json:
        """Send a request and return its reply, as ``_send`` does."""
        return self._read(self._send(method, path, once, patience, **content))

    def _send(
        self, method: str, path: str, once: bool = False, patience: float | None = None, **content: Any
    ) -> requests.Response:
        """Send a request until it is answered; one that may act ``once`` only until it has reached the server."""
        tries = Patience(self._patience if patience is None else patience)
        while True:
            try:
                reply = self._try(method, path, **content)
            except Unavailable as error:
                if not _may_follow(error, once) or not tries.wait():
                    raise
            else:
                if once or reply.status_code not in BUSY or not tries.wait(_retry_after(reply)):
                    return reply
                reply.close()
            log.info("%s does not answer or is busy: trying again for up to %.0f s", self.url, tries.left)

    def _try(self, method: str, path: str, **content: Any) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.url + path,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                verify=self._trust,
                **content,
            )
        except requests.exceptions.SSLError as error:
            raise Unavailable(f"{self.url}: no trusted connection ({_why_no_trust(error)}): {TRUST}") from error
        except requests.RequestException as error:
            raise Unavailable(f"{self.url} does not answer: check [server] url and the network") from error
        except OSError as error:  # how requests says that there is no such file
            raise Unavailable(f"ca_file {self._trust}: cannot be read: check [server] ca_file") from error

    def _read(self, reply: requests.Response) -> Json:
        if reply.is_redirect:
            place = printable(reply.headers["Location"])
            raise Unavailable(f"{self.url} redirects to {place}: set that as [server] url")
        try:
            body = reply.json()
        except ValueError as error:
            raise Unavailable(
                f"{self.url} answers HTTP {reply.status_code} and no JSON: is it the server?"
            ) from error
        if reply.ok and isinstance(body, dict) and body.get("result") == "ok":
            return body
        text = str(body.get("error", body)) if isinstance(body, dict) else str(body)
        if reply.status_code in BUSY:
            raise Unavailable(f"{self.url} is busy: {text}")
        raise ERRORS.get(reply.status_code, InvalidInput if reply.ok else DmpWorkflowError)(text)


def _submission(xml: bytes, given: Given) -> Json:
    fields: Json = {
        "taskname": given.get("title", ""),
        "t_type": given.get("job_type", ""),
        "site": given.get("site", ""),
        "n_instances": given.get("instances", 0),
        "override_dict": json.dumps(given.get("overrides", {})),
        "depends": list(given.get("parents", ())),
        "priority": given.get("priority"),  # None is not sent
    }
    fields |= {"replace": "1"} if given.get("replace") else {}
    return {"data": fields, "files": {"file": ("job.xml", xml)}}


class _Bearer(AuthBase):
    """Sets the credential, also where a .netrc names another one."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _why_no_trust(error: BaseException) -> str:
    """Return in a few words why a connection is not trusted, out of the layers of errors around that."""
    layers: list[object] = [error]
    while layers:
        layer = layers.pop()
        if isinstance(layer, ssl.SSLError):
            return getattr(layer, "verify_message", "") or layer.reason or "TLS failed"
        if isinstance(layer, BaseException):
            layers += [*layer.args, getattr(layer, "reason", None)]
    return "TLS failed"


def _key() -> dict[str, str]:
    """Return what tells a repeated request from a second one."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def _may_follow(error: Unavailable, once: bool) -> bool:
    """Say whether another try may help after ``error``, and does no harm."""
    cause = error.__cause__
    if isinstance(cause, requests.exceptions.SSLError) or not isinstance(cause, NO_ANSWER):
        return False
    return not once or _never_arrived(cause)


def _never_arrived(error: requests.RequestException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = error.args[0] if error.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)


def _retry_after(reply: requests.Response) -> float:
    """Return the seconds that the server asks for, 0 if it names none."""
    text = reply.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
