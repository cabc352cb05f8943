"""The benchmarks are scripts: their folders, and the embedded stack's, are where they find each other."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers"), str(ROOT)]
