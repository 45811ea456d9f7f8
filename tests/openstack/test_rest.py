"""The paths: whose they are, what they do and what they name."""

from __future__ import annotations

import pytest

from tracer.calls import wants_body
from tracer.calls.paths import operation_path
from tracer.openstack import faults, rest, states

VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"
PROJECT = "e114495f4b7d49c18a052454413cd3db"


@pytest.mark.parametrize(
    "path, role",
    [
        ("/v2.1/servers", "nova-api"),
        (f"/compute/v2.1/{PROJECT}/servers/{VM}", "nova-api"),
        ("/v2.1/os-keypairs/x", "nova-api"),
        ("/v3/auth/tokens", "keystone"),
        ("/identity/v3/limits", "keystone"),
        ("/v2.0/tokens/abc", "keystone"),
        ("/v2.0/ports.json", "neutron-server"),
        ("/v2.0/security-groups", "neutron-server"),
        (f"/v2/images/{VM}", "glance-api"),
        (f"/v3/{PROJECT}/attachments", "cinder-api"),
        ("/allocation_candidates", "placement"),
        (f"/allocations/{VM}", "placement"),
        ("/service/sites/43BC08E8/vms", "vrm"),
        ("/service/session", "vrm"),
        ("/v2.0/portals", ""),
        ("/services/session", ""),
        ("/", ""),
    ],
)
def test_whose_a_path_is(path: str, role: str) -> None:
    """The API references of the services."""
    assert rest.role_of_path(path) == role


@pytest.mark.parametrize(
    "method, path, creates",
    [
        ("POST", "/v2.1/servers", True),
        ("POST", f"/v2/{PROJECT}/servers/", True),
        ("POST", "/compute/v2.1/servers", True),
        ("GET", "/v2.1/servers", False),
        ("POST", f"/v2.1/servers/{VM}/action", False),
        ("POST", "/v2.0/ports", False),
    ],
)
def test_what_makes_a_server(method: str, path: str, creates: bool) -> None:
    assert rest.creates_server(method, path) is creates


def test_the_plainest_creation_is_one() -> None:
    method, _, path = rest.CREATE_SERVER.partition(" ")
    assert rest.creates_server(method, path)
    assert path.endswith(rest.SERVERS)


def test_the_server_that_a_path_names() -> None:
    assert rest.server_named(f"/v2.1/servers/{VM}{rest.ACTION}") == VM
    assert rest.server_named(f"/v2.1/images/{VM}") == ""
    assert rest.server_named(f"/v2.1/servers/{VM}0") == ""


@pytest.mark.parametrize("path", rest.SECRETS)
def test_bodies_that_hold_secrets_are_not_read(path: str) -> None:
    """Neither of a request nor of its answer, also where a cloud has a prefix; refusals too."""
    for status in (0, 200, 201, 401):
        assert not wants_body("POST", f"/identity{path}/x", {"content-type": "application/json"}, status)


@pytest.mark.parametrize(
    "path, wanted",
    [
        (f"/v2.1/servers/{VM}", True),
        ("/service/sites/43BC08E8/tasks/115", True),
        ("/allocation_candidates?limit=1", True),
        ("/rest/v2/cloudhosts/7", True),
        ("/orders/7", True),
        ("/v2.1/servers/detail", False),
        ("/v2.1/flavors", False),
    ],
)
def test_which_answers_to_a_get_are_read(path: str, wanted: bool) -> None:
    assert wants_body("GET", path, {}, 200) is wanted


@pytest.mark.parametrize(
    "path, is_vrm, names",
    [
        ("/service/sites/43BC08E8/tasks/115", True, True),
        ("/service/sites/43BC08E8/vms/i-00000072/action/start", True, True),
        ("/service/sites/43BC08E8/vms", True, False),
        ("/service/session", True, False),
        ("/v2.1/servers", False, False),
    ],
)
def test_paths_of_the_vrm(path: str, is_vrm: bool, names: bool) -> None:
    """FusionCompute's: a site, and in it tasks and virtual machines."""
    assert (rest.is_vrm(path), rest.names_vrm_object(path)) == (is_vrm, names)


def test_logins() -> None:
    assert rest.is_login("/identity/v3/auth/tokens")
    assert not rest.is_login("/v3/auth/catalog")


@pytest.mark.parametrize("word", sorted(rest.ID_WORDS))
def test_known_words_are_no_ids(word: str) -> None:
    assert operation_path(f"/v2.1/servers/{word}") == f"/v2.1/servers/{word}"


@pytest.mark.parametrize("collection", sorted(rest.HOLDS_IDS))
def test_what_follows_a_collection_is_an_id(collection: str) -> None:
    assert operation_path(f"/x/{collection}/web-1") == f"/x/{collection}/{{id}}"


def test_states_with_which_a_creation_ends() -> None:
    """A status is a state in capitals; a task of the VRM has words of its own."""
    assert {"active", "error"} == states.ENDS_CREATION
    assert set(states.STATE_OF_STATUS.values()) == states.ENDS_CREATION
    assert all(status == state.upper() for status, state in states.STATE_OF_STATUS.items())
    assert {"ERROR", "failed"} == states.STATUS_OF_FAILURE


def test_a_cut_fault_is_looked_for_in_fields_of_a_whole_one() -> None:
    assert set(faults.CUT_FIELDS) <= set(faults.FIELDS)
