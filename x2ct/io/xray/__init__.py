"""What an X-ray's file says, and the one chain of stages from its values to line integrals.

`dicomxray`, `readers` and the modules beside them read files and believe nothing unchecked; `exposure` turns values
into line integrals; `degradation` makes them worse, for evaluation and training alike. The public door is
`x2ct.io.xray.radiograph.XRay`, above this room; the view that an X-ray is taken in is `x2ct.geometry`'s, below it. A
module enters if it deals with one X-ray image and needs neither a volume, a bundle nor a network.
"""
