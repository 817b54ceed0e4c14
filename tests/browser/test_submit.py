import re
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from DmpWorkflow.core.database import jobs, submission
from DmpWorkflow.core.database.submission import Submission, Words
from tests.browser.conftest import LOOKS
from tests.served import Served

WORDS = Words(types=("User", "Other"), sites=("local", "CNAF"))
XML = """<Jobs>
  <Job name="%s" type="User" priority="3" release="6.0.1">
    <MetaData>
      <Var name="OUT" value="/data/${DWF_SIXDIGIT}"/>
    </MetaData>
    <OutputFiles>
      <File source="o.root" target="${OUT}/o.root"/>
    </OutputFiles>
    <JobWrapper executable="/bin/bash"><![CDATA[
if [ 1 -lt 2 ] && true; then echo; fi
]]></JobWrapper>
  </Job>
</Jobs>
"""
BAD = XML.replace('source="o.root" ', "").replace('name="OUT"', 'name="O T"')


def write(page: Page, served: Served, text: str) -> None:
    page.goto(f"{served.url}/submit/")
    page.get_by_label("Definition").fill(text)


def count(served: Served, title: str) -> int:
    return served.database.jobs.count_documents({"title": title})


def test_every_bad_line_is_marked_and_leads_to_itself(editor: Page, served: Served) -> None:
    write(editor, served, BAD % "marked")
    problems = editor.locator(".problems li")
    expect(problems).to_have_count(2)
    expect(editor.locator(".gutter .mark")).to_have_text(["4", "7"])
    expect(editor.locator(".gutter pre")).to_contain_text("14")
    editor.locator(".gutter .mark").last.click()
    chosen = editor.get_by_label("Definition").evaluate("it => it.value.slice(it.selectionStart, it.selectionEnd)")
    assert chosen.strip().startswith("<File")
    editor.get_by_role("button", name="Line 4").press("Enter")
    expect(editor.get_by_label("Definition")).to_be_focused()


def test_a_bad_job_is_handed_back_as_it_was_written(editor: Page, served: Served) -> None:
    page = editor.context.new_page()  # browsers log the status 422 as an error
    write(page, served, BAD % "returned")
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Submit").click()
    assert navigation.value is not None and navigation.value.status == 422
    expect(page.locator(".problems li")).to_have_count(2)
    expect(page.get_by_label("Definition")).to_have_value(BAD % "returned")
    assert count(served, "returned") == 0


def test_a_job_is_checked_as_it_is_written_shown_and_submitted(editor: Page, served: Served) -> None:
    parent = submission.submit_xml(served.database, Submission((XML % "parent").encode(), instances=9), WORDS)[0][0]
    write(editor, served, XML % "written")
    check = editor.locator("#check")
    expect(check.get_by_role("heading", name="written")).to_be_visible()
    editor.get_by_label("Parents").fill("nosuch")
    expect(check).to_contain_text("Could not find job nosuch")
    editor.get_by_label("Parents").fill(parent["slug"])
    expect(check.get_by_role("link", name="parent")).to_be_visible()
    editor.get_by_label("Instances", exact=True).fill("many")
    expect(check).to_contain_text("n_instances")
    editor.get_by_label("Instances", exact=True).fill("4")
    editor.get_by_label("Site").select_option("CNAF")
    editor.get_by_label("Priority").fill("7")
    editor.get_by_label("Variables for these instances").fill("OUT=/mine/${DWF_INSTANCE_ID}\nA=b;c")
    expect(check).to_contain_text("variable 'c': expected NAME=VALUE")
    editor.get_by_label("Variables for these instances").fill("OUT=/mine/${DWF_INSTANCE_ID}\nA='b;c'")
    expect(check).to_contain_text("o.root → /mine/1/o.root")
    expect(check.locator("tr", has_text="DWF_SIXDIGIT")).to_contain_text("000001")
    expect(check.locator("dl")).to_contain_text("CNAF")
    assert count(served, "written") == 0
    editor.get_by_role("button", name="Submit").click()
    expect(editor.get_by_role("status").first).to_have_text("Submitted written to CNAF with instances 1 to 4")
    expect(editor.locator("h1")).to_contain_text("written")
    made = jobs.by_name(served.database, "written")
    assert editor.url == f"{served.url}/jobs/{made['slug']}"
    assert (made["execution_site"], made["priority"], made["allotted"]) == ("CNAF", 7, 4)
    assert made["dependencies"] == [jobs.by_slug(served.database, parent["slug"])["_id"]]
    instance = served.database.instances.find_one({"job": made["_id"], "instanceId": 4})
    assert instance is not None and '"value": "b;c"' in instance["body"]


