"""Sampling: X-rays to a CT through the C++ pipeline, and what is computed beside it."""
