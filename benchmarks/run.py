"""`make bench`: every published measurement, in order, into benchmarks/results/ and docs/explanation/.

    python3 benchmarks/run.py [memory] [throughput] [-- FLAGS]

Without names: all of them. Run by the system's Python; each benchmark runs in the environment of
pipeline_image/.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "embedded"))

from environment import VAR, Argv, program, say  # noqa: E402 (found through the line above)
from services import model_api  # noqa: E402 (the same)

# In this order: throughput needs the running stack, memory only itself.
BENCHMARKS: dict[str, Argv] = {
    "memory": ["--publish"],
    "throughput": ["--publish", "--input", VAR / "data" / "solar-cells" / "images"],
}


def main(argv: list[str]) -> int:
    """Run benchmarks, also after one has failed.

    Args:
        argv: names of benchmarks; after `--`, flags for each of them.

    Returns:
        0, or the exit code of the first that failed; 2 for an unknown name.
    """
    names, flags = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        say(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        return 2
    codes = [measure(name, flags) for name in BENCHMARKS if name in names or not names]
    return next((code for code in codes if code), 0)


def measure(name: str, flags: list[str]) -> int:
    """Run one benchmark; returns its exit code."""
    say(f"== {name}")
    script: Argv = [program("pipeline_image", "python"), HERE / f"{name}.py", *BENCHMARKS[name], *flags]
    return subprocess.run(script, env=os.environ | model_api(), check=False).returncode  # noqa: S603 (as above)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
