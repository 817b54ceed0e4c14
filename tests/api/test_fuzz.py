"""The API fuzzed from its own description: whatever comes in, it is never the server that fails."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok

from tests.served import Served

EXAMPLES = 25  # for each operation


@pytest.fixture(scope="module")
def schema(served: Served) -> Iterator[schemathesis.BaseSchema]:
    token = {"Authorization": f"Bearer {served.admin_token}"}
    yield schemathesis.openapi.from_url(f"{served.url}/openapi.json", headers=token)


def test_the_description_is_valid_openapi(served: Served) -> None:
    token = {"Authorization": f"Bearer {served.admin_token}"}
    document = requests.get(f"{served.url}/openapi.json", headers=token, timeout=30).json()
    schemathesis.openapi.from_dict(document).validate()
    assert document["openapi"].startswith("3.1")


def test_no_request_makes_the_server_fail(schema: schemathesis.BaseSchema, served: Served) -> None:
    token = {"Authorization": f"Bearer {served.admin_token}"}
    seen = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        seen += 1

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.seed(2026)
        def fuzz(case: "schemathesis.Case[Any]") -> None:
            case.call_and_validate(headers=token, checks=[not_a_server_error])

        fuzz()
    assert seen > 20
