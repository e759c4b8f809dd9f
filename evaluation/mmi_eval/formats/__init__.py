"""Readers and writers of on-disk layouts, one file each; records are frozen dataclasses, pictures stay encoded bytes.

``mmc4`` interleaved documents, ``pair_tars`` and ``pair_lines`` image-text pairs, ``coco_captions`` and ``vqa``
annotation files. They need the standard library, NumPy and Pillow only.
"""
