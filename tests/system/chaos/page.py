"""docs/reference/reliability.md: what was done to each run, and what became of it."""

import os
from collections.abc import Sequence

from tests.system.chaos.runs import Result
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Verdict
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "reliability.md"
_BEGIN, _END = "<!-- begin oip -->\n", "<!-- end oip -->\n"
COLUMNS = ("scenario", "what is done", "images", "lost", "doubled", "extra seconds", "result")


def page(verdicts: Sequence[Verdict[Result]], images: int, calm_seconds: float, oip: str = "") -> str:
    """The page's text, with the passage on the other server as it is."""
    rows = "".join(_row(one) for one in verdicts)
    passed = sum(not one.error for one in verdicts)
    cores = len(os.sched_getaffinity(0))
    minutes = sum(one.seconds for one in verdicts) / 60
    summary = f"Of {len(verdicts)} scenarios {passed} passed, in {minutes:.0f} minutes on {cores} cores."
    return f"""# What happens to a run when things go wrong

This page is written by `make chaos` (`tests/system/chaos/`), which does each of these things to a run over
{images} photographs of solar cells, with a real TorchServe of its own and, where a request or a reply is to
be spoilt, a proxy in front of it. {summary}

A scenario passes only if every command ended with the exit code that the [protocol](protocol.md) promises,
the certificate balances, `imagebatch verify` proves the run again, and `predictions.csv` is, byte for byte,
that of a run that nobody disturbed (without the row of an image that the scenario made unscorable).

*Lost*: listed, but neither predicted nor reported as failed. *Doubled*: more than one row. *Extra seconds*:
wall time of scoring, with all its restarts and waits, beyond the {calm_seconds:.1f} s of the undisturbed run
(measured once: on a busy machine a few seconds mean nothing).

{head_of(COLUMNS)}{rows}
## On a server of another maker

{_BEGIN}{oip}{_END}
One scenario: `make chaos K=scorer-killed`; `python3.11 -m tests.system.chaos --list` names them all. They
need `make demo` once, for the model and the photographs, and root for the two that mount a small disk.
"""


def write_page(verdicts: Sequence[Verdict[Result]], images: int, calm_seconds: float, *, other: bool) -> None:
    """Writes docs/reference/reliability.md, or the passage of it that is about the other server."""
    text = PAGE.read_text()
    before, found, rest = text.partition(_BEGIN)
    old, _, after = rest.partition(_END) if found else ("", "", "")
    if other:
        PAGE.write_text(f"{before}{_BEGIN}{passage(verdicts, images, calm_seconds)}{_END}{after}")
    else:
        PAGE.write_text(page(verdicts, images, calm_seconds, old))


def passage(verdicts: Sequence[Verdict[Result]], images: int, calm_seconds: float) -> str:
    """The passage on the server that speaks the Open Inference Protocol."""
    passed = sum(not one.error for one in verdicts)
    told = f"of {len(verdicts)} scenarios {passed} passed"
    return f"""Most of it is done to runs of `--backend oip` as well, over {images} drawn images, with a
real MLServer: {told}. The undisturbed run took {calm_seconds:.1f} s.
Answers in another order are not among them: nothing in a reply of this protocol says which image an answer
is of. `make chaos PART=oip` needs no demo.

{head_of(COLUMNS)}{"".join(_row(one) for one in verdicts)}"""


def _row(verdict: Verdict[Result]) -> str:
    scenario, result = verdict.scenario, verdict.result
    if result is None:
        return row_of((scenario.name, scenario.text, "", "", "", "", f"failed: {verdict.error[:200]}"))
    figures = (str(result.images), str(result.lost), str(result.doubled), result.extra)
    return row_of((scenario.name, scenario.text, *figures, f"passed: {result.seen}"))
