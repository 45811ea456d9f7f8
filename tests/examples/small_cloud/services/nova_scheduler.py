"""nova-scheduler: selects a host (step 6)."""

from typing import Any

from services.rpc import Context, Peer, versioned

HOST = "compute1"


def answer(method: str, _: Any, context: Context) -> Any:
    if method != "select_destinations":
        return None
    if context["break"] == "6":
        raise RuntimeError("No valid host was found. There are not enough hosts available.")
    return [[versioned("Selection", service_host=HOST, nodename=HOST)]]


if __name__ == "__main__":
    Peer("nova-scheduler").serve("scheduler", answer=answer)
