"""An application in this process, for tests of who may do what: quick, and from any address."""

import re
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import mongoengine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from DmpWorkflow.config.loader import load
from DmpWorkflow.core.database import claims, credentials, jobs
from DmpWorkflow.core.database.connection import Database, Document
from DmpWorkflow.core.database.mongod import EmbeddedMongod
from DmpWorkflow.core.database.submission import Submission, Words, submit_xml

with warnings.catch_warnings():  # flask-mongoengine warns of parts of it that we do not use
    warnings.simplefilter("ignore")
    from DmpWorkflow.frontend.app import create_app

# Tokens: two may submit, of which one made the job; two are of sites, of which one is the job's.
WITH_TOKENS = ("read", "stranger", "owner", "site", "elsewhere", "operator", "admin")
AT_HOME, ABROAD = "10.1.2.3", "192.0.2.1"  # a network with auth = optional, and any other

CONFIGURATION = """\
[global]
installation = server
[server]
auth = required
auth_networks = 10.1.0.0/16 optional, 10.1.9.0/24 required, 127.0.0.0/8 off, fd00::/8 optional
[database]
uri = {uri}
name = {name}
[JobDB]
batch_sites = local,CNAF
"""
XML = "<Jobs><Job name='{name}' type='User'><JobWrapper executable='sh'>true</JobWrapper></Job></Jobs>"
COOKIE = "dampe_session"
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


@dataclass
class House:
    """An application in this process, a token of each kind, and a job of the owner's with an attempt under way."""

    app: Flask
    database: Database
    tokens: dict[str, str] = field(default_factory=dict)
    job: Document = field(default_factory=dict)
    form: tuple[str, str] = ("", "")  # the cookie of somebody who has seen a form, and the token in that

    def client(self) -> FlaskClient:
        """Return a browser of nobody in particular, which has seen a form."""
        client = self.app.test_client()
        client.environ_base["REMOTE_ADDR"] = ABROAD
        if not self.form[0]:
            self.form = self.see_form(client)
        client.set_cookie(COOKIE, self.form[0])
        client.environ_base["HTTP_X_CSRFTOKEN"] = self.form[1]
        return client

    @staticmethod
    def see_form(client: FlaskClient) -> tuple[str, str]:
        """Return the cookie, and the token against forged requests, that go with a page."""
        found = CSRF.search(client.get("/login").text)
        cookie = client.get_cookie(COOKIE)
        assert found is not None and cookie is not None
        return cookie.value, found[1]

    def logged_in(self, **fields: str) -> FlaskClient:
        """Return a browser in which somebody has logged in."""
        client = self.client()
        reply = client.post("/login", data=fields)
        assert reply.status_code == 302, reply.text
        client.environ_base["HTTP_X_CSRFTOKEN"] = self.see_form(client)[1]
        return client

    def ask(self, method: str, path: str, token: str = "", *, at: str = ABROAD, **content: Any) -> TestResponse:
        """Send a request with a token, or without any credential, from an address."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.app.test_client(use_cookies=False).open(
            path, method=method, headers=headers, environ_base={"REMOTE_ADDR": at}, **content
        )

    def new_job(self, owner: str, instances: int = 1, site: str = "local") -> Document:
        """Make a job."""
        name = f"job-{uuid.uuid4().hex[:8]}"
        new = Submission(XML.format(name=name).encode(), site=site, instances=instances, owner=owner)
        rows, _ = submit_xml(self.database, new, Words(("User",), ("local", "CNAF")))
        return jobs.by_slug(self.database, rows[0]["slug"])

    def claim(self) -> list[Document]:
        """Hand out what waits at the site "local"."""
        request = claims.ClaimRequest("local", "agent", uuid.uuid4().hex, 100, timedelta(hours=1))
        return claims.claim(self.database, request)

    def attempt_token(self, instance: Document) -> str:
        """Return the token of the attempt that was claimed."""
        secret = credentials.secret(self.database)
        return credentials.attempt_token(secret, str(instance["job"]), instance["instanceId"], instance["attempt"])


def build(mongod: EmbeddedMongod, folder: Path) -> Iterator[House]:
    """Make an application on a database of its own; yields it, and takes it down again."""
    path = folder / "server.cfg"
    path.write_text(CONFIGURATION.format(uri=mongod.uri, name="house"))
    app = create_app(load(path).settings)
    made = House(app, app.extensions["dampe_database"])
    for name in WITH_TOKENS:
        role = {"stranger": "submit", "owner": "submit", "elsewhere": "site"}.get(name, name)
        site = {"site": "local", "elsewhere": "CNAF"}.get(name)
        made.tokens[name] = credentials.create(made.database, name, role, site)[0]
    made.job = made.new_job("owner")
    made.tokens["attempt"] = made.attempt_token(made.claim()[0])
    yield made
    made.database.client.drop_database("house")
    mongoengine.disconnect()
