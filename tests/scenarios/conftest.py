"""``pytest tests/scenarios --record`` writes the expected logs that are missing; delete one to have it written anew."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write missing expected logs of scenarios")
