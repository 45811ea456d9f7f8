"""The creation of a VM goes as documented; and when a step breaks, tracer names it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from small_cloud import Cloud

STEPS = ("1", "2", "3", "4a", "4b", "4c", "4d", "4e", "5", "6", "7", "8a", "8b", "8c")


def test_a_creation_goes_as_documented(tracer: Any, cloud: Cloud) -> None:
    """BREAK=8b in the environment breaks step 8b, to see what a failure says."""
    with tracer.record(cloud.interfaces, settle=0.3, allow=cloud.unseen) as traffic:
        cloud.boot("web-1", breaks=os.environ.get("BREAK", ""))
    trace = traffic.only(name="web-1")
    assert trace.conforms()
    assert trace.outcome == "active"
    for step in STEPS:
        assert trace.step(step).status == ("unobserved" if f"unobserved:{step}" in cloud.unseen else "seen")
    assert trace.step("2").on("External_api")
    assert trace.step("8b").on("Internal_base")
    assert trace.step("8c").within("5s")


def test_one_capture_point_will_do(tracer: Any, cloud: Cloud) -> None:
    """All interfaces of a host at once: the planes are told by the traffic."""
    with tracer.record("any", settle=0.3, allow=cloud.unseen) as traffic:
        cloud.boot("web-any")
    trace = traffic.only(name="web-any")
    assert trace.conforms()
    assert trace.step("2").on("External_api")
    assert trace.step("8b").on("Internal_base")


@pytest.mark.parametrize("step", STEPS)
def test_a_broken_step_is_named(step: str, tracer: Any, cloud: Cloud) -> None:
    """Whoever refuses or fails: the failure's message names the step, and the VM."""
    if f"unobserved:{step}" in cloud.unseen:
        pytest.skip("without MariaDB nothing on the wire shows this step")
    with tracer.record(cloud.interfaces, settle=0.3, allow=cloud.unseen) as traffic:
        became = cloud.boot(f"web-{step}", breaks=step)
    assert became in ("REFUSED", "ERROR")
    with pytest.raises(AssertionError) as failure:
        assert traffic.conforms()
    assert f"VM web-{step}" in str(failure.value)
    assert f"step {step} " in str(failure.value)
    assert traffic.only().stopped_at == step
