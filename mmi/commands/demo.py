"""``mmi demo``: talk to a model on a web page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.errors import DONE, UsageError, require_package

_DESCRIPTION = """\
Open a web page to talk to the model of a run folder: texts and pictures in, texts and pictures out, drawn in
the turn, with the sampling points of every word of an answer. It is reached from this machine only, is not shared,
tells nobody anything and loads nothing from outside. See docs/demo.md."""
_EXAMPLE = """\
mmi demo --run runs/demo
mmi demo --run runs/demo --port 8080 --new-token
mmi demo --run runs/demo --example "Cleo is in the town." --example "What colour is the square?\""""
_MOST_EXAMPLES = 6


def run(command: str, argv: Sequence[str]) -> int:
    """Show the page until stopped."""
    options = _parser(command).read(argv).options
    require_package("gradio", "mmi demo")

    from mmi.commands import served_model
    from mmi.serving.access import LOOPBACK, PAGE_POLICY, Guard, is_loopback
    from mmi.serving.page_app import build_page_app, private_folder

    token = served_model.read_token(options)
    limits = served_model.read_limits(options)
    examples = tuple(options.example or _examples_of(Path(options.run)))
    own = served_model.bind(options.host, options.port)
    served_model.warn_of_strangers(options.host, token)
    with private_folder() as folder:
        # Imported behind the line above, which the page library reads when it is.
        from mmi.serving.page import Page, PageFacts
        from mmi.serving.uploads import UploadFolders
        from mmi.serving.visits import Visits

        answerer, settings = served_model.load_answerer(options, limits)
        name = Path(options.run).resolve().name
        safety = served_model.safety_sentence(options)
        page = Page(
            answerer,
            settings,
            Visits(UploadFolders(folder), answerer.forget),
            served_model.provenance_of(options, answerer),
            PageFacts(name, safety, examples),
            options.wording,
        )
        hosts = (*LOOPBACK, options.host) if is_loopback(options.host) else None
        app = Guard(build_page_app(page, limits), token=token, hosts=hosts, policy=PAGE_POLICY, takes_cookie=True)
        url = served_model.url_of(own) + "/" + (f"?token={token}" if options.new_token else "")
        print(f"{name}: open {url} in a browser. {safety}", flush=True)
        try:
            served_model.serve(app, own, limits)
        finally:
            answerer.engine.stop()
    return DONE


def _examples_of(run: Path) -> list[str]:
    """Return texts to begin with: the first of each prompt the run looked at through training."""
    panels = sorted(run.glob("samples/step-*/answers.json"), key=lambda path: path.stat().st_mtime)
    if not panels:
        return []
    try:
        samples = json.loads(panels[-1].read_text(encoding="utf-8"))["samples"]
        texts = [next((p for p in sample["prompt"] if p != "<image>"), "") for sample in samples]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{panels[-1]} is no panel of samples ({error}); name texts by --example.") from None
    return list(dict.fromkeys(text for text in texts if 0 < len(text) < 100))[:_MOST_EXAMPLES]


def _parser(command: str) -> Arguments:
    from mmi.commands import served_model

    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    served_model.add_options(parser, 7860)
    parser.add_argument("--example", action="append", metavar="TEXT", help="a text to begin with; may be repeated")
    served_model.add_limits(parser)
    return parser
