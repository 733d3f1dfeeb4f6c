"""X-rays: `radiograph` has the type, `readers` and `dicomxray` read files, `exposure` brings values to line integrals.

`degradation` makes X-rays worse, for evaluation and training alike. Nothing here needs a volume, a bundle or a network.
"""
