"""The part of a run's page about where it comes from: settings, environment, skipped records, how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from .evaluated import by_task
from .markup import Content, Markup, element, facts, fold, fragment, items, missing, note, paragraph, preformatted
from .numbers import count
from .page import Section
from .run_record import RunRecord
from .tables import Column, table


def reproduction_section(run: RunRecord) -> Section:
    """Return the commands that were given, and those that repeat the run from its folder."""
    given = [shlex.join(map(str, session.get("command") or ())) for session in run.sessions]
    evaluated = [f"mmi evaluate --run {run.folder} --tasks {task}" for task in by_task(run.evaluations)]
    commands = [*dict.fromkeys(line for line in given if line), *evaluated, f"mmi report {run.folder}"]
    parts = [
        paragraph("What was run, in order; the same seed, data and versions give the same losses on the same machine."),
        preformatted("\n".join(commands), "Commands that repeat the run"),
        note(f"{run.folder}/config.yaml alone rebuilds the network and its data; the first lines name what it merged."),
    ]
    return Section("reproduce", "How to repeat it", fragment(*parts))


def config_section(run: RunRecord) -> Section:
    """Return the merged configuration, folded."""
    if not run.config_text:
        return Section("config", "Configuration", missing("The run folder has no config.yaml."))
    body = fold("config.yaml, merged and resolved", preformatted(run.config_text, "config.yaml"))
    return Section("config", "Configuration", body)


def environment_section(run: RunRecord) -> Section:
    """Return versions, devices, code state and data of every session."""
    if not run.sessions:
        return Section("environment", "Environment", missing("The run folder has no environment.json."))
    parts = [_session(session, n, len(run.sessions)) for n, session in enumerate(run.sessions, start=1)]
    return Section("environment", "Environment", fragment(*parts))


def skipped_section(run: RunRecord) -> Section:
    """Return what was not used in training, by source and reason, and what of the run could not be read."""
    parts: list[Markup] = []
    if run.skipped:
        rows = [(source, reason, f"{n:,}") for (source, reason), n in run.skipped.items()]
        columns = (Column("source"), Column("reason"), Column("records", True))
        parts.append(paragraph(f"{count(sum(run.skipped.values()), 'record')} in skipped.jsonl, each by name."))
        parts.append(table("Records not used", columns, rows))
    else:
        parts.append(paragraph("No record was skipped: everything read in training was used."))
    if run.remarks:
        parts += [element("h3", {}, "What this page could not read"), items(*run.remarks)]
    return Section("skipped", "Skipped records", fragment(*parts))


def _session(session: Mapping[str, Any], number: int, of: int) -> Markup:
    code = session.get("code") or {}
    packages = session.get("packages") or {}
    shown: dict[str, Content] = {
        "started": str(session.get("started", "unknown")),
        "command": element("code", {}, shlex.join(map(str, session.get("command") or ()))),
        "seed": str(session.get("seed")),
        "system": str(session.get("system", "unknown")),
        "devices": ", ".join(map(str, session.get("devices") or ("unknown",))),
        "threads": str(session.get("threads", "unknown")),
        "Python": str(session.get("python", "unknown")),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()) or "unknown",
        "code": _code_words(code),
    }
    parts = [facts(shown)]
    data = session.get("data") or {}
    if data:
        rows = [(str(name), str(value)) for name, value in data.items()]
        parts.append(fold("Data fingerprints", table("Data", (Column("source"), Column("fingerprint")), rows)))
    title = "The only session" if of == 1 else f"Session {number} of {of}"
    return fragment(element("h3", {}, title), *parts)


def _code_words(code: Mapping[str, Any]) -> str:
    if not code.get("commit"):
        return "an installed package, no source checkout" if code.get("installed") else "not recorded"
    if code.get("changed") is None:
        return f"commit {code['commit']}, changes not recorded"
    return f"commit {code['commit']}" + (", with uncommitted changes" if code["changed"] else "")
