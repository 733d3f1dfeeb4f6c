"""X-rays: `radiograph` has the type, the other modules read files and bring their values to line integrals.

`readers` reads pictures and `dicomxray` DICOM, of which `dicomplace` says where it was taken from; `exposure` has
the stages from stored values to line integrals, `polarity` decides which values are dense. `degradation` makes X-rays
worse, for evaluation and training alike. Nothing here needs a volume, a bundle or a network.
"""
