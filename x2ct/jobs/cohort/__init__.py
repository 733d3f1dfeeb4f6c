"""Many studies with one model: a manifest of X-ray files in, a CT and a report for each out.

A study that fails is told and the others go on. `--continue` leaves out what an earlier run finished from the same
files with the same settings. What a study gives does not depend on the others, on their order, or on `jobs`.

`studies` reads the manifest and plans the files, `run` samples, and `ray_engine` has that done by a Ray cluster.
"""

from x2ct.jobs.cohort.run import ENGINES, Cohort, Outcome, sample_cohort
from x2ct.jobs.cohort.studies import SUMMARY_FILE, read_manifest

__all__ = ["ENGINES", "SUMMARY_FILE", "Cohort", "Outcome", "read_manifest", "sample_cohort"]
