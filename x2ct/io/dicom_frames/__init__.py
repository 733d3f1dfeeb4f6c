"""The pixels of DICOM files, X-rays and CT slices alike: which decoder takes them, and what of them is not believed.

Sizes in a codestream must be the header's before a decoder allocates by them, and the decoder that breaks on damaged
data works in a process of its own. A module enters if it decodes frames and knows neither X-rays nor volumes.
"""
