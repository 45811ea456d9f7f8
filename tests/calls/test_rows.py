"""What the rows of nova's tables tell of a server, as MySQL and PostgreSQL are sent them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.calls.rows import Row, row_of, set_host

SERVER = "145c135d-63cb-41ba-98cd-3235a30c2e27"
IMAGE = "ccf1cf31-0691-4195-bd27-1b7a43b71501"
ACTION = f"(created_at, action, instance_uuid) VALUES ('2026-11-22 06:52:40', 'create', '{SERVER}')"


@pytest.mark.parametrize("table", ["instance_actions", "`instance_actions`", 'public."instance_actions"'])
def test_an_action_tells_the_server_and_the_purpose(table: str) -> None:
    assert row_of(f"INSERT INTO {table} {ACTION}".encode(), "instance_actions") == Row(
        SERVER, purpose="create"
    )


@pytest.mark.parametrize("name", ["web-1", "it''s", "a, (b)", "größe"])
def test_a_new_server_has_its_uuid_not_that_of_its_image(name: str) -> None:
    text = (
        "INSERT INTO instances (created_at, image_ref, vm_state, display_name, locked, uuid) VALUES"
        f" ('2026-11-28T21:04:46'::timestamp, '{IMAGE}', 'building', '{name}', false, '{SERVER}')"
    )
    assert row_of(text.encode(), "instances") == Row(SERVER, name.replace("''", "'"), "building")


@pytest.mark.parametrize("quote", ['"', '\\"'])
def test_the_name_is_read_from_the_object_of_a_build_request(quote: str) -> None:
    found = f'{{"nova_object.data": {{"display_name": "web-1", "uuid": "{SERVER}"}}}}'.replace('"', quote)
    text = f"INSERT INTO build_requests (instance_uuid, instance) VALUES ('{SERVER}', '{found}')"
    assert row_of(text.encode(), "build_requests") == Row(SERVER, "web-1")


def test_a_text_in_the_place_of_the_uuid_is_no_server() -> None:
    text = b"INSERT INTO build_requests (instance_uuid) VALUES ('../../etc')"
    assert row_of(text, "build_requests") == Row()


def test_the_host_is_what_is_set_not_what_is_expected() -> None:
    text = (
        b"UPDATE instances SET updated_at='2026', host='compute1', node='n' WHERE instances.host = 'compute2'"
    )
    assert set_host(text, text.index(b" WHERE")) == "compute1"
    assert not set_host(b"UPDATE instances SET host=NULL WHERE host='compute2'", 30)


@given(st.binary(max_size=200), st.sampled_from(["instances", "build_requests", "instance_actions", "other"]))
def test_strange_rows_never_raise(values: bytes, table: str) -> None:
    row_of(b"INSERT INTO x (uuid, instance_uuid, action, display_name) VALUES (" + values, table)
