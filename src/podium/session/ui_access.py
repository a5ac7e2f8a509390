"""Owns who may reach the UI: where it listens, which Host and Origin it answers, and its password."""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.errors import Fault, InvalidInput

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = ("0.0.0.0", "::")
USER = "admin"
LOGIN_FILE = "login.ini"
_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?"
)
# What a person has set for MLflow servers of their own must not open this one.
_NOT_TAKEN_OVER = ("MLFLOW_SERVER_", "MLFLOW_AUTH_", "MLFLOW_ENABLE_REMOTE_ASSISTANT", "MLFLOW_STATIC_PREFIX")


@dataclass(frozen=True, kw_only=True)
class Access:
    """`hosts` are the Host headers that are answered, `origins` those from which pages may write."""

    host: str
    port: int
    hosts: tuple[str, ...]
    origins: tuple[str, ...]

    @property
    def url(self) -> str:
        """The address to open on this machine."""
        shown = LOOPBACK if self.host in EVERY_ADDRESS else self.host
        return f"http://{_in_url(shown)}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Login:
    """The UI's password. `file` (mode 0600) keeps it; `new` says that it was made just now."""

    file: Path
    password: str
    secret_key: str
    new: bool

    def environment(self) -> Mapping[str, str]:
        """How MLflow's basic-auth app is told; the password itself goes by the file."""
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.file),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secret_key,
        }


def check_access(host: str, port: int, *, auth: bool, allowed_hosts: Sequence[str]) -> Access:
    """Where to listen and whom to answer.

    Raises: InvalidInput if an address that others reach is asked for without a password and without
    the names by which it is reached, or if a name is none.
    """
    host = LOOPBACK if host == "localhost" else host
    faults = [
        Fault(message=f"got '{name}', which is no host's name", key="--allowed-hosts", got=name)
        for name in allowed_hosts
        if not _NAME.fullmatch(name)
    ]
    if not _is_loopback(host):
        if not auth:
            faults.append(Fault(message="is missing: others could read and change every run", key="--auth"))
        if not allowed_hosts:
            message = "is missing: any web page could reach the UI by a name of its own"
            faults.append(Fault(message=message, key="--allowed-hosts"))
    if faults:
        raise InvalidInput(
            f"the UI cannot be served on {host}." if not _is_loopback(host) else "a host's name is wrong.",
            faults=faults,
            remedy="Leave --host out to serve this machine alone, or give a password and the names that "
            f"browsers use: podium ui --host {host} --auth --allowed-hosts my-machine.example",
        )
    return _access(host, port, allowed_hosts)


def login_in(folder: Path) -> Login:
    """The password that is kept in `folder`, or a new one if there is none.

    The folder (mode 0700) is the UI's alone: without its login file, its users are of no use and go.
    """
    file = folder / LOGIN_FILE
    kept = configparser.ConfigParser(interpolation=None)
    kept.read(file)
    new = not kept.has_option("mlflow", "admin_password") or not kept.has_option("podium", "secret_key")
    if new:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
    login = Login(
        file=file,
        password=secrets.token_urlsafe(24) if new else kept["mlflow"]["admin_password"],
        secret_key=secrets.token_urlsafe(32) if new else kept["podium"]["secret_key"],
        new=new,
    )
    _write(login)
    return login


def without_foreign_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of other MLflow servers."""
    return {name: value for name, value in environment.items() if not name.startswith(_NOT_TAKEN_OVER)}


def _access(host: str, port: int, allowed_hosts: Sequence[str]) -> Access:
    # Named one by one: MLflow's own list has patterns such as 10.*, which a page of 10.example matches.
    # Only this machine's names go with any port, which is another one at the near end of a tunnel.
    hosts = [name for each in (LOOPBACK, "localhost") for name in (each, f"{each}:*")]
    if host not in (LOOPBACK, *EVERY_ADDRESS):
        hosts.append(f"{_in_url(host)}:{port}")
    origins = []
    for given in allowed_hosts:
        match = _NAME.fullmatch(given)
        assert match is not None
        # Behind a proxy the browser's port is another, or none.
        names = [given] if match["port"] else [f"{given}:{port}", given]
        hosts += names
        origins += [f"{scheme}://{name}" for name in names for scheme in ("http", "https")]
    return Access(host=host, port=port, hosts=tuple(dict.fromkeys(hosts)), origins=tuple(origins))


def _write(login: Login) -> None:
    """Write the file anew: the folder may have been moved, and MLflow wants an absolute address."""
    users = login.file.with_name("users.db").resolve()
    # MLflow reads the file with interpolation, so a % of the path is doubled.
    address = f"sqlite:///{users}".replace("%", "%%")
    content = (
        "[mlflow]\n"
        f"admin_username = {USER}\n"
        f"admin_password = {login.password}\n"
        "default_permission = READ\n"
        f"database_uri = {address}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "[podium]\n"
        f"secret_key = {login.secret_key}\n"
    )
    temporary = login.file.with_name(f".{LOGIN_FILE}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    temporary.replace(login.file)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
