"""``mmi serve``: the model behind an HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.errors import DONE, require_package

_DESCRIPTION = """\
Serve the model of a run folder over HTTP: POST /v1/chat/completions (messages of texts and pictures, as clients of
OpenAI's interface send them; answers hold drawn pictures, too), GET /v1/models, /health, /ready and /metrics.
Pictures are sent as data: URLs; nothing is ever fetched. See docs/serve.md."""
_EXAMPLE = """\
mmi serve --run runs/demo
mmi serve --run runs/demo --port 8080 --new-token --max-new-tokens 64
curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{"messages": [{"role": "user", "content": "Cleo is in the town."}], "max_images": 1}'"""


def run(command: str, argv: Sequence[str]) -> int:
    """Serve until stopped."""
    options = _parser(command).read(argv).options
    require_package("starlette", "mmi serve")
    require_package("uvicorn", "mmi serve")

    from mmi.commands import served_model

    token = served_model.read_token(options)
    limits = served_model.read_limits(options)
    own = served_model.bind(options.host, options.port)
    served_model.warn_of_strangers(options.host, token)
    answerer, settings = served_model.load_answerer(options, limits)

    from mmi.serving.access import LOOPBACK, Guard, is_loopback
    from mmi.serving.chat_format import ChatRules
    from mmi.serving.http import build_app

    name = Path(options.run).resolve().name
    app = build_app(
        answerer,
        ChatRules(settings, limits, answerer.can_draw, options.wording, answerer.as_seen),
        model=name,
        provenance=served_model.provenance_of(options, answerer),
    )
    hosts = (*LOOPBACK, options.host) if is_loopback(options.host) else None
    url = served_model.url_of(own)
    print(f"{name} at {url}/v1/chat/completions. {served_model.safety_sentence(options)}", flush=True)
    if options.new_token:
        print(f"Authorization: Bearer {token}", flush=True)
    served_model.serve(Guard(app, token=token, hosts=hosts), own, limits)
    return DONE


def _parser(command: str) -> Arguments:
    from mmi.commands import served_model

    parser = Arguments(command, _DESCRIPTION, _EXAMPLE)
    served_model.add_options(parser, 8000)
    served_model.add_limits(parser)
    return parser
