"""The page about a run: everything in its folder that a person wants to see, on one page that needs no network."""

from __future__ import annotations

from .answers import answers_section, drawn_section
from .controls import controls_section
from .origin import config_section, environment_section, reproduction_section, skipped_section
from .page import render_page
from .run_record import RunRecord
from .scores import kinds_section, scores_section
from .summary import lead, summary_section
from .training import asked_section, losses_section, network_section, samples_section
from .worst import worst_section


def render_run(run: RunRecord, written_by: str) -> str:
    """Return the page of a run as HTML; what the run lacks is said in one line where it would stand.

    Args:
        run: Everything about it.
        written_by: The program and its version, for the last line.
    """
    sections = [
        summary_section(run),
        losses_section(run),
        asked_section(run),
        samples_section(run),
        drawn_section(run),
        scores_section(run),
        controls_section(run),
        kinds_section(run),
        answers_section(run),
        worst_section(run),
        network_section(run),
        reproduction_section(run),
        config_section(run),
        environment_section(run),
        skipped_section(run),
    ]
    return render_page(f"Run {run.name}", [lead(run)], sections, f"Written by {written_by}.")
