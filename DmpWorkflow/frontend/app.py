"""The application: settings in, a Flask application out, nothing global."""

import logging
from datetime import timedelta

from flask import Flask
from flask_compress import Compress
from flask_mongoengine import MongoEngine
from mongoengine import get_connection

from DmpWorkflow.config.settings import Settings
from DmpWorkflow.core.database import audit, credentials, logins, snapshots
from DmpWorkflow.core.database.connection import CLIENT_OPTIONS, Database
from DmpWorkflow.frontend import access, failures, transport
from DmpWorkflow.frontend.api import administration, jobs, service, sites, statistics, status
from DmpWorkflow.frontend.pages import blueprint as pages
from DmpWorkflow.frontend.pages import refresh

DATABASE_SECONDS = 60.0  # that a server which is started waits for a primary
LARGEST_BODY = 16 * 1024 * 1024  # bytes
ASSETS_LIFETIME = timedelta(days=365)  # their addresses change with the version
LARGEST_FIELD = 4 * 1024 * 1024  # bytes of one form field in memory

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> Flask:
    """Return the application, with its database ready; refuses routes that declare no right."""
    app = Flask(__name__, static_folder=None)
    transport.init_app(app, settings.server)
    app.before_request(lambda: audit.ask_who(access.actor))
    app.config.update(
        DAMPE_SETTINGS=settings,
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        MAX_FORM_MEMORY_SIZE=LARGEST_FIELD,
        JSON_SORT_KEYS=False,
        PERMANENT_SESSION_LIFETIME=logins.LIFETIME,
        SESSION_COOKIE_NAME="dampe_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=transport.is_secure(settings.server),
        WTF_CSRF_CHECK_DEFAULT=False,  # pages check it; other routes take no cookie for a change
        WTF_CSRF_TIME_LIMIT=None,  # a form is good as long as its session
        SEND_FILE_MAX_AGE_DEFAULT=ASSETS_LIFETIME,
    )
    database = _open_database(app, settings)
    database.prepare(DATABASE_SECONDS)
    app.extensions["dampe_database"] = database
    app.extensions["dampe_signing_key"] = credentials.secret(database)
    app.extensions["dampe_clockwork"] = snapshots.Clockwork()
    app.secret_key = credentials.session_secret(database)
    failures.init_app(app)
    pages.csrf.init_app(app)
    refresh.init_app(app)
    Compress(app)
    for module in (jobs, status, sites, statistics, administration, service, pages):
        app.register_blueprint(module.blueprint)
    access.check_declarations(app)
    if settings.server.open_to:
        log.warning("access is open: without a credential, %s", settings.server.open_to)
    return app


def _open_database(app: Flask, settings: Settings) -> Database:
    """Open the database through Flask-MongoEngine, so that documents work in the application as well."""
    address, name = settings.database.address, settings.database.name
    app.config["MONGODB_SETTINGS"] = {"host": address, "db": name} | CLIENT_OPTIONS
    MongoEngine(app)
    return Database(address, name, get_connection())
