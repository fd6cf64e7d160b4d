"""Names and passwords of management controllers, read from files when they are used and kept nowhere."""

import base64
import html
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

from rebalancerd.act.power.settings import HostPower

MOST_BYTES = 4096
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"  # systemd's LoadCredential=


class SecretError(Exception):
    """A secret cannot be had; the message names the file, never what is in it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a controller is logged into with. The password shows in no text of this object."""

    username: str
    password: str = field(repr=False)


def credentials(power: HostPower) -> Credentials:
    """Name and password of a host's controller. Raises SecretError."""
    if power.username_file is None or power.password_file is None:
        raise SecretError("username_file and password_file are not both set")
    return Credentials(read_secret(power.username_file), read_secret(power.password_file))


def without_secrets(text: str, username: str, password: str) -> str:
    """The text of a controller's answer without the password, however it may repeat it."""
    both = f"{username}:{password}".encode()
    forms = {
        password,
        json.dumps(password)[1:-1],
        json.dumps(password, ensure_ascii=False)[1:-1],
        repr(password)[1:-1],
        quote(password, safe=""),
        quote(password),
        quote_plus(password),
        html.escape(password),
        base64.b64encode(both).decode(),
        base64.b64encode(password.encode()).decode(),
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def secret_path(given: str) -> Path:
    """An absolute path as it is; a plain name is one of systemd's credentials. Raises SecretError."""
    if given.startswith("/"):
        return Path(given)
    directory = os.environ.get(CREDENTIALS_DIRECTORY)
    if directory is None:
        raise SecretError(f"{given!r} names a systemd credential, but {CREDENTIALS_DIRECTORY} is not set")
    if "/" in given or given in ("", ".", ".."):
        raise SecretError(f"{given!r} is neither an absolute path nor the name of a systemd credential")
    return Path(directory) / given


def read_secret(given: str) -> str:
    """The one line of a file that nobody but its owner, root or our group may read. Raises SecretError."""
    path = secret_path(given)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {error.strerror}") from None
    try:
        _only_ours(path, os.fstat(descriptor))
        raw = os.read(descriptor, MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    return _line(path, raw)


def _only_ours(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretError(f"{path} is no regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise SecretError(f"{path} belongs to user {status.st_uid}, neither to root nor to us")
    if status.st_mode & 0o037:
        mode = stat.S_IMODE(status.st_mode)
        raise SecretError(f"{path} has mode {mode:04o}: others may read or its group may write it; chmod 600")


def _line(path: Path, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not UTF-8 text") from None
    if not text or len(raw) > MOST_BYTES or not text.isprintable():
        raise SecretError(f"{path} does not hold one line of text")
    return text
