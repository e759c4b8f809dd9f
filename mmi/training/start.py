"""Start a stage from the weights of another one: ``run.start_from``. No optimizer, no schedule, step 0."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmi.checkpoints.frozen import rebuilt
from mmi.checkpoints.run_folder import RunFolder, network_config
from mmi.checkpoints.storage import MANIFEST, MODEL, CheckpointError, check_tensors, locate, verify_checkpoint
from mmi.models.freezing import backbones
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.quantised import fill, stored_layout

IMAGE_DECODER = "image_decoder."
ADDED = (".lora_down", ".lora_up")
"""How tensors end that a stage may add to a network trained without them."""


def load_start(network: MMInterleaved, source: str, fresh: Sequence[str] = ()) -> str:
    """Copy the tensors of a trained network into one of the same numbers.

    The image decoder may be missing on either side: a stage that learns text alone has none, and one that starts from
    such a stage keeps the weights it was built with. Low-rank tensors that the source does not have stay as built, and
    so do frozen backbones where it was saved with ``run.trainable_only``: proved to be those it was trained with,
    unless parts of an image decoder were among them that is not here, or the language model is in another format.

    Args:
        network: On its way into training; changed in place.
        source: A run folder (its best checkpoint, or else the last one), a checkpoint folder, or what ``mmi checkpoint
            export --to safetensors`` wrote.
        fresh: Patterns of names (``*.mmfs.*``) of tensors that stay as built, whatever the source has under them: parts
            that an ablation compares must not be older in one arm than in another.

    Returns:
        One line that says what was taken and what was not.

    Raises:
        CheckpointError: If nothing is there, it is damaged, a pattern fits nothing, or a tensor is missing, unknown or
            of another shape.
    """
    place = _find(source)
    manifest, state = verify_checkpoint(place), network.state_dict()
    try:
        with safe_open(place / MODEL, framework="pt") as stored:
            tied = manifest.tied
            places = {name: name for name in stored.keys()} | tied  # noqa: SIM118 - no mapping
            shapes = {name: tuple(stored.get_slice(at).get_shape()) for name, at in places.items()}
            new, unused = _matching(fresh, {*shapes, *state}, source)
            absent = {name for name in new if name in state and name not in shapes}
            shapes = {name: shape for name, shape in shapes.items() if name not in new}
            left_out = _names_left_out(shapes, state, network.image_decoder is None)
            added = _names_as_built(shapes, state)
            as_built = added | (new & set(state))
            others = {name: tensor for name, tensor in state.items() if name not in as_built}
            # The hash of what the source left out is over all of it, parts that stay as built anyway included.
            spared = {name: state[name] for name in absent - added}
            frozen, doubt = _frozen(network, shapes, manifest.frozen, others, spared, place, source)
            as_built |= frozen
            layout = stored_layout(network, shapes)
            expected = {name: tensor for name, tensor in layout.items() if name not in as_built}
            found = {name: torch.empty(shape, device="meta") for name, shape in shapes.items() if name not in left_out}
            check_tensors(expected, found, f"run.start_from: {source}")
            with torch.no_grad():
                for name in expected:
                    fill(state[name], stored.get_tensor(places[name]))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"run.start_from: {place / MODEL} cannot be read ({type(error).__name__}); use another checkpoint."
        ) from error
    told = f"starting from {place} (step {manifest.step}): {len(expected)} tensors taken"
    remarks = [_remark(left_out, "left out"), _remark(as_built - frozen - new, "as built")]
    remarks.append(f"as built by run.start_fresh ({len(new & set(state))} tensors{unused})" if fresh else "")
    remarks.append(f"frozen backbones from their own weights ({len(frozen)} tensors{doubt})" if frozen else "")
    return "; ".join([told, *filter(None, remarks)]) + "."


def _find(source: str) -> Path:
    """Return the folder that holds the weights."""
    given = Path(source).expanduser()
    folder = RunFolder(given)
    place = folder.find_checkpoint() if folder.has_checkpoints else locate(given)
    if place is None:
        raise CheckpointError(
            f"run.start_from is {source}, which holds no weights of ours; expected a run folder, a checkpoint folder "
            f"with {MANIFEST}, or what mmi checkpoint export --to safetensors wrote."
        )
    return place


def _matching(patterns: Sequence[str], names: Collection[str], source: str) -> tuple[set[str], str]:
    """Return the names that fit one of the patterns, and a remark on patterns of MMFS that none fits.

    These are no error: an arm of an ablation without MMFS is started as the others are, from weights without it.
    """
    fitting = {pattern: {name for name in names if fnmatchcase(name, pattern)} for pattern in patterns}
    unused = [pattern for pattern, found in fitting.items() if not found]
    for pattern in unused:
        if "mmfs" not in pattern:
            raise CheckpointError(
                f"run.start_fresh: {pattern!r} fits no tensor, neither of {source} nor of the network to be trained; "
                'expected patterns such as "visual_tokenizer.*".'
            )
    remark = f"; {' and '.join(map(repr, unused))} fits none here" if unused else ""
    return {name for found in fitting.values() for name in found}, remark


def _names_left_out(found: Iterable[str], state: Iterable[str], no_decoder: bool) -> set[str]:
    return {name for name in found if no_decoder and name.startswith(IMAGE_DECODER)} - set(state)


def _names_as_built(found: Iterable[str], state: Iterable[str]) -> set[str]:
    there = set(found)
    has_decoder = any(name.startswith(IMAGE_DECODER) for name in there)
    absent = [name for name in state if name not in there]
    return {name for name in absent if name.endswith(ADDED) or (not has_decoder and name.startswith(IMAGE_DECODER))}


def _frozen(
    network: MMInterleaved,
    found: Collection[str],
    left_out: Mapping[str, Any],
    others: Mapping[str, Tensor],
    spared: Mapping[str, Tensor],
    place: Path,
    source: str,
) -> tuple[set[str], str]:
    """Return the frozen tensors that the source left out and the configured weights have given already.

    Only tensors of backbones are among them, so that a trained one that is missing is told. Those that
    ``run.start_fresh`` spares are not among them, but may be needed to prove the others.

    Returns:
        Their names, and a remark if nothing proves that they are those the source was trained with.
    """
    if not left_out:
        return set(), ""
    weights = {id(p): part.weights for part in backbones(network) for m in part.modules for p in m.parameters()}
    parameters = network.named_parameters(remove_duplicate=False)
    from_where = {name: weights[id(p)] for name, p in parameters if id(p) in weights}
    given = {name: tensor for name, tensor in others.items() if name in from_where}
    missing = {name for name in given if name not in found}
    fresh = {name: tensor for name, tensor in spared.items() if name in from_where}
    if not missing and fresh:
        return set(), ""  # none of what was left out is asked for
    same_form = _language_form(place) in (None, network.config.language.weights_dtype)
    doubt = "" if same_form else "; not compared with the source's, which are in another number format"
    if network.image_decoder is None and len(missing) + len(fresh) < left_out["n_tensors"]:
        # The hash is over the image decoder's too, which are not here.
        doubt = "; not compared with the source's, whose hash is over the image decoder's too"
    else:
        try:
            rebuilt(found, left_out, {**given, **fresh}, source, prove=same_form)
        except CheckpointError as error:
            if not fresh:
                raise
            raise CheckpointError(
                f"run.start_from: {source} leaves out {left_out['n_tensors']} frozen tensors with one hash over all of "
                f"them; run.start_fresh keeps {len(fresh)} of them as built (such as {min(fresh)}), and with what the "
                f"configured weights give for these nothing proves the other {len(missing)}: restore the weights "
                "(vision.trunk, language, image_decoder) it was trained on, or train it with run.trainable_only: false."
            ) from error
    random = [name for name in missing if from_where[name] is None]
    if doubt and random:
        raise CheckpointError(
            f"run.start_from: {source} leaves out frozen tensors, and model.network names no weights for {random[0]}; "
            "give the weights (vision.trunk, language, image_decoder) it was trained on."
        )
    return missing, doubt


def _language_form(place: Path) -> str | None:
    """Return in which number format the language model was held in training; None where no run folder says it."""
    run = RunFolder(place.parent.parent)
    return network_config(run.read_config()).language.weights_dtype if run.config_file.is_file() else None


def _remark(names: set[str], what: str) -> str:
    """Return such as "image_decoder left out (312 tensors)"; empty for no names."""
    if not names:
        return ""
    decoder = sum(name.startswith(IMAGE_DECODER) and not name.endswith(ADDED) for name in names)
    parts = {"image_decoder": decoder, "low-rank parts": len(names) - decoder}
    return ", ".join(f"{part} {what} ({count} tensors)" for part, count in parts.items() if count)