def test_a_file_is_read_into_the_text(editor: Page, served: Served, tmp_path: Path) -> None:
    file = tmp_path / "job.xml"
    file.write_bytes(b'<?xml version="1.0" encoding="ISO-8859-1"?>\n' + (XML % "caf\xe9").encode("latin-1"))
    editor.goto(f"{served.url}/submit/")
    editor.get_by_label("XML file").set_input_files(file)
    expect(editor.locator("#chosen")).to_have_text("job.xml was read")
    expect(editor.get_by_label("Definition")).to_have_value(re.compile("caf\xe9"))
    editor.get_by_label("Instances", exact=True).fill("2")
    expect(editor.locator("#check dl div", has_text="Instances")).to_contain_text("2")
    expect(editor.locator("#check").get_by_role("heading", name="caf\xe9")).to_be_visible()
    editor.get_by_role("button", name="Submit").click()
    expect(editor.locator("h1")).to_contain_text("caf\xe9")
    assert jobs.by_name(served.database, "caf\xe9")["allotted"] == 2


def test_a_clone_has_definition_and_parents_of_its_job(editor: Page, served: Served) -> None:
    one = submission.submit_xml(served.database, Submission((XML % "first").encode()), WORDS)[0][0]
    two = Submission((XML % "second").encode(), parents=(one["slug"],), priority=12)
    slug = submission.submit_xml(served.database, two, WORDS)[0][0]["slug"]
    editor.goto(f"{served.url}/submit/?clone={slug}")
    expect(editor.get_by_label("Parents")).to_have_value(one["slug"])
    expect(editor.get_by_label("Definition")).to_have_value(
        re.compile(r'name="second-copy".*if \[ 1 -lt 2 \] && true', re.S)
    )
    expect(editor.locator("#check").get_by_role("heading", name="second-copy")).to_be_visible()
    editor.get_by_role("button", name="Submit").click()
    expect(editor.locator("h1")).to_contain_text("second-copy")
    old, new = (jobs.by_name(served.database, title) for title in ("second", "second-copy"))
    assert (new["priority"], new["dependencies"], new["release"]) == (12, old["dependencies"], old["release"])
    assert new["body"] == old["body"].replace('name="second"', 'name="second-copy"').replace(
        'priority="3"', 'priority="12"'
    )


@pytest.mark.parametrize("name", ["&lt;script>alert(1)&lt;/script&gt;", "=cmd()", "x" * 1000, "a&#10;b"])
def test_hostile_names_are_shown_and_not_run(editor: Page, served: Served, name: str) -> None:
    write(editor, served, (XML % name).replace("alert(1)&lt;/", "alert(1)&lt;|"))
    shown = name.replace("&lt;/", "&lt;|").replace("&lt;", "<").replace("&gt;", ">")
    if len(name) < 1000 and "&#10;" not in name:
        expect(editor.locator("#check h2")).to_contain_text(shown)
    else:
        expect(editor.locator("#check")).to_contain_text("printable characters")


def test_a_reader_may_not_submit_and_a_check_stores_nothing(page: Page, served: Served) -> None:
    page.goto(f"{served.url}/jobs/")
    expect(page.get_by_role("link", name="Submit")).to_have_count(0)
    before = count(served, "refused")
    token = page.evaluate("document.querySelector('[name=csrf_token]').value")
    for path in ("/submit/", "/submit/check"):
        reply = page.request.post(served.url + path, form={"csrf_token": token, "xml": XML % "refused"})
        assert reply.status == 403
    assert page.request.get(f"{served.url}/submit/").status == 403
    reader = ("reader", served.read_token)
    files = {"file": XML % "refused"}
    assert requests.post(f"{served.url}/job/check/", files=files, auth=reader, timeout=30).status_code == 403
    assert count(served, "refused") == before == 0


def test_a_form_of_another_site_is_refused(editor: Page, served: Served) -> None:
    reply = editor.request.post(f"{served.url}/submit/", form={"xml": XML % "forged", "n_instances": "1"})
    assert reply.status == 403
    assert count(served, "forged") == 0


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("text", ["", BAD % "bad", XML % "good"], ids=["empty", "bad", "good"])
def test_the_page_fits_and_everybody_can_use_it(
    editor: Page, served: Served, pictures: Path | None, width: int, scheme: str, text: str
) -> None:
    editor.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    editor.set_viewport_size({"width": width, "height": 1000})
    write(editor, served, text)
    expect(editor.locator("#check h2").first).to_have_text(re.compile("good|2 problems" if text else "Check"))
    assert editor.evaluate("document.documentElement.scrollWidth") <= width
    found = [item for item in Axe().run(editor).response["violations"] if item["impact"] in ("serious", "critical")]
    assert found == []
    if pictures:
        name = "good" if "good" in text else "bad" if text else "empty"
        editor.screenshot(path=pictures / f"submit-{name}-{scheme}-{width}.png", full_page=True)
