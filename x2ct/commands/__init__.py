"""The commands beside `sample` and `demo` (which stand in cli.py): options, one call into the library, printing.

`cli.py` puts them together. Heavy modules are imported in the functions that use them.
"""
