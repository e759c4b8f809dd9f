"""Readers and writers of on-disk layouts, one file each; records are frozen dataclasses, pictures stay encoded bytes.

Interleaved and paired: ``mmc4``, ``obelics`` (lines, or parquet with pyarrow), ``pair_tars``, ``pair_lines``, ``llava``
conversations. Captions: ``coco_captions``, ``karpathy``, ``flickr30k``, ``nocaps``, ``paragraphs``, ``narratives``, any
of these by ``caption_files``, a system's captions by ``caption_results``.
Questions: ``vqa`` (VQA v2, OK-VQA), ``gqa``, ``vizwiz``, ``textvqa``, ``visdial``. Boxes: ``refcoco`` (with + and g),
``grounding_rows``. Pictures: ``ade20k``, ``vist``, ``pororo``, ``flintstones`` (both on ``frame_strips``).

Under them: ``errors``, ``shards``, ``random_access``, ``parquet_rows``, ``npy_files`` and ``restricted_pickle``, which
read arrays and pickles without running what they name; ``plain_pickle`` and ``png_files``, which write the same bytes
everywhere. Readers need the standard library, NumPy and Pillow only; parquet needs pyarrow (``mmi[parquet]``).
"""
