"""The first page: how much is done, where, and what fails."""

from flask import render_template

from DmpWorkflow.frontend.access import Right, requires
from DmpWorkflow.frontend.pages.blueprint import blueprint


@blueprint.get("/")
@requires(Right.READ)
def overview() -> str:
    """Show the state of everything."""
    return render_template("overview.html")
