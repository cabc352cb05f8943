"""The whole batch as one command, without any orchestrator."""

from tests.system.kit.verdict import require
from tests.system.orchestrators.ground import Ground, Went, way


@way
def imagebatch_run(ground: Ground) -> Went:
    """`imagebatch run` on this machine."""
    runs = ground.folder_of("imagebatch-run")
    batch = ground.imagebatch(
        "imagebatch-run",
        *("run", "--run-id=whole", f"--input={ground.photographs}", f"--shard-size={ground.shard_size}"),
        IMAGEBATCH_RUNS_URI=str(runs),
    )
    require(batch.wait() == 0, f"`imagebatch run` failed: {batch.err[-500:]}")
    csv = (runs / "whole" / "output" / "predictions.csv").read_bytes()
    return Went(csv, f"{len(ground.ids)} predicted: the reference")
