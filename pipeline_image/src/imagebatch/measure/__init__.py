"""What each part of scoring could do alone on this machine: storage, decoding, model, server."""

from imagebatch.measure.clock import Figure, Reading
from imagebatch.measure.images import coded_as, read_sample
from imagebatch.measure.inprocess import InProcess, measure_inprocess, open_inprocess
from imagebatch.measure.server import server_ceiling
from imagebatch.measure.short import short_bench
from imagebatch.measure.storage import storage_ceiling
from imagebatch.measure.verdict import Ceiling, Verdict, verdict

__all__ = [
    "Ceiling",
    "Figure",
    "InProcess",
    "Reading",
    "Verdict",
    "coded_as",
    "measure_inprocess",
    "open_inprocess",
    "read_sample",
    "server_ceiling",
    "short_bench",
    "storage_ceiling",
    "verdict",
]
