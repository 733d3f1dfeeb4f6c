"""What `x2ct bench` measures: latency with its spread and parity, the roofline, agreement, scaling. No PyTorch here.

A *case* (`cases`) is one row: backend, precision, grid, steps and so on. Each case runs in a fresh process (`worker`)
that the parent starts, warms up and asks for one run at a time, in turn with the others (`fleet`), so that the
machine's mood falls on all rows alike. `document` puts the parts together, `tables`, `plots` and `compare` read what it
made. The plain PyTorch loop is a worker like the others, in the room where PyTorch is allowed
(`x2ct.export.plainloop`).
"""
