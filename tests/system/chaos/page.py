"""docs/reference/reliability.md: what was done to each run, and what became of it."""

import os
from collections.abc import Mapping, Sequence

from tests.system.chaos.runs import Result
from tests.system.kit.table import head_of, row_of
from tests.system.kit.verdict import Verdict
from tools.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "reliability.md"
# Passages that are written apart: what they are about, by the suite's part.
PASSAGES = {"oip": "On a server of another maker", "stores": "In object stores"}
COLUMNS = ("scenario", "what is done", "images", "lost", "doubled", "extra seconds", "result")


def page(
    verdicts: Sequence[Verdict[Result]],
    images: int,
    calm_seconds: float,
    passages: Mapping[str, str] | None = None,
) -> str:
    """The page's text, with the passages that are written apart as they are."""
    kept = passages or {}
    rows = "".join(_row(one) for one in verdicts)
    passed = sum(not one.error for one in verdicts)
    cores = len(os.sched_getaffinity(0))
    apart = "\n".join(
        f"## {title}\n\n{_begin(part)}{kept.get(part, '')}{_end(part)}" for part, title in PASSAGES.items()
    )
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
{apart}
One scenario: `make chaos K=scorer-killed`; `python3.11 -m tests.system.chaos --list` names them all. They
need `make demo` once, for the model and the photographs, and root for the two that mount a small disk.
"""


def write_page(
    verdicts: Sequence[Verdict[Result]], images: int, calm_seconds: float, *, part: str = ""
) -> None:
    """Writes docs/reference/reliability.md, or the passage of it that is about a part."""
    text = PAGE.read_text()
    if not part:
        PAGE.write_text(page(verdicts, images, calm_seconds, {name: _old(text, name) for name in PASSAGES}))
        return
    told = _about_oip if part == "oip" else _about_stores
    new = f"{told(verdicts, images, calm_seconds)}\n{head_of(COLUMNS)}{''.join(map(_row, verdicts))}"
    before, _, rest = text.partition(_begin(part))
    after = rest.partition(_end(part))[2]
    PAGE.write_text(f"{before}{_begin(part)}{new}{_end(part)}{after}")


def _begin(part: str) -> str:
    return f"<!-- begin {part} -->\n"


def _end(part: str) -> str:
    return f"<!-- end {part} -->\n"


def _old(text: str, part: str) -> str:
    _, found, rest = text.partition(_begin(part))
    return rest.partition(_end(part))[0] if found else ""


def _passed(verdicts: Sequence[Verdict[Result]]) -> str:
    passed = sum(not one.error for one in verdicts)
    return f"of {len(verdicts)} scenarios {passed} passed"


def _about_oip(verdicts: Sequence[Verdict[Result]], images: int, calm_seconds: float) -> str:
    return f"""Most of it is done to runs of `--backend oip` as well, over {images} drawn images, with a
real MLServer: {_passed(verdicts)}. The undisturbed run took {calm_seconds:.1f} s.
Answers in another order are not among them: nothing in a reply of this protocol says which image an answer
is of. `make chaos PART=oip` needs no demo.
"""


def _about_stores(verdicts: Sequence[Verdict[Result]], images: int, calm_seconds: float) -> str:
    return f"""Here photographs and run are in a store, on a real server of its API with its data on disk:
SeaweedFS (S3), fake-gcs-server (Google Cloud Storage) and Azurite (Azure): {_passed(verdicts)}.
Each run is over {images // 2} of the photographs, and must give the bytes of the run on a disk, which took
{calm_seconds:.1f} s for twice as many. Azurite is ended by SIGTERM, because it writes its index down only
every few seconds; the two others by SIGKILL.
[What a store must do](../how-to/object-stores.md). `make chaos PART=stores` does it again.
"""


def _row(verdict: Verdict[Result]) -> str:
    scenario, result = verdict.scenario, verdict.result
    if result is None:
        return row_of((scenario.name, scenario.text, "", "", "", "", f"failed: {verdict.error[:200]}"))
    figures = (str(result.images), str(result.lost), str(result.doubled), result.extra)
    return row_of((scenario.name, scenario.text, *figures, f"passed: {result.seen}"))
