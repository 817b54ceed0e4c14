"""Submitting a job: checked as it is written, shown as a payload would see it, then made."""

import re
from dataclasses import replace

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from DmpWorkflow.core.database import jobs, listing
from DmpWorkflow.core.database.submission import Check, Submission, check_xml, submit_xml
from DmpWorkflow.core.job_xml import parse_jobs, readable_xml
from DmpWorkflow.core.names import LONGEST_TITLE
from DmpWorkflow.core.overrides import from_mapping
from DmpWorkflow.frontend.access import Right, database, own_jobs_only, owner, requires, sees
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.cli.assignments import overrides
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.parameters import parse, words
from DmpWorkflow.utils.errors import DmpWorkflowError

COPY = "-copy"
# A pasted text is in the encoding of the page, whatever its first line says. Bounded, since every part may be blanks.
ENCODING = re.compile(r"""^(\s{0,99}<\?xml[^>]{0,99}?)\s{1,99}encoding\s{0,9}=\s{0,9}(?:"[^"]{0,40}"|'[^']{0,40}')""")
EXAMPLE = """\
<Jobs>
  <Job name="hello" type="User">
    <MetaData>
      <Var name="GREETING" value="Hello"/>
    </MetaData>
    <JobWrapper executable="/bin/bash"><![CDATA[
echo "${GREETING}, I am instance ${DWF_INSTANCE_ID}"
]]></JobWrapper>
  </Job>
</Jobs>
"""


@blueprint.get("/submit/")
@requires(Right.SUBMIT)
def submit() -> str:
    """Show the form, with another job's definition if one is to be cloned."""
    clone = request.args.get("clone", "")
    return _page(_cloned(clone) if clone else {"n_instances": "1"}, None)


@blueprint.post("/submit/check")
@requires(Right.SUBMIT)
def check_submission() -> str:
    """Show what is wrong with the form, or what it would make; nothing is made."""
    begun = request.form.get("xml", "").strip() or request.files.get("file")
    return render_template("submit_check.html", check=_check() if begun else None)


@blueprint.post("/submit/")
@requires(Right.SUBMIT)
def submit_job() -> Response | tuple[str, int]:
    """Make the jobs, and lead to the first of them."""
    try:
        rows, _ = submit_xml(database(), _submission(), words())
    except DmpWorkflowError as error:
        return _page(request.form.to_dict(), _check()), error.http_status
    for row in rows:
        numbers = f" with instances {row['first']} to {row['last']}" if row["first"] else ""
        flash(f"Submitted {row['title']} to {row['site']}{numbers}")
    return redirect(url_for("pages.job", slug=rows[0]["slug"]), 303)


def _page(given: dict[str, str], check: Check | None) -> str:
    return render_template("submit.html", given=given, check=check, words=words(), example=EXAMPLE)


def _cloned(slug: str) -> dict[str, str]:
    job = jobs.by_slug(database(), slug)
    sees(job)
    definition = parse_jobs(job["body"].encode())[0][0]
    title = definition.name.encode()[: LONGEST_TITLE - len(COPY)].decode(errors="ignore") + COPY
    parents = listing.job_summary(database(), job)["parents"]
    return {
        "xml": readable_xml(replace(definition, name=title, priority=job["priority"])),
        "depends": ", ".join(parents),
        "n_instances": "1",
    }


def _check() -> Check:
    check = Check()
    with check.noting():
        return check_xml(database(), _submission(), words())
    return check


def _submission() -> Submission:
    """Return what the form says; a chosen file wins over the text."""
    given = parse(schemas.SubmitForm)
    file = request.files.get("file")
    return Submission(
        xml=(file.read() if file else b"") or ENCODING.sub(r"\1", given.xml).encode(),
        title=given.taskname.strip(),
        type=given.t_type,
        site=given.site,
        instances=given.n_instances,
        overrides=from_mapping(overrides(given.variables.splitlines())),
        parents=tuple(slug.strip() for slug in given.depends.split(",") if slug.strip()),
        priority=given.priority,
        owner=owner(),
        own_only=own_jobs_only(),
    )
