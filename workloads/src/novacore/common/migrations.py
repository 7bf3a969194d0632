"""Which migration level this code expects of its schema, and whether the database has it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from novacore.common.database import Database

FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@cache
def expected_level(schema: str) -> int:
    """Return the number of the last migration file of a schema; 0 when it has none of its own."""
    folder = files("novacore.migrations").joinpath(schema)
    if not folder.is_dir():
        return 0
    matches = (FILE_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=0)


async def migrations_applied(db: Database, schema: str) -> bool:
    """Return whether the database is at the expected level or beyond (a newer release's Job ran before us)."""
    async with db.connection() as conn:
        level = await conn.fetchval("SELECT max(version) FROM ops.schema_migrations WHERE schema = $1", schema)
    return level is not None and level >= expected_level(schema)
