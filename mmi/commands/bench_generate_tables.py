"""The tables of ``mmi bench generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spread = Mapping[str, float]


def tables(report: Mapping[str, Any], meaning: Mapping[str, str]) -> str:
    """Write a report as Markdown.

    Args:
        report: What was measured.
        meaning: A few words for each way.
    """
    parts = []
    if "network" in report:
        network = report["network"]
        parts.append(
            f"{network['name']}: {network['parameters'] / 1e6:,.1f} M parameters, {network['tokens_per_image']} tokens "
            f"a picture, {network['image_size']} pixels. "
            + "; ".join(f"{way}: {words}" for way, words in meaning.items())
        )
    parts += [_story(story) for story in report.get("story", ())]
    if "turn" in report:
        parts.append(_turns(report["turn"]))
    if "drawing" in report:
        parts.append(_drawings(report["drawing"]))
    parts.append("Times are CPU seconds or seconds of a GPU: median (least to most); ratios are those of each round.")
    return "\n\n".join(parts)


def _story(story: Mapping[str, Any]) -> str:
    rows = [
        [
            way,
            seconds(found["whole"]),
            times(found["ratio_whole"]),
            seconds(found["outside_loop"]),
            times(found["ratio_outside"]),
            f"{found['tokens_per_second']:,.0f}",
            f"{1e3 * found['seconds_per_picture']:,.0f} ms",
            " / ".join(f"{n:,}" for n in found["passes"].values()),
            str(found["largest_pixel_difference"]),
        ]
        for way, found in story["ways"].items()
    ]
    title = (
        f"Story: {story['turns']} turns, each a text of {story['tokens']} tokens and a picture of {story['steps']} "
        "steps. Passes are tokens / pictures / projections for a layer / projections for a module of the U-Net."
    )
    head = ["way", "whole story", "times session", "outside the U-Net loop", "times session"]
    head += ["tokens/s", "a picture", "passes", "pixel difference"]
    return f"{title}\n\n{_table(head, rows)}"


def _turns(turns: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [str(turn["tokens"]), str(turn["context"]), way, seconds(found["seconds"]), times(found["ratio"])]
        for turn in turns
        for way, found in turn["ways"].items()
    ]
    title = f"Text turn after {turns[0]['pictures']} pictures, from the question to the last token of the answer."
    return f"{title}\n\n{_table(['tokens', 'context', 'way', 'time', 'times session'], rows)}"


def _drawings(drawings: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{drawing['image_size']} px",
            way,
            seconds(found["seconds"]),
            times(found["ratio"]),
            f"{found['largest_relative_difference']:.1e}",
        ]
        for drawing in drawings
        for way, found in drawing["ways"].items()
    ]
    first = drawings[0]
    title = (
        f"Drawing: {first['steps']} steps with guidance, looking at one picture; Stable Diffusion's U-Net, widths "
        f"divided by {first['divide']}."
    )
    return f"{title}\n\n{_table(['picture', 'projections', 'time', 'times kept', 'difference'], rows)}"


def seconds(spread: Spread) -> str:
    """Write a time and its spread.

    Example:
        >>> seconds({"median": 0.5, "low": 0.4, "high": 0.62})
        '500 ms (400 to 620)'
        >>> seconds({"median": 50.04, "low": 50, "high": 51})
        '50.0 s (50.0 to 51.0)'
    """
    if spread["median"] < 10:
        return f"{1e3 * spread['median']:,.0f} ms ({1e3 * spread['low']:,.0f} to {1e3 * spread['high']:,.0f})"
    return f"{spread['median']:,.1f} s ({spread['low']:,.1f} to {spread['high']:,.1f})"


def times(spread: Spread) -> str:
    """Write a ratio and its spread.

    Example:
        >>> times({"median": 4.24, "low": 4, "high": 4.5})
        '4.2 (4.0 to 4.5)'
    """
    return (
        f"{spread['median']:.2g} ({spread['low']:.2g} to {spread['high']:.2g})"
        if spread["median"] < 1
        else (f"{spread['median']:.1f} ({spread['low']:.1f} to {spread['high']:.1f})")
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
