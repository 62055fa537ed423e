"""The address of an MQTT broker and what lets one in, from URLs, files and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from models.errors import BrokerError

MqttVersion = Literal["3.1.1", "5"]

#: Where a broker's password is looked for when nothing else gives it.
PASSWORD_VARIABLE = "OFFRAMP_MQTT_PASSWORD"

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """Where an MQTT broker is and how to be let in. The password is in no repr.

    Attributes:
        ca: file of the certificates to trust; None for those that the system trusts.
        cert, key: files of the client's own certificate and its private key.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    version: MqttVersion = "5"

    @property
    def url(self) -> str:
        """Its address for people and command lines: without the password."""
        scheme = "mqtts" if self.tls else "mqtt"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username}@" if self.username else ""
        return f"{scheme}://{user}{host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that hand the password to a process whose arguments hold :attr:`url`."""
        return {} if self.password is None else {PASSWORD_VARIABLE: self.password}


def parse_broker(
    url: str,
    *,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    password_file: Path | None = None,
    version: MqttVersion = "5",
    environment: Mapping[str, str] = os.environ,
) -> Broker:
    """Read ``mqtt://[user[:password]@]host[:port]``, or ``mqtts://`` for TLS.

    Characters of a user or a password that mean something in a URL are written ``%40``. Better
    than in the URL, which others can read in a list of processes, the password stands in
    ``password_file`` (its first line) or in ``$OFFRAMP_MQTT_PASSWORD``; in this order they count
    where the URL has none.

    Raises:
        BrokerError: the URL is none, or its parts or the files do not go together. No message
            shows a password.
    """
    shown = re.sub(r"://([^@:/]*):.*@", r"://\1:…@", url)
    parts = _split(url, shown)
    tls = parts.scheme == "mqtts"
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if password is None and password_file is not None:
        password = _first_line(password_file)
    if username is None and password is not None:
        raise BrokerError(f"broker {shown}: a password needs a user: {parts.scheme}://user@…")
    if password is None and username is not None:
        password = environment.get(PASSWORD_VARIABLE)
    if (cert is None) != (key is None):
        raise BrokerError("a client certificate is two files: the certificate and its key")
    if not tls and (ca or cert):
        raise BrokerError(
            f"broker {shown}: certificates need TLS; write mqtts:// instead of mqtt://"
        )
    for file in (ca, cert, key):
        if file is not None and not file.is_file():
            raise BrokerError(f"there is no file {file}")
    return Broker(
        host=parts.hostname or "",
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        username=username,
        password=password,
        tls=tls,
        ca=ca,
        cert=cert,
        key=key,
        version=version,
    )


def _split(url: str, shown: str) -> SplitResult:
    wanted = "mqtt://[user@]host[:port] is expected, or mqtts:// for TLS"
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _DEFAULT_PORTS:
        raise BrokerError(f"{shown!r} is no broker; {wanted}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a part of the password
        raise BrokerError(
            f"broker {shown}: a port is a number from 1 to 65535, and / # @ in a user or password "
            "are written %2F %23 %40"
        ) from None
    if port == 0:
        raise BrokerError(f"broker {shown}: a port is a number from 1 to 65535")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise BrokerError(f"broker {shown}: {wanted}")
    return parts


def _first_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BrokerError(f"cannot read the password file {file}: {reason}") from None
    if not lines or not lines[0]:
        raise BrokerError(f"the password file {file} has an empty first line")
    return lines[0]
