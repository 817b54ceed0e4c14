"""The client before a server that answers by a script."""

import socket
import threading
from collections.abc import Iterator

import pytest

from DmpWorkflow.client import Client
from DmpWorkflow.utils import patience
from DmpWorkflow.utils.errors import Unavailable
from tests.agent.runner_support import BUSY, OK, Reply, StandIn, stand_in

SECONDS = 60.0


@pytest.fixture
def answers() -> list[Reply]:
    """What the server answers, in turn; ok when there is no more."""
    return []


@pytest.fixture
def server(answers: list[Reply], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)
    with stand_in(answer=lambda report: answers.pop(0) if answers else OK) as server:
        yield server


def report(client: Client) -> None:
    client.report({"major_status": "Running"})


def test_a_busy_server_is_asked_again(server: StandIn, answers: list[Reply]) -> None:
    answers += [BUSY, (429, {"result": "nok"}), (502, "a proxy's page")]
    with Client(server.url, patience=SECONDS) as client:
        report(client)
    assert answers == [] and len(server.reports) == 1


def test_without_patience_a_busy_server_is_an_error_at_once(server: StandIn, answers: list[Reply]) -> None:
    answers += [BUSY]
    with Client(server.url, patience=0) as client, pytest.raises(Unavailable, match="is busy: not now"):
        report(client)


def test_what_may_be_done_once_only_is_not_sent_again(server: StandIn, answers: list[Reply]) -> None:
    answers += [BUSY]
    with Client(server.url, patience=SECONDS) as client, pytest.raises(Unavailable, match="is busy"):
        client._call("POST", "/jobstatus/", once=True, json={"args": {}})
    assert answers == [] and server.reports == []


def test_a_server_that_is_not_there_yet_is_waited_for_in_any_case(server: StandIn) -> None:
    """Nothing was sent, so that nothing can be done twice."""
    server.close()
    with Client(server.url, patience=SECONDS) as client:
        session, tries = client._session, []
        request = session.request

        def start_at_the_third(*arguments: object, **values: object) -> object:
            tries.append(arguments)
            if len(tries) == 3:
                started.append(StandIn(server.port))
            return request(*arguments, **values)  # type: ignore[arg-type]

        started: list[StandIn] = []
        session.request = start_at_the_third  # type: ignore[method-assign, assignment]
        client._call("POST", "/jobstatus/", once=True, json={"args": {}})
        assert len(started[0].reports) == 1
    started[0].close()


def test_a_connection_that_breaks_may_have_reached_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        asked = []

        def close_it() -> None:
            connection, _ = listening.accept()
            asked.append(connection.recv(1000))
            connection.close()

        closing = threading.Thread(target=close_it)
        closing.start()
        with Client(url, patience=SECONDS) as client, pytest.raises(Unavailable, match="does not answer"):
            client._call("POST", "/jobstatus/", once=True, json={"args": {}})
        closing.join()
    assert len(asked) == 1
