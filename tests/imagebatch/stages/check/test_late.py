"""Modules that are imported when they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch.stages.check.late import import_late, not_installed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose import can be seen: it leaves a file."""
    name = "imagebatch_test_late"
    (tmp_path / name).mkdir()
    mark = tmp_path / "imported"
    program = f"import pathlib\npathlib.Path({str(mark)!r}).open('x').close()\nanswer = 42\n"
    (tmp_path / name / "__init__.py").write_text(program)
    (tmp_path / name / "part.py").write_text("answer = 43\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_imported_once_and_only_when_used(package: str, tmp_path: Path) -> None:
    """Naming it or looking at it imports nothing; using it does, once."""
    import_late([package])
    module = __import__(package)
    assert inspect.getmodule(module) is module
    assert not hasattr(module, "__all__")
    assert not (tmp_path / "imported").exists()
    assert (module.answer, module.answer) == (42, 42)
    assert (tmp_path / "imported").exists()  # a second import would have failed
    assert __import__(f"{package}.part", fromlist=["answer"]).answer == 43


def test_imported_and_missing_modules_stay_as_they_are() -> None:
    """Nothing stands in for a module that is there already, or that cannot be there."""
    import_late(["json", "imagebatch_test_not_there"])
    assert sys.modules["json"].__class__ is type(sys)
    assert "imagebatch_test_not_there" not in sys.modules


def test_the_checks_do_without_statistics_and_plots() -> None:
    """Great Expectations is imported without them, and has them where an expectation needs them."""
    program = (
        "import sys, imagebatch.stages.check.suites, imagebatch.stages.check.validation\n"
        "print([name for name in sys.modules if name.startswith(('altair.', 'scipy.stats.'))])\n"
        "from great_expectations.expectations.core import expect_column_kl_divergence_to_be_less_than as kl\n"
        "print(float(kl.stats.entropy([0.5, 0.5], [0.5, 0.5])), kl.alt.Chart.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "0.0 Chart"]


def test_a_library_looks_missing_within_the_block_alone(package: str, tmp_path: Path) -> None:
    """Within the block its import fails, as one that is not installed does; afterwards it succeeds."""
    with not_installed([package, "json"]):
        with pytest.raises(ModuleNotFoundError):
            __import__(package)
        assert __import__("json").__class__ is type(sys)
    assert not (tmp_path / "imported").exists()
    assert __import__(package).answer == 42


def test_the_checks_do_without_clouds_and_databases() -> None:
    """Great Expectations is imported without any of their clients, and others find them afterwards."""
    program = (
        "import sys, imagebatch.stages.check.suites, imagebatch.stages.check.validation\n"
        "clients = ('azure', 'boto3', 'botocore', 'google.cloud', 'sqlalchemy')\n"
        "print([name for name in sys.modules if name.startswith(clients)])\n"
        "import sqlalchemy, botocore\n"
        "print(sqlalchemy.text('1'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "1"]
