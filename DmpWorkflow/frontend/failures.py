"""Errors as replies: one line, never a trace."""

import logging

from flask import Flask, Response, jsonify, request, url_for
from pymongo.errors import PyMongoError
from werkzeug.exceptions import HTTPException

from DmpWorkflow.core.reports import StaleAttempt
from DmpWorkflow.frontend.pages.addresses import path_of
from DmpWorkflow.frontend.pages.blueprint import error_page, is_page
from DmpWorkflow.frontend.pages.refresh import is_refresh
from DmpWorkflow.frontend.parameters import is_old_style
from DmpWorkflow.utils.errors import DmpWorkflowError, Unavailable
from DmpWorkflow.utils.text import one_line

log = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Answer errors of every kind in the form that the client understands."""
    app.register_error_handler(DmpWorkflowError, answer)
    app.register_error_handler(PyMongoError, _database_failed)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _failed)


def answer(error: DmpWorkflowError) -> Response:
    """Return the reply for an error of ours."""
    if is_page() and error.http_status == 401:
        return _to_login()
    reply = _page(error.http_status, one_line(error)) if is_page() else _json(error)
    if error.http_status == 401:
        reply.headers["WWW-Authenticate"] = 'Basic realm="DmpWorkflow"'
    if error.transient:
        reply.headers["Retry-After"] = str(getattr(error, "retry_after", 5))
    return reply


def _to_login() -> Response:
    """Ask people to log in, and lead them back to what they wanted to see."""
    wanted = request.full_path.rstrip("?") if request.method == "GET" else ""
    if not is_refresh():
        return Response(status=303, headers={"Location": url_for("pages.login", next=wanted or None)})
    wanted = path_of(request.headers.get("HX-Current-URL", "")) or wanted  # the page, not its live part
    return Response(status=401, headers={"HX-Redirect": url_for("pages.login", next=wanted or None)})


def _page(status: int, text: str) -> Response:
    return Response(error_page(status, text), status, mimetype="text/html")


def _json(error: DmpWorkflowError) -> Response:
    body: dict[str, object] = {"result": "nok", "error": one_line(error)}
    if request.path == "/job/":
        body["jobID"] = "None"  # the original's habit, and harmless
    if isinstance(error, StaleAttempt):
        body["stop"] = True
    reply = jsonify(body)
    reply.status_code = _status(error.http_status)
    return reply


def _status(status: int) -> int:
    """Old clients read HTTP 200 with "nok"; what they must not take for an answer keeps its status."""
    if status in (401, 403, 429, 503):  # before the body is looked at: who may do nothing makes us read nothing
        return status
    return 200 if is_old_style() else status


def _database_failed(error: PyMongoError) -> Response:
    log.error("%s %s: database: %s", request.method, one_line(request.path), one_line(error))
    return answer(Unavailable("the database does not answer now: try again"))


def _refused(error: HTTPException) -> Response:
    if is_page() or request.path == "/favicon.ico":
        return _page(error.code or 500, f"{error.name}: {request.path}")
    reply = jsonify({"result": "nok", "error": f"{error.name}: {request.method} {one_line(request.path)}"})
    reply.status_code = error.code or 500
    if error.response is None and hasattr(error, "valid_methods") and error.valid_methods:
        reply.headers["Allow"] = ", ".join(error.valid_methods)
    return reply


def _failed(error: Exception) -> Response:
    log.exception("%s %s failed", request.method, one_line(request.path), exc_info=error)
    return answer(DmpWorkflowError("the server failed at this request: its log says why"))
