"""From CT files to training shards: patients that a trainer or the evaluation can project and resample.

Augmentation uses torch; what is imported here does not.
"""

from x2ct.data.body import Body
from x2ct.data.prepare import PrepareOptions, PrepareResult, prepare, read_body
from x2ct.data.shards import Patient, ShardSet, resample, resample_array
from x2ct.geometry.grid import Grid

__all__ = [
    "Body",
    "Grid",
    "Patient",
    "PrepareOptions",
    "PrepareResult",
    "ShardSet",
    "prepare",
    "read_body",
    "resample",
    "resample_array",
]
