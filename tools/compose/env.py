"""`make env`: write `.env`, the settings of docker-compose.yaml, with secrets made at random.

What stands in the file already is kept: run it again after an upgrade, and it adds what is new.
"""

import argparse
import base64
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools import properties
from tools.paths import CONFIGURATION, ROOT, write_private

FILE = ROOT / ".env"
SECRETS = (
    "POSTGRES_PASSWORD",
    "AIRFLOW_DATABASE_PASSWORD",
    "AIRFLOW_ADMIN_PASSWORD",
    "AIRFLOW_VIEWER_PASSWORD",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_SECRET_KEY",
    "MLFLOW_DATABASE_PASSWORD",
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_SECRET_KEY",
    "CELERY_DATABASE_PASSWORD",
    "REDIS_PASSWORD",
)
HEADER = """# Settings and secrets of docker-compose.yaml, made by `make env`. Keep it to yourself, and in
# your backups: without AIRFLOW_FERNET_KEY what Airflow has encrypted in its database cannot be read again.
"""


def main(path: Path = FILE) -> int:
    """Write the file, or add to it.

    Args:
        path: of the file.

    Returns:
        0, or 78 where no container engine is found.
    """
    socket = Path(os.environ.get("DOCKER_SOCKET", "/var/run/docker.sock"))
    if not socket.exists():
        print(f"error: no container engine at {socket}: start it, or set DOCKER_SOCKET", file=sys.stderr)
        return CONFIGURATION
    known = properties.read(path) if path.exists() else {}
    made = {name: make() for name, make in settings(socket).items() if name not in known}
    if not made and path.exists():
        print(f"{path.name} is complete")
        return 0
    write(path, known | made)
    print(
        f"{path.name}: {len(made)} settings added; the logins are admin and viewer, their passwords are in it"
    )
    return 0


def settings(socket: Path) -> dict[str, Callable[[], str]]:
    """Tell how each setting is made.

    Args:
        socket: of the container engine; its group is the one that the engine's proxy runs with.
    """
    return {
        **dict.fromkeys(SECRETS, lambda: secrets.token_urlsafe(24)),
        "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "DOCKER_GID": lambda: str(socket.stat().st_gid),
        "DOCKER_SOCKET": lambda: str(socket),
        # Folders of the engine's machine, or names of volumes.
        "IMAGEBATCH_DOCKER_INPUTS": lambda: str(ROOT / "var" / "data"),
        "IMAGEBATCH_DOCKER_MODELS": lambda: str(ROOT / "model_store"),
    }


def write(path: Path, content: Mapping[str, str]) -> None:
    """Write the file at once and whole, readable by its owner only."""
    write_private(path, HEADER + properties.text(content))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("path", type=Path, nargs="?", default=FILE, help="of the file (default: .env)")
    sys.exit(main(options.parse_args().path))
