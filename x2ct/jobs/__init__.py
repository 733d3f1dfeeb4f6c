"""Files in, files out: one study, a cohort, or one X-ray through its stages."""
