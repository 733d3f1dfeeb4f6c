"""The file formats of CT volumes: NIfTI; NRRD and MetaImage; DICOM series, read and written.

A module for each format, and `voxels` for what they share: axes, shapes, damaged files, whole HU. The public door is
`x2ct.io.ct.volume.Volume`, above this room, which picks the format by the file's ending. A module enters if it reads or
writes one format and knows nothing of X-rays or the sampler.
"""
