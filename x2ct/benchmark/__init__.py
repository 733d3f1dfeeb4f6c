"""The measurements of `x2ct bench`: latency with its spread, memory and parity, a row for each case. No PyTorch here.

A *case* (`cases`) is one row: backend, precision, grid, steps and so on. Each case runs in a fresh process (`worker`)
that the parent starts, warms up and asks for one run at a time, in turn with the others (`fleet`), so that background
load affects all rows alike. `document` assembles and compares results, `tables` prints them. The plain PyTorch loop is
a worker like the others, in a package where PyTorch is allowed (`x2ct.export.plainloop`). Roofline, solver error and
scaling are measured by scripts in benchmarks/.
"""
