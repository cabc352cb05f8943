"""What each part of scoring could do alone on this machine: storage, decoding, model, server."""

from imagebatch.ceilings.clock import Figure, Reading
from imagebatch.ceilings.inprocess import InProcess, measure_inprocess, open_inprocess
from imagebatch.ceilings.sample import read_sample
from imagebatch.ceilings.server import server_ceiling
from imagebatch.ceilings.short import short_bench
from imagebatch.ceilings.storage import storage_ceiling
from imagebatch.ceilings.verdict import Ceiling, Verdict, verdict

__all__ = [
    "Ceiling",
    "Figure",
    "InProcess",
    "Reading",
    "Verdict",
    "measure_inprocess",
    "open_inprocess",
    "read_sample",
    "server_ceiling",
    "short_bench",
    "storage_ceiling",
    "verdict",
]
