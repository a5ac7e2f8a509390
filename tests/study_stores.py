"""Owns where tests keep their studies: SQLite files, or PostgreSQL databases where PODIUM_TEST_STUDY_URL names a server."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "services"))

VARIABLE = "PODIUM_TEST_STUDY_URL"
TEMPLATE = "podium_template"
FILE = "studies.db"


def server() -> str | None:
    """The address of a server on which tests may make databases, None if studies are files."""
    return os.environ.get(VARIABLE)


def address(folder: Path) -> str:
    """The store of a folder, whether it has been made or not."""
    url = server()
    return f"sqlite:///{folder / FILE}" if url is None else f"{url.rpartition('/')[0]}/{_name(folder)}"


def make_new(folder: Path) -> str:
    """What comes before the first start: no file, or a database without tables; answers the address."""
    url = server()
    if url is not None:
        from servers import drop_database, make_database

        drop_database(url, _name(folder))
        make_database(url, _name(folder))
    return address(folder)


def make_empty(folder: Path, template: Path) -> str:
    """A store without a study, copied from one that is made once, in SQLite `template`; answers the address."""
    url = server()
    if url is None:
        if not template.exists():
            _prepare(f"sqlite:///{template}")
        shutil.copyfile(template, folder / FILE)
    else:
        from servers import drop_database, make_database

        _make_template(url)
        drop_database(url, _name(folder))
        make_database(url, _name(folder), TEMPLATE)
    return address(folder)


def drop(folder: Path) -> None:
    """Remove a folder's database; files go with their folder."""
    url = server()
    if url is not None:
        from servers import drop_database

        drop_database(url, _name(folder))


def _name(folder: Path) -> str:
    return f"podium_{hashlib.sha256(str(folder).encode()).hexdigest()[:20]}"


def _make_template(url: str) -> None:
    import psycopg
    from servers import make_database, plain

    with psycopg.connect(plain(url), autocommit=True) as connection:
        # Several processes of tests ask for it at once.
        connection.execute("SELECT pg_advisory_lock(1)")
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone() is None:
            made = make_database(url, f"{TEMPLATE}_in_the_making")
            _prepare(made)
            connection.execute(f'ALTER DATABASE "{TEMPLATE}_in_the_making" RENAME TO "{TEMPLATE}"')


def _prepare(url: str) -> None:
    from podium.engines.study import prepare_storage

    prepare_storage(url)
