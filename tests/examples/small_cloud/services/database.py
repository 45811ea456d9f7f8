"""The database: MariaDB where there is one (DATABASE=ADDRESS:PORT), else SQLite in a file (DATABASE=PATH)."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

SCHEMA = """
CREATE TABLE quotas (project_id VARCHAR(36), resource VARCHAR(36), hard_limit INT);
CREATE TABLE request_specs (instance_uuid VARCHAR(36) PRIMARY KEY, spec TEXT);
CREATE TABLE build_requests (instance_uuid VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36));
CREATE TABLE instance_mappings (instance_uuid VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36));
CREATE TABLE instances (uuid VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36), vm_state VARCHAR(9));
CREATE TABLE instance_faults (instance_uuid VARCHAR(36), code INT, message TEXT);
INSERT INTO quotas VALUES ('e114495f4b7d49c18a052454413cd3db', 'instances', 1000);
"""
PROJECT = "e114495f4b7d49c18a052454413cd3db"


class Database:
    """One connection; what fails raises RuntimeError in the server's words."""

    def __init__(self, program: str) -> None:
        place = os.environ["DATABASE"]
        self._connection: Any
        self._errors: type[Exception]
        if place.startswith("/"):
            # Every request of a service has a thread of its own, and they take turns.
            self._connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
            self._errors, self._mark = sqlite3.Error, "?"
        else:
            import pymysql

            address, _, port = place.partition(":")
            self._connection = pymysql.connect(
                host=address, port=int(port), user="nova", password="nova", database="nova",
                autocommit=True, program_name=program,
            )  # fmt: skip
            self._errors, self._mark = pymysql.Error, "%s"

    def __call__(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, with %s for each value, and return its rows."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(text.replace("%s", self._mark), values)
            return list(cursor.fetchall())
        except self._errors as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        finally:
            cursor.close()
