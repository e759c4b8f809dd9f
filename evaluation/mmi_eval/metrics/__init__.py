"""Metrics: pure functions from answers and truth to a ``Score`` with its interval; NumPy and the standard library only.

``intervals``: ``Score``, ``mean_score``, ``proportion_score``, ``bootstrap_score``, ``paired_mean_difference``,
``paired_difference``, ``jackknife_score``.
``caption_tokens``: ``tokenize_corpus``, ``tokenize_corpora``, ``CaptionCorpus``; protocols ``ptb``, ``java-free`` and
``whitespace``.
``cider``: ``cider``, ``leave_one_out_cider``, ``cider_score``, ``human_cider_score``.
``bleu``: ``bleu``, ``bleu_score``, ``bleu_scores``. ``rouge``: ``rouge_l``, ``rouge_l_score``. ``meteor``: ``meteor``,
``meteor_score``, by the jar of the COCO toolkit (``toolkit_jars``).
``vqa``: ``vqa_accuracy``, ``VQA_PROTOCOLS``, ``ANSWER_EXTRACTIONS``, ``exact_match``.
``grounding``: ``format_box``, ``parse_box``, ``box_iou``, ``grounding_accuracy``.
``visdial``: ``ranks_of_scores``, ``ndcg``, ``retrieval_scores``. ``segmentation``: ``count_classes``, ``mean_iou``.
``frechet``: ``frechet_distance``, ``frechet_score``. ``kid``: ``kernel_distance``, ``kid_score``.
"""
