"""Which of the official system's defects are followed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import get_args

from mmi.config.checks import ConfigError, Preset


@dataclass(frozen=True)
class CompatConfig:
    """Choose, defect by defect, between the official system's behaviour and the corrected one (SPEC 9.1).

    Args:
        preset: What every field left at ``None`` follows.
        image_loss_denominator: D7. ``official`` divides the image loss by all images, masked ones included.
        cross_document_attention: D8. ``official`` lets documents packed in a row attend to each other and counts
            positions through the row; ``corrected`` blocks that and restarts positions in each document.
        offset_scale: D14. ``official`` scales the image decoder's offsets by the pyramid sizes at the trunk's own
            resolution whatever the encoder's, so that at 448 px they reach half as far; ``corrected`` by the maps' real
            sizes. ``image_decoder.mmfs_level_sizes`` overrides it.
        beam_lengths: How long a continuation counts in beam search. ``official`` is what the pinned library did: one
            that is cut off at the last step counts one token more than one that ends there, and the search is over when
            the best candidate of a step, ended ones included and at that greater length, cannot beat the worst ended
            one. ``corrected`` counts generated tokens, as the library does since.
        generated_ids: Which ids text may consist of. ``official`` allows all, also ``<s>``, padding and the image
            placeholder, and counts an artificial ``<s>`` in front for the repetition penalty; ``corrected`` never
            writes ids that stand for no text.

    Other defects are fields where they act, and no preset sets them: D2 ``vision.adapter.offset_init``, the position
    table at other resolutions ``vision.trunk.position_interpolation``, D4 and D13 ``augment.official`` of a source, D16
    ``model.optimizer.grouping``. Scores of D6 and D12 stand side by side in one report, so they need no switch.
    """

    preset: Preset = "corrected"
    image_loss_denominator: Preset | None = None
    cross_document_attention: Preset | None = None
    offset_scale: Preset | None = None
    beam_lengths: Preset | None = None
    generated_ids: Preset | None = None

    @classmethod
    def of(cls, choice: Preset | CompatConfig) -> CompatConfig:
        """Return the switches with every ``None`` filled from the preset.

        Raises:
            ConfigError: If a value is neither ``corrected`` nor ``official``.
        """
        compat = cls(preset=choice) if isinstance(choice, str) else choice
        for item in fields(compat):
            value = getattr(compat, item.name)
            allowed = get_args(Preset)
            if value is not None and value not in allowed:
                raise ConfigError(f"compat.{item.name} is {value!r}; expected one of {', '.join(allowed)}.")
        unset = {f.name: compat.preset for f in fields(compat) if getattr(compat, f.name) is None}
        return replace(compat, **unset)
