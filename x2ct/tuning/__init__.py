"""Noise levels for few evaluations, found on patients who are no part of the training, and stored in the bundle.

One fine trajectory a patient and seed is the converged solution. `stepsearch` finds N of its levels by arithmetic;
where there are runs enough for it, Nelder and Mead's search moves them to where real runs end closest to the
converged solution. That list and the bundle's schedule are compared, and only lists that did better are stored.
`search` is the whole of `x2ct tune`.
"""
