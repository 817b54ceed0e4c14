"""Who is let in: an application of nothing but routes with rights."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.test import Client

from DmpWorkflow.frontend.access import RIGHTS, Right
from DmpWorkflow.frontend.admission import Admission, Kind, bounds, kind_of

THREADS = 8
BOUNDS = bounds(THREADS)
KINDS = {"list": Right.READ, "export": Right.READ, "submit": Right.SUBMIT, "report": Right.REPORT}


def door(view: Callable[[], Any], waiting: int = 0) -> Client:
    """Return a client of an application whose routes all are this view."""
    app = Flask(__name__, static_folder=None)
    app.testing = True
    for name, right in KINDS.items():

        def route() -> Any:
            return view()

        setattr(route, RIGHTS, right)
        app.add_url_rule(f"/{name}", name, route)
    return Client(Admission(app, THREADS, lambda: waiting), Response)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("export", Kind.EXPORT), ("list", Kind.LIST), ("submit", Kind.CHANGE), ("report", Kind.SITE)],
)
def test_a_long_queue_is_cut_short_the_dispensable_first(name: str, kind: Kind) -> None:
    limit = BOUNDS[kind].waiting
    assert door(lambda: "done", limit).get(f"/{name}").status_code == 200
    reply = door(lambda: "done", limit + 1).get(f"/{name}")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")


def test_places_of_lower_kinds_count_and_some_are_left_for_each_higher_one() -> None:
    at_once = [BOUNDS[kind].at_once for kind in Kind]
    assert at_once == sorted(set(at_once))
    assert BOUNDS[Kind.SITE].at_once == THREADS


def test_a_reply_holds_its_place_until_its_last_byte() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "row"

    client = door(endless)
    replies = [client.get("/export") for _ in range(BOUNDS[Kind.EXPORT].at_once)]
    assert client.get("/export").status_code == 503
    assert client.get("/report", buffered=False).status_code == 200
    replies[0].close()
    assert client.get("/export").status_code == 200


def test_a_failure_gives_its_place_back() -> None:
    def broken() -> str:
        raise ZeroDivisionError

    client = door(broken)
    for _ in range(THREADS + 1):
        with pytest.raises(ZeroDivisionError):
            client.get("/list")


def test_an_unknown_address_is_told_so() -> None:
    assert door(lambda: "done").get("/nosuch").status_code == 404


@pytest.mark.parametrize(
    ("endpoint", "right", "kind"),
    [
        ("jobs.list_jobs", Right.READ, Kind.LIST),
        ("pages.jobs", Right.READ, Kind.LIST),
        ("jobs.export_instances", Right.READ, Kind.EXPORT),
        ("pages.catalogue_export", Right.READ, Kind.EXPORT),
        ("jobs.create_job", Right.SUBMIT, Kind.CHANGE),
        ("administration.list_users", Right.ADMIN, Kind.CHANGE),
        ("pages.log_in", Right.PUBLIC, Kind.CHANGE),
        ("pages.static", None, Kind.SITE),
        ("service.health", Right.PUBLIC, Kind.SITE),
        ("sites.claim", Right.FETCH, Kind.SITE),
        ("sites.heartbeat", Right.KNOWN, Kind.SITE),
        ("status.report", Right.REPORT, Kind.SITE),
        ("sites.change_catalogue", Right.REGISTER, Kind.SITE),
    ],
)
def test_what_a_route_needs_says_how_dispensable_it_is(endpoint: str, right: Right | None, kind: Kind) -> None:
    assert kind_of(endpoint, right) is kind
