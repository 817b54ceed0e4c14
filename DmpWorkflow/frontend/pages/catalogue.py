"""The data catalogue: found, marked, taken away as a file."""

from collections.abc import Callable
from typing import Any

from bson import ObjectId
from flask import Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as Redirection

from DmpWorkflow.core.database import data_catalogue
from DmpWorkflow.core.database.data_catalogue import FIELDS, SearchTooWide
from DmpWorkflow.frontend.access import Right, database, own_site, requires
from DmpWorkflow.frontend.api import schemas
from DmpWorkflow.frontend.exports import as_file
from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.frontend.parameters import parse, words
from DmpWorkflow.utils.errors import InvalidInput, NotFound

FILES_ON_A_PAGE = 100
CONFIRMATION = "remove"
SIGNS = {"New": "○", "Copied": "✔", "Orphaned": "✘"}


@blueprint.get("/catalogue/")
@requires(Right.READ)
def catalogue() -> str:
    """Show files, the latest first or by name."""
    given = _given()
    problem = ""
    try:
        files, after = data_catalogue.page(database(), given.as_query(), FILES_ON_A_PAGE, given.after)
    except SearchTooWide as error:
        files, after, problem = [], None, str(error)
    return render_template(
        "catalogue.html",
        files=files,
        after=after,
        problem=problem,
        given=given,
        chosen=_chosen(given),
        sites=(own_site(),) if own_site() else words().sites,
        file_signs=SIGNS,
        confirmation=CONFIRMATION,
    )


@blueprint.get("/catalogue/files.<kind>")
@requires(Right.READ)
def catalogue_export(kind: str) -> Response:
    """Send all files that the filter matches, as CSV or JSON."""
    if kind not in ("csv", "json"):
        raise NotFound(f"there is no export as {kind}: csv or json")
    rows = data_catalogue.every(database(), _given().as_query())
    return as_file(f"files.{kind}", FIELDS, rows)


@blueprint.post("/catalogue/status")
@requires(Right.CATALOGUE)
def set_file_status() -> Redirection:
    """Set the status of the files that are marked."""
    status = _selection().status
    return _change(
        lambda ids: f"{data_catalogue.set_status_of(database(), ids, status, own_site())} files are {status} now"
    )


@blueprint.post("/catalogue/remove")
@requires(Right.CATALOGUE)
def remove_files() -> Redirection:
    """Remove the files that are marked from the catalogue."""
    if _selection().confirm != CONFIRMATION:
        raise InvalidInput(f"nothing is removed unless {CONFIRMATION!r} is typed")
    return _change(lambda ids: f"{data_catalogue.delete_these(database(), ids, own_site())} files left the catalogue")


def _change(change: Callable[[list[ObjectId]], str]) -> Redirection:
    ids = [ObjectId(file) for file in _selection().file]
    flash(change(ids) if ids else "No file was marked: mark some first")
    return redirect(url_for("pages.catalogue", **_chosen(_given(), "after")), 303)


def _selection() -> schemas.FileSelection:
    form = request.form
    fields = {name: form[name] for name in ("status", "confirm") if form.get(name)}
    return parse(schemas.FileSelection, {"file": form.getlist("file"), **fields})


def _given() -> schemas.FileQuery:
    given = parse(schemas.FileQuery, request.args.to_dict())
    given.site = own_site() or given.site
    return given


def _chosen(given: schemas.FileQuery, *also: str) -> dict[str, Any]:
    """Return what an address needs to show the same selection."""
    fields = {"name", "site", "status", "filetype", "sort", *also}
    return given.model_dump(include=fields, exclude_defaults=True)
