"""Colours of scripts and XML, as HTML with classes that style.css paints."""

from markupsafe import Markup
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from DmpWorkflow.frontend.pages.blueprint import blueprint
from DmpWorkflow.utils.text import printable

LANGUAGES = {"bash": "bash", "sh": "bash", "python": "python", "python3": "python", "perl": "perl"}


@blueprint.app_template_filter("coloured")
def coloured(text: str, language: str) -> Markup:
    """Return a text with its words marked by kind; a language that is not known stays plain."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return Markup.escape(printable(text))
    return Markup(highlight(printable(text), lexer, HtmlFormatter(nowrap=True)))  # noqa: S704 - Pygments escapes it


def language_of(executable: str) -> str:
    """Return the language of a script by the program that runs it."""
    return LANGUAGES.get(executable.rsplit("/", 1)[-1], "text")
