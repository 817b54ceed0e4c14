"""Wrong credentials have to wait, good ones never; with two worker processes that count together."""

import re
from collections.abc import Iterator

import pytest
import requests

from DmpWorkflow.backend.outbox import Answer, Delivery
from DmpWorkflow.backend.reporter import Sender
from DmpWorkflow.client import Client
from DmpWorkflow.core.database import clock, users
from DmpWorkflow.frontend import throttle
from DmpWorkflow.utils.errors import AccessDenied, Unavailable
from tests.served import Served

PASSWORD = "a long password"
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


@pytest.fixture(autouse=True)
def begin_anew(served: Served) -> Iterator[None]:
    yield
    served.database.failed_tries.delete_many({})


def log_in(served: Served, **fields: str) -> requests.Response:
    with requests.Session() as browser:
        found = CSRF.search(browser.get(f"{served.url}/login", timeout=60).text)
        assert found is not None
        form = {"csrf_token": found[1], **fields}
        return browser.post(f"{served.url}/login", data=form, timeout=60, allow_redirects=False)


def test_a_user_name_has_ten_tries(served: Served) -> None:
    users.create(served.database, "anna", PASSWORD, "read")
    users.create(served.database, "bert", PASSWORD, "read")
    refused = [log_in(served, name="anna", password=f"wrong {number}").status_code for number in range(10)]
    assert refused == [401] * 10
    reply = log_in(served, name="anna", password=PASSWORD)  # a good guess must not be told from a bad one
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["Retry-After"]) <= 300
    assert "too many passwords of this user were wrong: try again in" in reply.text
    assert served.database.audit.count_documents({"action": "login.failed", "who": "anna"}) == 10
    assert log_in(served, name="bert", password=PASSWORD).status_code == 302
    assert log_in(served, token=served.read_token).status_code == 302
    served.database.failed_tries.update_many({}, {"$set": {"until": clock.now()}})  # time passes
    assert log_in(served, name="anna", password=PASSWORD).status_code == 302


def test_an_address_has_thirty_tries_with_whatever_names(served: Served) -> None:
    assert log_in(served, name="x" * 100_000, password="wrong").status_code == 401
    served.database.failed_tries.update_many({"_id": {"$regex": "login-from/127.0.0.1"}}, {"$set": {"number": 29}})
    assert log_in(served, name="\udcff\x00".encode(errors="replace").decode(), password="wrong").status_code == 401
    reply = log_in(served, name="nobody", password="wrong")
    assert reply.status_code == 429 and "passwords from this address" in reply.text


def bad(served: Served, **headers: str) -> requests.Response:
    given = {"Authorization": "Bearer wrong"} | headers
    return requests.get(f"{served.url}/whoami/", headers=given, timeout=60)


def test_unknown_tokens_have_to_wait_and_good_ones_from_the_same_address_do_not(served: Served) -> None:
    assert bad(served).status_code == 401
    served.database.failed_tries.update_many({}, {"$set": {"number": throttle.TOKENS_FROM_ONE.most - 2}})
    assert [bad(served, **{"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(4)] == [401, 401, 429, 429]
    reply = bad(served)
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    assert reply.json()["error"].startswith("too many tokens from this address were wrong: try again in")
    old = requests.post(f"{served.url}/testDB/", data={"hostname": "h"}, auth=("site", "wrong"), timeout=60)
    assert old.status_code == 429  # not 200, as old clients get errors otherwise
    for _ in range(20):
        assert Client(served.url, served.read_token, patience=0).whoami()["role"] == "read"
    assert requests.get(f"{served.url}/whoami/", timeout=60).status_code == 401  # no credential is no wrong one


def test_clients_and_payloads_wait_and_try_again(served: Served) -> None:
    with Client(served.url, "wrong", patience=0) as client, pytest.raises(AccessDenied):
        client.whoami()
    served.database.failed_tries.update_many({}, {"$set": {"number": 1000}})
    with (
        Client(served.url, "wrong", patience=0) as client,
        pytest.raises(Unavailable, match="is busy: too many") as busy,
    ):
        client.whoami()
    assert busy.value.transient
    send = Sender(Delivery(served.url, "wrong"))
    assert send({"t_id": "0" * 24, "inst_id": 1, "major_status": "Running"}) is Answer.LATER


def test_good_tokens_ask_for_no_counter(served: Served) -> None:
    Client(served.url, served.read_token).whoami()
    log_in(served, token=served.read_token)
    assert served.database.failed_tries.count_documents({}) == 0
