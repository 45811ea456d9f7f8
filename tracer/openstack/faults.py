"""Where the cloud says why: tasks that failed, tokens that are unknown, hosts that were offered and claimed.

Sources: FusionCompute's tasks as captured; Identity API v3 (GET /v3/auth/tokens); Placement API (GET
/allocation_candidates, PUT /allocations/{consumer}).
"""

from __future__ import annotations

__all__ = [
    "CANDIDATES_PATH",
    "CLAIM",
    "TASK_FAILED",
    "TOKENS_PATH",
    "asks_for_candidates",
    "asks_for_resources",
    "claims_host",
    "validates_token",
]

TASK_FAILED = "failed"
"""Status of a task of the VRM whose answer is 200 all the same."""
TOKENS_PATH = "/auth/tokens"
CANDIDATES_PATH = "/allocation_candidates"
CLAIM = "PUT /allocations/"
_NARROWED_BY = ("required", "member_of", "in_tree")
"""Fields of a question to placement that leave hosts out."""


def validates_token(operation: str) -> bool:
    """Tell whether *operation* asks keystone about a token that is in a header."""
    return operation.startswith("GET") and operation.endswith(TOKENS_PATH)


def asks_for_candidates(path: str) -> bool:
    """Tell whether *path* asks placement which hosts could take a server."""
    return path.endswith(CANDIDATES_PATH)


def claims_host(operation: str) -> bool:
    """Tell whether *operation* claims the resources of a host for a server."""
    return operation.startswith(CLAIM)


def asks_for_resources(field: str) -> bool | None:
    """Tell what a field of that question is: True resources, False what leaves hosts out, None neither."""
    if field.startswith("resources"):
        return True
    return False if field.startswith(_NARROWED_BY) else None
