"""The commands beside `sample` (which stands in cli.py), one file each: options, one call into the library, printing.

`cli.py` puts them together. Heavy modules are imported in the functions that use them.
"""
