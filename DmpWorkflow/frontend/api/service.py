"""The server about itself."""

from typing import Any

from flask import Blueprint, Response, current_app
from pymongo.errors import PyMongoError

import DmpWorkflow
from DmpWorkflow.core.job_xml import schema_text
from DmpWorkflow.frontend.access import Right, database, principal, requires
from DmpWorkflow.frontend.api.openapi import document

blueprint = Blueprint("service", __name__)


@blueprint.get("/health")
@requires(Right.PUBLIC)
def health() -> tuple[dict[str, Any], int]:
    """Say whether the server and its database answer, and the least credential that any client needs."""
    facts = {"version": DmpWorkflow.__version__, "auth": current_app.config["DAMPE_SETTINGS"].server.openness}
    try:
        database().client.admin.command("ping")
    except PyMongoError:
        return {"result": "nok", "error": "the database does not answer", "database": "down"} | facts, 503
    return {"result": "ok", "database": "ok"} | facts, 200


@blueprint.get("/whoami/")
@requires(Right.KNOWN)
def whoami() -> dict[str, Any]:
    """Say whose credential this is."""
    who = principal()
    return {"result": "ok", "role": who.role, "site": who.site, "name": who.name}


@blueprint.get("/openapi.json")
@requires(Right.KNOWN)
def openapi() -> dict[str, Any]:
    """Return the description of this API."""
    return document(current_app)


@blueprint.get("/schema/job.xsd")
@requires(Right.PUBLIC)
def schema() -> Response:
    """Return the XML schema of job definitions."""
    return Response(schema_text(), mimetype="application/xml")
