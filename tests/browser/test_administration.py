"""The administration page, each action with its effect in the database; sessions, and who is kept out."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from DmpWorkflow.core.database import credentials, jobs, users
from tests.browser.conftest import LOOKS, logged_in, watched_page
from tests.served import Served

PASSWORD = "a long password"
ADMINISTRATORS_ROUTES = """
from DmpWorkflow.frontend.access import RIGHTS, Right
from DmpWorkflow.frontend.wsgi import app
for rule in app.url_map.iter_rules():
    if getattr(app.view_functions[rule.endpoint], RIGHTS, None) in (Right.ADMIN, Right.OPERATE):
        print(*(rule.methods - {"HEAD", "OPTIONS"}), rule.rule)
"""
CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


@pytest.fixture(autouse=True)
def no_leftovers(served: Served) -> Iterator[None]:
    """Leave the tokens of the server itself, and nothing else."""
    kept = [token["_id"] for token in served.database.credentials.find()]
    yield
    served.database.credentials.delete_many({"_id": {"$nin": kept}})
    for collection in (served.database.users, served.database.jobs, served.database.counts):
        collection.delete_many({})


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_fits_and_everybody_can_use_it(
    admin: Page, served: Served, pictures: Path | None, width: int, scheme: str
) -> None:
    users.create(served.database, "<b>anna</b> with quite a long name", PASSWORD, "site", "CNAF")
    jobs.submit(served.database, jobs.NewJob("sim", "Retired", "CLOSED", "<Jobs/>"))
    admin.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    admin.set_viewport_size({"width": width, "height": 900})
    for name, opener in (("administration", ""), ("administration-dialog", "New user")):
        admin.goto(f"{served.url}/admin/")
        if opener:
            admin.get_by_role("button", name=opener).click()
        assert admin.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(admin).response["violations"]
        assert [item for item in found if item["impact"] in ("serious", "critical")] == []
        if pictures:
            admin.screenshot(path=pictures / f"{name}-{scheme}-{width}.png", full_page=not opener)


def test_the_page_tells_of_server_database_and_words(admin: Page, served: Served) -> None:
    jobs.submit(served.database, jobs.NewJob("sim", "Retired", "CLOSED", "<Jobs/>"))
    admin.goto(f"{served.url}/")
    admin.get_by_role("link", name="Administration").click()
    version = served.database.client.server_info()["version"]
    expect(admin.get_by_text(f"MongoDB {version}")).to_be_visible()
    expect(admin.locator("dl")).to_contain_text("primary")
    for word in ("CLOSED", "Retired"):
        expect(admin.locator("tr", has_text=word)).to_contain_text("⚠ no longer")
    expect(admin.get_by_role("row", name="CNAF yes 0")).to_be_visible()
    expect(admin.get_by_text("Nobody logs in with a password yet.")).to_be_visible()


def test_a_token_is_shown_once_and_revoked(admin: Page, served: Served) -> None:
    admin.goto(f"{served.url}/admin/")
    admin.get_by_role("button", name="New token").click()
    form = admin.get_by_role("dialog")
    form.get_by_label("Name").fill("cnaf")
    form.get_by_label("Role").select_option("site")
    form.get_by_label("Site, if it is for one site only").select_option("CNAF")
    form.get_by_label("Expires").fill("2999-12-31")
    form.get_by_role("button", name="Create token").click()
    text = admin.get_by_role("region", name="The token").inner_text()
    stored = credentials.by_text(served.database, text)
    assert stored is not None and (stored["name"], stored["role"], stored["site"]) == ("cnaf", "site", "CNAF")
    assert text not in admin.url and text not in str(admin.context.cookies())
    admin.get_by_role("link", name="I have copied it").click()
    assert text not in admin.content()
    assert requests.get(f"{served.url}/whoami/", auth=("x", text), timeout=30).status_code == 200
    admin.reload()
    expect(admin.get_by_role("row", name="cnaf site CNAF")).not_to_contain_text("never")
    admin.get_by_role("button", name="Revoke: cnaf").click()
    admin.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert credentials.by_text(served.database, text) is not None
    admin.get_by_role("button", name="Revoke: cnaf").click()
    admin.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(admin.get_by_role("status")).to_have_text("Revoked token cnaf")
    assert credentials.by_text(served.database, text) is None
    assert requests.get(f"{served.url}/whoami/", auth=("x", text), timeout=30).status_code == 401


def test_a_user_is_made_given_another_password_and_removed(admin: Page, served: Served) -> None:
    admin.goto(f"{served.url}/admin/")
    admin.get_by_role("button", name="New user").click()
    form = admin.get_by_role("dialog")
    form.get_by_label("Name").fill("<i>anna</i>")
    form.get_by_label("Role").select_option("submit")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_label("The same again").fill(PASSWORD)
    form.get_by_role("button", name="Create user").click()
    expect(admin.get_by_role("status")).to_have_text("Created user <i>anna</i>")
    made = users.authenticate(served.database, "<i>anna</i>", PASSWORD)
    assert made is not None and (made["role"], made["site"]) == ("submit", None)
    admin.get_by_role("button", name="Password: <i>anna</i>").click()
    form = admin.get_by_role("dialog")
    form.get_by_label("Password").fill("another password")
    form.get_by_label("The same again").fill("another password")
    form.get_by_role("button", name="Change password").click()
    expect(admin.get_by_role("status")).to_have_text("Changed the password of <i>anna</i>")
    assert users.authenticate(served.database, "<i>anna</i>", PASSWORD) is None
    assert users.authenticate(served.database, "<i>anna</i>", "another password")
    for word in ("Disable", "Enable"):
        admin.get_by_role("button", name=f"{word}: <i>anna</i>").click()
        admin.get_by_role("dialog").get_by_role("button", name=word).click()
        expect(admin.get_by_role("status")).to_have_text(f"{word}d user <i>anna</i>")
        assert served.database.users.count_documents({"disabled": word == "Disable"}) == 1
    admin.get_by_role("button", name="Remove: <i>anna</i>").click()
    admin.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(admin.get_by_role("status")).to_have_text("Removed user <i>anna</i>")
    assert served.database.users.count_documents({}) == 0


def test_maintenance_is_done_and_tells_its_result(admin: Page, served: Served) -> None:
    job = jobs.submit(served.database, jobs.NewJob("miscounted", "User", "local", "<Jobs/>"))["_id"]
    served.database.counts.update_one({"_id": f"{job}:0"}, {"$inc": {"status.Done": 3}})
    admin.goto(f"{served.url}/admin/")
    admin.get_by_role("button", name="Run: Compare counts").click()
    tile = admin.locator("#compare-counts")
    expect(tile).to_contain_text("miscounted")
    expect(tile).to_contain_text("3 Done too many")
    admin.get_by_role("button", name="Run: Repair counts").click()
    expect(admin.get_by_role("status")).to_have_text("Repair counts: done, the result is below")
    assert sum(slot["status"].get("Done", 0) for slot in served.database.counts.find({"job": job})) == 0
    assert served.database.maintenance.count_documents({"_id": "repair-counts", "by": "admin"}) == 1


def test_what_others_do_is_seen_without_loading_again(admin: Page, served: Served) -> None:
    served.database.maintenance.delete_many({})
    admin.goto(f"{served.url}/admin/")
    tile = admin.locator("#return-expired-leases")
    expect(tile).to_contain_text("Never run.")
    header = {"Authorization": f"Bearer {served.admin_token}"}
    body = {"action": "return-expired-leases"}
    requests.post(f"{served.url}/administration/maintenance/", headers=header, json=body, timeout=30)
    admin.evaluate("htmx.trigger('#live', 'live')")
    expect(tile).to_contain_text("0 instances returned")
    expect(admin.get_by_role("button", name="New token")).to_be_visible()


def test_the_keyboard_alone_does(admin: Page, served: Served) -> None:
    admin.goto(f"{served.url}/admin/")
    admin.get_by_role("button", name="New token").focus()
    admin.keyboard.press("Enter")
    admin.get_by_role("dialog").get_by_label("Name").focus()
    admin.keyboard.type("typed")
    admin.keyboard.press("Enter")
    expect(admin.locator("h1")).to_have_text("Token typed")
    assert served.database.credentials.count_documents({"name": "typed", "role": "read"}) == 1


# Sessions, without a browser where the reply says it all.


def session_of(served: Served, **fields: str) -> requests.Session:
    """Return a session in which somebody has logged in through the form."""
    session = requests.Session()
    session.headers["Accept"] = "text/html"
    fields |= {"csrf_token": csrf(session, f"{served.url}/login")}
    reply = session.post(f"{served.url}/login", data=fields, allow_redirects=False, timeout=30)
    assert reply.status_code == 302, reply.text
    return session


def csrf(session: requests.Session, address: str) -> str:
    """Return the token of the forms of a page."""
    found = CSRF.search(session.get(address, timeout=30).text)
    assert found is not None
    return found[1]


def is_in(session: requests.Session, served: Served) -> bool:
    """Say whether the session still opens pages."""
    reply = session.get(f"{served.url}/jobs/", allow_redirects=False, timeout=30)
    assert reply.status_code in (200, 303)
    return reply.status_code == 200


def test_a_revoked_token_ends_its_sessions(served: Served) -> None:
    text, _ = credentials.create(served.database, "leaving", "read")
    session = session_of(served, token=text)
    assert is_in(session, served)
    credentials.revoke(served.database, "leaving")
    assert not is_in(session, served)
    credentials.create(served.database, "leaving", "read")  # of the same name, and not the same
    assert not is_in(session, served)


def test_another_password_or_removal_ends_a_users_sessions(served: Served) -> None:
    users.create(served.database, "anna", PASSWORD, "read")
    first, second = (session_of(served, name="anna", password=PASSWORD) for _ in range(2))
    assert is_in(first, served) and is_in(second, served)
    users.set_password(served.database, "anna", PASSWORD)  # also where it is the same one
    assert not is_in(first, served) and not is_in(second, served)
    third = session_of(served, name="anna", password=PASSWORD)
    users.remove(served.database, "anna")
    assert not is_in(third, served)
    users.create(served.database, "anna", PASSWORD, "read")
    assert not is_in(third, served)


def test_an_ended_session_leads_to_the_login_and_back(browser: Browser, served: Served) -> None:
    text, _ = credentials.create(served.database, "leaving", "read")
    context = logged_in(browser, served, text)
    pages = watched_page(context, served)
    page = next(pages)
    page.goto(f"{served.url}/jobs/?title=x")
    credentials.revoke(served.database, "leaving")
    page.reload()
    expect(page.locator("h1")).to_have_text("Log in")
    page.get_by_label("Or a token").fill(served.read_token)
    page.get_by_role("button", name="Log in with the token").click()
    expect(page).to_have_url(f"{served.url}/jobs/?title=x")
    assert next(pages, None) is None
    context.close()


def test_an_action_in_an_ended_session_changes_nothing(browser: Browser, served: Served) -> None:
    text, _ = credentials.create(served.database, "leaving", "admin")
    context = logged_in(browser, served, text)
    page = context.new_page()
    page.goto(f"{served.url}/admin/")
    credentials.revoke(served.database, "leaving")
    page.get_by_role("button", name="Revoke: read").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.locator("h1")).to_have_text("Log in")
    assert credentials.by_text(served.database, served.read_token) is not None
    context.close()


def test_a_refresh_in_an_ended_session_leads_to_the_login(browser: Browser, served: Served) -> None:
    text, _ = credentials.create(served.database, "leaving", "admin")
    context = logged_in(browser, served, text)
    page = context.new_page()
    page.goto(f"{served.url}/admin/")
    credentials.revoke(served.database, "leaving")
    page.evaluate("htmx.trigger('#live', 'live')")
    expect(page.locator("h1")).to_have_text("Log in")
    expect(page).to_have_url(f"{served.url}/login?next=/admin/")
    context.close()


@pytest.fixture(scope="module")
def administrators_routes(served: Served) -> list[list[str]]:
    """Method and path of every route that only administrators may use, as the application itself says."""
    environment = os.environ | {"DAMPE_CONFIG": str(served.settings_path)}
    told = subprocess.run(
        [sys.executable, "-c", ADMINISTRATORS_ROUTES], env=environment, text=True, capture_output=True, check=True
    )
    return [line.split() for line in told.stdout.splitlines()]


@pytest.mark.parametrize("role", ["read", "submit", "site"])
def test_others_get_no_administration(served: Served, administrators_routes: list[list[str]], role: str) -> None:
    token = getattr(served, f"{role}_token")
    session = session_of(served, token=token)
    header = {"X-CSRFToken": csrf(session, f"{served.url}/jobs/")}
    bearer = {"Authorization": f"Bearer {token}"}
    names = {token["name"] for token in served.database.credentials.find()}
    assert ["POST", "/admin/tokens"] in administrators_routes and len(administrators_routes) >= 18
    for method, path in administrators_routes:
        fields = {
            "name": "admin",
            "action": "compare-counts",
            "role": "admin",
            "password": PASSWORD,
            "again": PASSWORD,
        }
        by_session = session.request(method, served.url + path, data=fields, headers=header, timeout=30)
        # The API takes no cookie for a change, nor for what only administrators see.
        assert by_session.status_code == (403 if path.startswith("/admin/") else 401), path
        by_token = requests.request(method, served.url + path, json=fields, headers=bearer, timeout=30)
        assert by_token.status_code == 403, path
    assert {token["name"] for token in served.database.credentials.find()} == names
    assert served.database.users.count_documents({}) == 0


def test_a_reader_sees_no_way_to_it(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/jobs/")
    expect(page.get_by_role("link", name="Jobs", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Administration")).to_have_count(0)


FORMS = [
    ("/admin/tokens", {"name": "made", "role": "admin"}),
    ("/admin/tokens/revoke", {"name": "spare"}),
    ("/admin/users", {"name": "made", "role": "admin", "password": PASSWORD, "again": PASSWORD}),
    ("/admin/users/password", {"name": "anna", "password": "another password", "again": "another password"}),
    ("/admin/users/remove", {"name": "anna"}),
    ("/admin/maintenance", {"action": "repair-counts"}),
]


@pytest.mark.parametrize(("path", "fields"), FORMS, ids=[path for path, _ in FORMS])
@pytest.mark.parametrize("token", ["missing", "empty", "foreign", "made up"])
def test_a_forged_form_is_refused_and_changes_nothing(
    served: Served, path: str, fields: dict[str, str], token: str
) -> None:
    users.create(served.database, "anna", PASSWORD, "read")
    credentials.create(served.database, "spare", "read")
    served.database.maintenance.delete_many({})
    session = session_of(served, token=served.admin_token)
    forged = {"empty": "", "made up": "a.b.c"}
    if token == "foreign":
        forged["foreign"] = csrf(session_of(served, token=served.admin_token), f"{served.url}/admin/")
    before = _stored(served)
    body = fields | ({"csrf_token": forged[token]} if token in forged else {})
    reply = session.post(served.url + path, data=body, timeout=30)
    assert reply.status_code == 403 and "load the page again" in reply.text
    assert _stored(served) == before
    good = fields | {"csrf_token": csrf(session, f"{served.url}/admin/")}
    assert session.post(served.url + path, data=good, allow_redirects=False, timeout=30).status_code in (200, 303)
    assert _stored(served) != before


def _stored(served: Served) -> list[object]:
    """Return what those forms change, less the times of use."""
    collections = (served.database.credentials, served.database.users, served.database.maintenance)
    return [list(collection.find({}, {"last_used": 0})) for collection in collections]


def test_bad_input_is_refused_with_the_reason(served: Served) -> None:
    session = session_of(served, token=served.admin_token)
    token = {"csrf_token": csrf(session, f"{served.url}/admin/")}
    user = {"name": "anna", "role": "read", "password": PASSWORD, "again": PASSWORD}
    for path, fields, words in (
        ("/admin/users", user | {"again": "another password"}, "the two passwords differ"),
        ("/admin/users", user | {"password": "short", "again": "short"}, "at least 10 characters"),
        ("/admin/users", user | {"role": "site", "site": ""}, "names its site"),
        ("/admin/tokens", {"name": "x", "role": "site", "site": "NOWHERE"}, "is not known"),
        ("/admin/tokens", {"name": "admin", "role": "read"}, "there is a token named"),
        ("/admin/tokens/revoke", {"name": "nosuch"}, "no token named"),
        ("/admin/maintenance", {"action": "nosuch"}, "expected one of"),
    ):
        reply = session.post(served.url + path, data=fields | token, timeout=30)
        assert reply.status_code in (404, 409, 422) and words in reply.text, reply.text
    assert served.database.users.count_documents({}) == 0


@pytest.mark.parametrize(
    "goal",
    ["//evil.example", "/\\evil.example", "http://evil.example", "https:evil.example", "\\\\evil.example",
     "/\t/evil.example", "javascript:alert(1)", "evil.example", "/jobs/\r\nX-Evil: 1", ""],
)  # fmt: skip
def test_the_login_leads_to_pages_of_this_server_only(served: Served, goal: str) -> None:
    session = requests.Session()
    fields = {"csrf_token": csrf(session, f"{served.url}/login"), "token": served.read_token, "next": goal}
    reply = session.post(f"{served.url}/login", data=fields, allow_redirects=False, timeout=30)
    assert (reply.status_code, reply.headers["Location"]) == (302, "/")


def test_the_cookie_is_kept_from_scripts_and_other_sites(served: Served) -> None:
    session = requests.Session()
    fields = {"csrf_token": csrf(session, f"{served.url}/login"), "token": served.read_token}
    reply = session.post(f"{served.url}/login", data=fields, allow_redirects=False, timeout=30)
    flags = {flag.strip().lower() for flag in reply.headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= flags


def test_a_changed_cookie_is_worth_nothing(served: Served) -> None:
    session = session_of(served, token=served.read_token)
    value = session.cookies["dampe_session"]
    session.cookies.clear()
    session.cookies.set("dampe_session", value[:-2] + ("AA" if value[-2:] != "AA" else "BB"))
    assert not is_in(session, served)


def test_the_audit_log_tells_who_changed_what(admin: Page, served: Served, pictures: Path | None) -> None:
    served.database.audit.delete_many({})
    jobs.submit(served.database, jobs.NewJob("<b>sim</b>" + "x" * 200, "User", "local", "<Jobs/>"))
    users.create(served.database, "anna", PASSWORD, "read")
    rows = admin.locator("tbody tr")
    for width, scheme in ((320, "light"), (1440, "dark")):
        admin.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        admin.set_viewport_size({"width": width, "height": 900})
        admin.goto(f"{served.url}/admin/")
        admin.get_by_role("link", name="Audit log").click()
        expect(rows).to_have_count(2)
        assert admin.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(admin).response["violations"]
        assert [item for item in found if item["impact"] in ("serious", "critical")] == []
        if pictures:
            admin.screenshot(path=pictures / f"audit-{scheme}-{width}.png", full_page=True)
    expect(rows.first).to_contain_text("user.create")
    admin.get_by_label("Did").select_option("job.submit")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("<b>sim</b>")
    assert "action=job.submit" in admin.url
    admin.get_by_label("Who").fill("nobody")
    expect(admin.get_by_text("Nothing matches.")).to_be_visible()
