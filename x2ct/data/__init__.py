"""From CT files to training shards: patients that a trainer or the evaluation can project and resample.

Augmentation uses torch; what is imported here does not.
"""

from x2ct.data.shards import ShardSet as ShardSet
from x2ct.data.shards import resample as resample
