"""The tracking container's main process: MLflow on PostgreSQL, behind a login.

MLflow takes its administrator from a file; this writes it from the environment, where compose puts its
secrets, and becomes the server. Standard library only.
"""

import configparser
import os
import sys
from pathlib import Path
from typing import NoReturn

WANTED = (
    "MLFLOW_DATABASE_URI",
    "MLFLOW_ADMIN_USERNAME",
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
)
CONFIGURATION = 78  # exit code, docs/reference/protocol.md


def main() -> NoReturn:
    """Write the login's configuration and replace this process by the server, or exit with 78."""
    missing = [name for name in WANTED if not os.environ.get(name)]
    if missing:
        print(f"tracking_server: set {', '.join(missing)}", file=sys.stderr)
        sys.exit(CONFIGURATION)
    database, name, password = (os.environ[wanted] for wanted in WANTED[:3])
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "READ",
        "database_uri": database,
        "admin_username": name,
        "admin_password": password,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    path = Path("/tmp/basic_auth.ini")  # noqa: S108 - a file system of this container alone
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as stream:
        config.write(stream)
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(path)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = database  # a variable, for arguments show in every process list
    os.execvp("mlflow", ["mlflow", *_server()])  # noqa: S606 - replaces this process, found on the image's PATH


def _server() -> list[str]:
    artifacts = ["--serve-artifacts", "--artifacts-destination", "/srv/artifacts"]
    bound = ["--host", "0.0.0.0", "--port", "5000", "--workers", "1"]  # noqa: S104 - the container's networks decide
    return ["server", "--app-name", "basic-auth", *artifacts, *bound]


if __name__ == "__main__":
    main()
