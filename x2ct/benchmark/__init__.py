"""The measurements of `x2ct bench`: latency with its spread, memory and parity, a row for each case. No PyTorch here.

A case (`cases`) runs in a process of its own (`worker`; the plain PyTorch loop's is `x2ct.export.plainloop`). The
parent asks them for one run at a time, in turn (`fleet`); `document` assembles, compares and prints what they took.
"""
