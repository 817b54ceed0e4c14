"""TLS, proxies, redirects and headers, with real servers and real connections."""

import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from flask import Flask, request

from DmpWorkflow.backend.outbox import Answer, Delivery
from DmpWorkflow.backend.reporter import Sender
from DmpWorkflow.client import Client
from DmpWorkflow.config.loader import load
from DmpWorkflow.config.settings import ServerSettings
from DmpWorkflow.core.database import credentials, jobs
from DmpWorkflow.core.database.connection import Database
from DmpWorkflow.core.database.mongod import EmbeddedMongod, free_port
from DmpWorkflow.frontend import transport
from DmpWorkflow.frontend.cli import server
from DmpWorkflow.utils.errors import ConfigurationError, Unavailable
from tests.needs import need
from tests.served import Served, wait_until_healthy

BIN = Path(sys.executable).parent
TOKEN = "a-token-that-must-not-travel"
SERVER = """\
[global]
installation = server
[server]
url = {scheme}://127.0.0.1:{port}
port = {port}
{lines}
[database]
uri = {uri}
name = {name}
[site]
name = local
"""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


@dataclass
class Authority:
    """A certificate authority of our own, with a server's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    need("openssl", package="openssl")
    folder = tmp_path_factory.mktemp("authority")
    made = Authority(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    own: list[str | Path] = [
        "-x509",
        *KEY,
        "-keyout",
        folder / "ca.key",
        "-out",
        made.ca,
        "-subj",
        "/CN=Authority of a test",
    ]
    signed: list[str | Path] = [
        "-x509",
        "-CA",
        made.ca,
        "-CAkey",
        folder / "ca.key",
        *KEY,
        "-keyout",
        made.key,
        "-out",
        made.certificate,
    ]
    signed += ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1"]
    for words in (own, signed):
        subprocess.run(["openssl", "req", *words], check=True, capture_output=True, timeout=60)
    return made


@dataclass
class Running:
    """A server that ``dampe-server run`` became."""

    url: str
    database: Database
    token: str
    configuration: Path


def run_server(
    mongod: EmbeddedMongod, folder: Path, lines: str, scheme: str, verify: str | None = None
) -> Iterator[Running]:
    port, name = free_port(), f"transport_{folder.name.replace('-', '_')}"
    configuration = folder / "server.cfg"
    configuration.write_text(SERVER.format(scheme=scheme, port=port, lines=lines, uri=mongod.uri, name=name))
    database = Database(mongod.uri, name)
    database.prepare()
    log = folder / "server.log"
    command: list[str | Path] = [
        BIN / "dampe-server",
        "run",
        "--config",
        configuration,
        "--workers",
        "2",
        "--threads",
        "2",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until_healthy(f"{scheme}://127.0.0.1:{port}", process, log, verify)
        token = credentials.create(database, "admin", "admin")[0]
        yield Running(f"{scheme}://127.0.0.1:{port}", database, token, configuration)
    finally:
        process.terminate()
        process.wait(60)
        database.client.drop_database(name)
        database.close()


@pytest.fixture(scope="module")
def secure(
    mongod: EmbeddedMongod, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    lines = f"certificate = {authority.certificate}\nkey = {authority.key}"
    yield from run_server(mongod, tmp_path_factory.mktemp("tls"), lines, "https", str(authority.ca))


def test_the_client_trusts_its_ca_file_and_nothing_else(
    secure: Running, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(secure.url, secure.token, authority.ca, patience=0) as client:
        assert client.whoami()["role"] == "admin"
    with Client(secure.url, secure.token, patience=0) as client, pytest.raises(Unavailable) as refused:
        client.whoami()
    assert "no trusted connection (unable to get local issuer certificate): check the address, and ca_file" in str(
        refused.value
    )
    for url, ca_file, words in (
        (secure.url.replace("127.0.0.1", "localhost"), authority.ca, "Hostname mismatch"),
        (secure.url, "/no/such/file", r"ca_file /no/such/file: cannot be read: check \[server\] ca_file"),
        (secure.url.replace("https", "http"), "", "does not answer"),
    ):
        with Client(url, TOKEN, ca_file, patience=0) as client, pytest.raises(Unavailable, match=words):
            client.whoami()


def test_the_environment_does_not_overrule_the_ca_file(
    secure: Running, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    with Client(secure.url, secure.token, authority.ca, patience=0) as client:
        assert client.whoami()["role"] == "admin"
    send = Sender(Delivery(secure.url, secure.token, str(authority.ca)))
    assert send({"t_id": "0" * 24, "inst_id": 1, "major_status": "Running"}) is Answer.REJECTED  # no such job


def test_a_payload_trusts_its_ca_file_and_nothing_else(secure: Running, authority: Authority) -> None:
    report = {"t_id": "0" * 24, "inst_id": 1, "major_status": "Running"}
    for ca_file, answer in ((str(authority.ca), Answer.REJECTED), (None, Answer.LATER), ("/no/file", Answer.LATER)):
        send = Sender(Delivery(secure.url, secure.token, ca_file))
        assert send(report) is answer


def test_commands_trust_the_ca_file_of_their_configuration(
    secure: Running, authority: Authority, tmp_path: Path
) -> None:
    words = f"[server]\nurl = {secure.url}\ntoken = {secure.token}\n"
    end = f"[site]\nname = local\nworkdir = {tmp_path}\n"

    def heartbeat(configuration: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "settings.cfg").write_text(configuration)
        command = [str(BIN / "dampe-cli-heartbeat"), "--config", str(tmp_path / "settings.cfg")]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert "heard of" in heartbeat(f"{words}ca_file = {authority.ca}\n{end}").stdout
    refused = heartbeat(words + end)
    assert (refused.returncode, refused.stderr.count("\n")) == (6, 1)
    assert refused.stderr.startswith("error: https://") and "no trusted connection" in refused.stderr


@dataclass
class Recorder:
    """A server that redirects everything, or just remembers what it was asked."""

    target: str = ""
    seen: list[dict[str, str]] = field(default_factory=list)

    def serve(self) -> Iterator[str]:
        """Serve until it is closed; yields the address."""
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                recorder.seen.append({name.lower(): value for name, value in self.headers.items()})
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(307 if recorder.target else 200)
                if recorder.target:
                    self.send_header("Location", recorder.target + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = do_DELETE = do_PATCH = answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def thief() -> Iterator[tuple[str, Recorder]]:
    """Another host, to which somebody would like to redirect us."""
    recorder = Recorder()
    for url in recorder.serve():
        yield url.replace("127.0.0.1", "localhost"), recorder


def test_a_redirect_is_not_followed_and_takes_no_token_along(thief: tuple[str, Recorder]) -> None:
    other, stolen = thief
    redirecting = Recorder(target=other)
    for url in redirecting.serve():
        with Client(url, TOKEN, patience=0) as client:
            for call in (
                client.whoami,
                lambda: list(client.export("x")),
                lambda: client.claim("x", 1, agent="a", request_id="r" * 8),
            ):
                with pytest.raises(Unavailable, match=rf"redirects to {other}/.*: set that as \[server\] url"):
                    call()
        send = Sender(Delivery(url, TOKEN))
        assert send({"t_id": "x"}) is Answer.LATER
        assert send({"filename": "/f", "site": "x", "action": "register"}) is Answer.LATER
    assert [seen["authorization"] for seen in redirecting.seen] == [f"Bearer {TOKEN}"] * 5
    assert stolen.seen == []


def test_https_is_not_left_for_http(secure: Running, authority: Authority, thief: tuple[str, Recorder]) -> None:
    """The pages redirect; a client that followed would ask there."""
    other, stolen = thief
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.certificate, authority.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def redirect_once() -> None:
            with listening.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as connection:
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {other}/\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=redirect_once)
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with (
            Client(url, TOKEN, authority.ca, patience=0) as client,
            pytest.raises(Unavailable, match="redirects to http:"),
        ):
            client.whoami()
        thread.join()
    assert stolen.seen == []


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "seen"),
    [
        (0, "10.0.0.1", "1.1.1.1", "10.0.0.1"),
        (1, "10.0.0.1", "1.1.1.1", "1.1.1.1"),
        (1, "10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),  # the first one was made up
        (2, "10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        (2, "10.0.0.1", "6.6.6.6", "10.0.0.1"),  # one proxy less than it should be: nothing is believed
        (1, "10.0.0.1", "<b>\x1b[31m", "unknown"),
        (1, "10.0.0.1", "", "10.0.0.1"),
        (0, "::ffff:10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_only_trusted_proxies_say_who_asks(proxies: int, remote: str, forwarded: str, seen: str) -> None:
    app = Flask("proxied")
    transport.init_app(app, ServerSettings(trusted_proxies=proxies))
    app.add_url_rule("/", view_func=lambda: f"{transport.address()} {request.scheme} {request.host}")
    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example.org"}
    reply = app.test_client().get("/", headers=headers, environ_base={"REMOTE_ADDR": remote})
    scheme = "https" if proxies == 1 else "http"
    assert reply.text == f"{seen} {scheme} localhost"


def test_an_ipv6_customer_is_one_place() -> None:
    app = Flask("places")
    app.add_url_rule("/", view_func=transport.network)
    for remote, seen in (("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("10.0.0.1", "10.0.0.1"), ("", "unknown")):
        assert app.test_client().get("/", environ_base={"REMOTE_ADDR": remote}).text == seen


def test_what_gunicorn_could_not_use_is_refused_before_it_starts(
    authority: Authority, mongod: EmbeddedMongod, tmp_path: Path
) -> None:
    other = authority.ca.parent / "ca.key"
    locked = tmp_path / "locked.key"
    command: list[str | Path] = [
        "openssl",
        "pkey",
        "-in",
        authority.key,
        "-aes128",
        "-passout",
        "pass:x",
        "-out",
        locked,
    ]
    subprocess.run(command, check=True, timeout=60)
    for lines, words in (
        ("key = /k", "[server] key is set without certificate"),
        ("certificate = /no/file", "[server] certificate /no/file with key /no/file: No such file"),
        (f"certificate = {authority.certificate}\nkey = {other}", "key values mismatch"),
        (f"certificate = {authority.certificate}\nkey = {locked}", "the key has a passphrase"),
        (f"certificate = {authority.key}", "with key"),
    ):
        configuration = tmp_path / "server.cfg"
        text = SERVER.format(scheme="https", port=1, lines=lines, uri=mongod.uri, name="refused")
        configuration.write_text(text)
        with pytest.raises(ConfigurationError, match=re.escape(words)) as refused:
            server.gunicorn_options(load(configuration).settings.server)
        assert "\n" not in str(refused.value)


HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@pytest.mark.parametrize("path", ["/login", "/", "/job/", "/whoami/", "/health", "/no/such/page", "/openapi.json"])
def test_all_replies_have_their_headers(secure: Running, authority: Authority, path: str) -> None:
    for token in ("", secure.token):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        reply = requests.get(
            secure.url + path, headers=headers, verify=str(authority.ca), timeout=60, allow_redirects=False
        )
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert reply.headers["Server"] == "gunicorn"  # and no version


def test_plain_http_asks_for_no_https_and_tls_keeps_its_cookie(
    served: Served, secure: Running, authority: Authority
) -> None:
    assert "Strict-Transport-Security" not in requests.get(f"{served.url}/health", timeout=60).headers
    page = requests.get(f"{secure.url}/login", verify=str(authority.ca), timeout=60)
    cookie = page.headers["Set-Cookie"]
    assert all(word in cookie for word in ("dampe_session=", "Secure", "HttpOnly", "SameSite=Lax"))


def test_what_others_write_adds_no_header(served: Served) -> None:
    evil = "x\r\nX-Evil: 1\r\n\r\n<b>"
    job = jobs.submit(served.database, jobs.NewJob("evil\u2028\x9b", "User", "local", "<Jobs/>"))
    agent = {"User-Agent": "x\x1b[31m"}
    assert requests.get(f"{served.url}/health", headers=agent, timeout=60).status_code == 400
    header = {"Authorization": f"Bearer {served.admin_token}"}
    live = {"HX-Request": "true", "HX-Current-URL": f"http://h/{quote(evil)}"}
    for path, query in (
        ("/login", {"next": f"/{evil}"}),
        (f"/{quote(evil)}", {}),
        ("/jobs/", {"text": evil, "sort": evil}),
        (f"/jobs/{job['slug']}/job.xml", {}),
        (f"/job/{quote(evil)}/export/", {"format": evil}),
        (f"/job/{job['slug']}/export/", {"format": "csv", "text": evil}),
        (f"/catalogue/files.{quote(evil)}", {}),
    ):
        for headers in (header, live):
            reply = requests.get(served.url + path, params=query, headers=headers, timeout=60, allow_redirects=False)
            assert reply.status_code in (200, 303, 401, 404, 422), reply.text
            assert "X-Evil" not in reply.headers
