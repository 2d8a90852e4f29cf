"""Where the keystore's passphrase comes from: a file, a systemd credential, or a person at a terminal.

* Never from an argument, which every program on the machine can see, nor from the environment, which children inherit.
* While `keys passwd` replaces the file, the passphrase that is to follow lies beside it as NAME.new. Whatever a crash
  leaves, one of the two opens the keystore.
"""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from exchange.crypto.secret import Secret
from exchange.node.config import Configuration
from exchange.node.errors import ConfigurationInvalid

#: Asks a person for the passphrase of what is named, or raises ConfigurationInvalid where nobody can be asked.
Ask = Callable[[str], Secret]

MOST_BYTES: Final = 4096
#: Who has the file may guess for as long as they like; nothing but the cost of each guess holds them up.
LEAST_BYTES: Final = 12
_HINT: Final = "Put the passphrase back from the copy that you keep elsewhere."


def passphrase_of(configuration: Configuration, ask: Ask | None = None) -> Secret:
    """The passphrase, from where the configuration says; where it names nothing, from the person at the terminal.

    Raises:
        ConfigurationInvalid: it cannot be had.
    """
    if configuration.passphrase_path is not None:
        return read_passphrase(configuration.passphrase_path)
    if configuration.tables.keystore.passphrase_credential:
        return read_credential(configuration)
    if ask is None:
        raise ConfigurationInvalid(
            "neither keystore.passphrase_file nor keystore.passphrase_credential is set, and there is no terminal to "
            "ask at: the keystore stays locked",
            hint="Set one of them, or start the node on a terminal.",
        )
    return ask(configuration.origin)


def read_passphrase(path: Path) -> Secret:
    """The passphrase in a file, without the newline at its end.

    Raises:
        ConfigurationInvalid: it cannot be read, is empty, or everybody may write it.
    """
    try:
        check_mode(path, "the passphrase file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationInvalid(f"cannot read the passphrase file {path}: {error.strerror}", hint=_HINT) from None
    return _checked(data, f"the passphrase file {path}", _HINT)


def read_credential(configuration: Configuration) -> Secret:
    """The passphrase that systemd gave to the service as a credential (systemd.exec, LoadCredentialEncrypted=).

    Raises:
        ConfigurationInvalid: there are no credentials, or not this one.
    """
    name, directory = configuration.tables.keystore.passphrase_credential, configuration.credentials
    hint = f"Start the node by systemd, with LoadCredentialEncrypted={name}:... in its unit; see docs/keys.md."
    if directory is None:
        raise ConfigurationInvalid(
            f"the passphrase is the credential {name!r}, and systemd gave this process no credentials", hint=hint
        )
    try:
        with (directory / name).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationInvalid(f"cannot read the credential {name!r}: {error.strerror}", hint=hint) from None
    return _checked(data, f"the credential {name!r}", hint)


def _checked(data: bytes, what: str, hint: str) -> Secret:
    passphrase = data.rstrip(b"\r\n")
    if not passphrase:
        raise ConfigurationInvalid(f"{what} is empty", hint=hint)
    if len(data) > MOST_BYTES:
        raise ConfigurationInvalid(f"{what} is longer than {MOST_BYTES} bytes: that is no passphrase", hint=hint)
    return Secret(passphrase)


def check_new(passphrase: Secret) -> Secret:
    """A passphrase that somebody chose, if it may be one.

    Raises:
        ConfigurationInvalid: it is too short.
    """
    if len(passphrase.reveal()) < LEAST_BYTES:
        raise ConfigurationInvalid(
            f"the new passphrase is shorter than {LEAST_BYTES} characters; nothing was changed",
            hint="Take four words or more that nobody would guess of you, or 20 random characters.",
        )
    return passphrase


def check_mode(path: Path, what: str) -> None:
    """Warn where others may read a file, and refuse one that everybody may write.

    Raises:
        ConfigurationInvalid: everybody may write it.
        OSError: it is not there.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        return
    if mode & stat.S_IWOTH:
        raise ConfigurationInvalid(
            f"everybody may write {what} {path}",
            hint=f"Find out who did. Then run: chmod 600 {path}",
        )
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        structlog.get_logger().warning(f"others may read {what}; run: chmod 600 on it")
