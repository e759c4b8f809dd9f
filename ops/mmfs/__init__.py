"""Multi-image, multi-scale deformable attention (MMFS): the operator, its layer and the dense variant."""

from mmfs.backends import active_backend
from mmfs.dense import DenseImageAttention
from mmfs.functional import deformable_sampling, mmfs_attention
from mmfs.module import MMFS
from mmfs.points import SamplingPoints, sampling_points
from mmfs.pyramid import PyramidValues
from mmfs.visibility import ImageView, nearest_visible, relative_image_index

__all__ = [
    "MMFS",
    "DenseImageAttention",
    "ImageView",
    "PyramidValues",
    "SamplingPoints",
    "active_backend",
    "deformable_sampling",
    "mmfs_attention",
    "nearest_visible",
    "relative_image_index",
    "sampling_points",
]
