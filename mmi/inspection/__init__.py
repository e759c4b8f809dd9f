"""See what a network does: where MMFS looks, how open its gates are, what each context picture is worth.

In a notebook::

    from mmi.inference import Generator
    from mmi.inspection import look

    looks = look(Generator.load("runs/demo"), [picture, "what colour is the ball?"], "colour")
    looks.picture()          # a PIL image: sampling points and heat map of the layer that says most
"""

from mmi.inspection.looking import look, look_from_pixel
from mmi.inspection.looks import Looks
from mmi.inspection.sampling import LookRecord, MMFSLayer, Wanted, captured_looks, mmfs_layers

__all__ = [
    "LookRecord",
    "Looks",
    "MMFSLayer",
    "Wanted",
    "captured_looks",
    "look",
    "look_from_pixel",
    "mmfs_layers",
]
