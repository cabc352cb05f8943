from pathlib import Path

import pytest

from tools import properties
from tools.compose import env


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the engine's socket: only its group is read."""
    socket = tmp_path / "docker.sock"
    socket.touch()
    monkeypatch.setenv("DOCKER_SOCKET", str(socket))
    return socket


def test_secrets_are_random_private_and_long(engine: Path, tmp_path: Path) -> None:
    """Two files share no secret, no secret is short, and only the owner can read them."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert env.main(first) == env.main(second) == 0
    found = [properties.read(path) for path in (first, second)]
    secret = [*env.SECRETS, "AIRFLOW_FERNET_KEY"]
    values = [content[name] for content in found for name in secret]
    assert len(set(values)) == 2 * len(secret)
    assert min(map(len, values)) >= 32
    assert first.stat().st_mode & 0o777 == 0o600
    assert found[0]["DOCKER_GID"] == str(engine.stat().st_gid)


def test_secrets_need_no_quoting(engine: Path, tmp_path: Path) -> None:
    """They go into database URLs, JSON and shells as they are."""
    assert engine.exists()
    env.main(tmp_path / "file")
    content = properties.read(tmp_path / "file")
    assert all(content[name].replace("-", "").replace("_", "").isalnum() for name in env.SECRETS)


def test_what_is_there_is_kept(engine: Path, tmp_path: Path) -> None:
    """A second call changes nothing; an upgrade adds what is new; a person's own settings survive."""
    assert engine.exists()
    path = tmp_path / "file"
    env.main(path)
    before = properties.read(path)
    path.write_text(path.read_text().replace("MLFLOW_ADMIN_PASSWORD=", "#") + "IMAGEBATCH_DOCKER_MEMORY=4g\n")
    env.main(path)
    after = properties.read(path)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"MLFLOW_ADMIN_PASSWORD"}
    assert after["IMAGEBATCH_DOCKER_MEMORY"] == "4g"
    text = path.read_text()
    env.main(path)
    assert path.read_text() == text


def test_a_machine_without_an_engine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78, one line, no file."""
    monkeypatch.setenv("DOCKER_SOCKET", str(tmp_path / "none"))
    assert env.main(tmp_path / "file") == 78
    assert "no container engine" in capsys.readouterr().err
    assert not (tmp_path / "file").exists()
