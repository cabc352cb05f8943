"""Many runs at once."""

import json
import math

from tests.support.children import Child
from tests.system.chaos.ground import Ground, scenario
from tests.system.chaos.runs import Result, Run
from tools.paths import program

_RUNS = 100
# The stages one after the other in one process: starting Python three times costs more than the stages.
_CHAIN = """
import json, sys
from imagebatch import cli
*first, last = json.loads(sys.argv[1])
for command in first:
    if code := cli.call(command):
        sys.exit(code)
sys.argv[1:] = last
cli.main()
"""


@scenario
def hundred_runs(ground: Ground) -> Result:
    """100 runs of 3 photographs each are started at the same moment."""
    python = str(program("pipeline_image", "python"))
    runs = [_small(ground, number) for number in range(_RUNS)]
    started: list[Child] = []
    for run in runs:
        folder = ground.folder / "small" / run.run_id
        name = ("--run-id", run.run_id)
        first = ("preprocess", *name, "--input", str(folder))
        chain = [first, *((stage, *name) for stage in ("score", "postprocess", "verify"))]
        log = run.logs / f"{run.run_id}-chain.log"
        started.append(Child([python, "-c", _CHAIN, json.dumps(chain)], environment=run.environment, log=log))
    for run, chain_ in zip(runs, started, strict=True):
        run.end(chain_)
    results = [run.judge("") for run in runs]
    return Result(sum(result.images for result in results), 0, 0, math.nan, f"{_RUNS} runs proven")


def _small(ground: Ground, number: int) -> Run:
    run = ground.run(f"small-{number:03}")
    folder = ground.folder / "small" / run.run_id
    folder.mkdir(parents=True)
    names = [ground.ids[(3 * number + offset) % len(ground.ids)] for offset in range(3)]
    for name in names:
        (folder / name).hardlink_to(ground.photographs / name)
    ground.expect_only(run, sorted(names))
    return run
