"""One small cloud for the tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import small_cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[small_cloud.Cloud]:
    """A cloud that runs. Skipped where there can be none, but not in a pipeline (CI): there it must run."""
    why_not = small_cloud.why_not()
    if why_not and os.environ.get("CI"):
        pytest.fail(f"a small cloud {why_not}")
    if why_not:
        pytest.skip(f"a small cloud {why_not}")
    with small_cloud.small_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud
