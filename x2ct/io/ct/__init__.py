"""CT volumes: `volume` has the type and picks a format by the file's ending, with a module for each format.

`voxels` has what the formats share: axes, shapes, damaged files, whole HU. Nothing here knows of X-rays or the sampler.
"""
