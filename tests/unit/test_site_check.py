"""What the test of a site says when its batch system falls silent in the middle of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from DmpWorkflow.backend import site_check
from DmpWorkflow.backend.interface import AttemptKey, BatchJob, Submission, Submitted
from DmpWorkflow.backend.local import LocalBackend
from DmpWorkflow.client import Client
from DmpWorkflow.config.settings import Settings, SiteSettings
from DmpWorkflow.utils.errors import Unavailable


class Silent(LocalBackend):
    """Answers one query and takes a job; then nothing any more."""

    asked = 0

    def submit(self, submissions: object) -> list[Submitted]:
        assert isinstance(submissions, list) and isinstance(submissions[0], Submission)
        return [Submitted(submissions[0].key, "17")]

    def query(self) -> Mapping[AttemptKey, BatchJob]:
        self.asked += 1
        if self.asked > 1:
            raise Unavailable("Unable to contact the controller")
        return {}


def test_a_system_that_falls_silent_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(site=replace(SiteSettings(), workdir=str(tmp_path)))
    monkeypatch.setattr(site_check, "make_backend", lambda name, settings: Silent.from_settings(settings))
    with Client("http://127.0.0.1:9", patience=0) as client:
        findings = list(site_check.check(settings, client, "python3", 0.6))
    assert findings[-1].name == "probe job"
    assert "(Unable to contact the controller)" in findings[-1].problem


def test_a_probe_that_ended_without_an_answer_tells_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(site=replace(SiteSettings(), workdir=str(tmp_path)))
    monkeypatch.setattr(site_check, "PROBE", "#!/bin/bash\nexit 3\n")
    with Client("http://127.0.0.1:9", patience=0) as client:
        findings = list(site_check.check(settings, client, "python3", 3))
    assert "(it ended: exit code 3)" in findings[-1].problem
