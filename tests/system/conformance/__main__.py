"""`make conformance`: every model API against real servers, and the table of docs/reference/model-apis.md."""

from __future__ import annotations

import argparse
import functools
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.support import children
from tests.system.conformance.checks import CHECKS
from tests.system.conformance.ground import Contestant, Ground
from tests.system.conformance.servers import (
    SERVING,
    KServe,
    KServePixels,
    LitServe,
    MLflow,
    MLServer,
    MLServerPixels,
    TorchServe,
    Triton,
    TritonPixels,
)
from tests.system.kit.scenario import Scenario
from tests.system.kit.suite import Suite, run
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Seen, Verdict
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "model-apis.md"
PASSAGE = re.compile(r"(<!-- begin conformance -->\n).*?(<!-- end conformance -->)", re.DOTALL)
PIXELS = {"version": "1", "resize": 256, "crop": 224}
UNSAID = {"datatype": "UINT8", "layout": "NCHW"}
CONTESTANTS = (
    Contestant("TorchServe 0.12, torchserve", TorchServe, "torchserve"),
    Contestant("Triton 2.51, oip", Triton, "oip"),
    Contestant("Triton, gRPC", Triton, "oip", grpc=True),
    Contestant("Triton, pixels", TritonPixels, "oip", (("pixels", PIXELS),)),
    Contestant("KServe 0.21, oip", KServe, "oip"),
    Contestant("KServe, gRPC", KServe, "oip", grpc=True),
    Contestant("KServe, pixels", KServePixels, "oip", (("pixels", PIXELS | UNSAID),)),
    Contestant("KServe 0.21, kserve_v1", KServe, "kserve_v1", (("input", "image"),)),
    Contestant("MLServer 1.7.1, oip", MLServer, "oip"),
    Contestant("MLServer, gRPC", MLServer, "oip", grpc=True),
    Contestant("MLServer, pixels, gRPC", MLServerPixels, "oip", (("pixels", PIXELS),), grpc=True),
    Contestant("MLflow 3.17.2, mlflow", MLflow, "mlflow"),
    Contestant("LitServe 0.2.19, http", LitServe, "http", template=SERVING / "litserve.yaml"),
)


def _scenarios() -> Iterator[Scenario]:
    for contestant in CONTESTANTS:
        for check in CHECKS:
            part = contestant.server.__name__.lower()
            act = functools.partial(_turned, check, contestant)
            yield replace(check, act=act, part=part, name=f"{check.name}@{part}-{contestant.way}")


def _turned(check: Scenario, contestant: Contestant, ground: Ground) -> Seen:
    seen: Seen = check.act(ground, contestant)
    return seen


class Conformance(Suite[Scenario, Seen]):
    """Real servers, asked through the model APIs."""

    verb = "conformance"
    text = str(__doc__)
    scenarios = tuple(_scenarios())

    @contextmanager
    def system(self, asked: argparse.Namespace) -> Iterator[None]:
        """Let TorchServe give the reference; the other servers are started when they are needed."""
        del asked
        self.folder = Path(tempfile.mkdtemp(prefix="imagebatch-conformance-"))
        try:
            self._ground = Ground(self.folder)
            yield
        finally:
            children.end_all()

    def act(self, scenario: Scenario) -> Seen:
        """Play one check."""
        seen: Seen = scenario.act(self._ground)
        return seen

    def finish(self, verdicts: Sequence[Verdict[Seen]], *, complete: bool) -> list[str]:
        """Write the table of a complete run."""
        if complete:
            text = PAGE.read_text("utf-8")
            PAGE.write_text(
                PASSAGE.sub(lambda found: f"{found[1]}{_table(verdicts)}{found[2]}", text), "utf-8"
            )
        return []


def _table(verdicts: Sequence[Verdict[Seen]]) -> str:
    told = [f"failed: {one.error[:80]}" if one.result is None else one.result.seen for one in verdicts]
    rows = ""
    for number, check in enumerate(CHECKS):
        sentence = check.text
        rows += row_of([sentence, *told[number :: len(CHECKS)]])
    return head_of(["check", *(one.name for one in CONTESTANTS)]) + rows


if __name__ == "__main__":
    sys.exit(run(Conformance(), sys.argv[1:]))
