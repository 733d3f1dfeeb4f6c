"""Compiled engines: what one machine makes of a bundle's ONNX graphs for itself, and how it is found again.

`cache` stores them and has the trust rule; `engines` chooses those that fit a bundle, a grid and this machine. Building
them is `x2ct.export`'s part: no module here runs an engine or imports a runtime.
"""
