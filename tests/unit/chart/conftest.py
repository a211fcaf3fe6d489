"""Fixtures of the chart's tests."""

from collections.abc import Callable

import pytest

from tests.support.chart import CASES, Document, rendered_objects


@pytest.fixture
def rendered() -> Callable[[str], tuple[Document, ...]]:
    """Objects of a case, by its name; skips where helm has not been built."""
    return rendered_objects


@pytest.fixture(params=sorted(CASES))
def objects(request: pytest.FixtureRequest) -> tuple[Document, ...]:
    """Objects of each case in turn."""
    return rendered_objects(request.param)
