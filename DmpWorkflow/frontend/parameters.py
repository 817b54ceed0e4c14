"""Parameters as clients send them: old ones in forms, also with GET, new ones as JSON."""

from typing import Any, TypeVar

from flask import current_app, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest

from DmpWorkflow.core.database.submission import Words
from DmpWorkflow.core.literals import dictionary
from DmpWorkflow.core.overrides import Overrides, from_mapping
from DmpWorkflow.frontend.cli.assignments import overrides as parse_assignments
from DmpWorkflow.utils.errors import InvalidInput

MOST_CONTAINERS = 200_000  # lists and objects in a JSON body: each takes far more memory than text
Model = TypeVar("Model", bound=BaseModel)


class Malformed(InvalidInput):
    """The request cannot be read."""

    http_status = 400


def is_old_style() -> bool:
    """Say whether this is a form-encoded request, whose sender reads "result" and no HTTP status."""
    if request.is_json:
        return False
    given = request.authorization
    if given is not None and given.type == "bearer":
        return False
    return bool(request.form or request.files) or request.method == "POST"


def parameters() -> dict[str, Any]:
    """Return all parameters: query string, form and JSON body alike."""
    found: dict[str, Any] = request.args.to_dict() | request.form.to_dict()
    return found | (json_object() if request.is_json else {})


def json_object() -> dict[str, Any]:
    """Return the JSON object in the body; raises Malformed."""
    if not request.is_json:
        raise Malformed("the body must be a JSON object")
    data = request.get_data()
    if (containers := data.count(b"{") + data.count(b"[")) > MOST_CONTAINERS:
        raise Malformed(f"the body has {containers} lists and objects: at most {MOST_CONTAINERS} are read")
    try:
        body = request.get_json()
    except (BadRequest, RecursionError) as error:
        raise Malformed("the body is no valid JSON") from error
    if not isinstance(body, dict):
        raise Malformed("the body must be a JSON object")
    return body


def parse(model: type[Model], values: dict[str, Any] | None = None) -> Model:
    """Return the parameters as ``model``; raises InvalidInput naming the field."""
    try:
        return model.model_validate(parameters() if values is None else values)
    except ValidationError as error:
        raise InvalidInput(explain(error)) from error


def explain(error: ValidationError) -> str:
    """Return a validation error as one line: every field and what is wrong with it."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(map(str, problem["loc"]))
        said = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{place}: {said}" if place else said)
    return "; ".join(parts)


def overrides(value: Any) -> Overrides:
    """Return the overrides in an ``override_dict`` or ``body`` parameter."""
    return from_mapping(dictionary(value, "override_dict"))


def words() -> Words:
    """Return the types and sites that jobs may name."""
    known = current_app.config["DAMPE_SETTINGS"].jobdb
    return Words(types=known.task_types, sites=known.batch_sites)


def assignments(text: str) -> Overrides:
    """Return the overrides in a form's field with a variable on each line."""
    return overrides(parse_assignments(text.splitlines()))
