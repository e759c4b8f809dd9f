"""Measure the operator: shapes, formulations to compare with, times, memory and errors (``mmi bench ops``).

Nothing of this is imported by the operator or its layer.
"""

from mmfs.benchmark.measure import Options, measure_operator
from mmfs.benchmark.measure_layer import layer_shapes, measure_layer
from mmfs.benchmark.shapes import FAMILIES, Shape, find_shapes
from mmfs.benchmark.summary import bars, geometric_means
from mmfs.benchmark.tables import as_markdown, as_text

__all__ = [
    "FAMILIES",
    "Options",
    "Shape",
    "as_markdown",
    "as_text",
    "bars",
    "find_shapes",
    "geometric_means",
    "layer_shapes",
    "measure_layer",
    "measure_operator",
]
