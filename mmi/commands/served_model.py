"""What ``mmi serve`` and ``mmi demo`` share: the model, who may come in, and the socket."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments
from mmi.errors import UsageError

if TYPE_CHECKING:
    from mmi.models.generation import GenerationSettings
    from mmi.serving.answering import Answerer
    from mmi.serving.limits import Limits
    from mmi.serving.pngs import Provenance

TOKEN_VARIABLE = "MMI_TOKEN"  # noqa: S105 - the name of a variable
_MIN_TOKEN = 16


def add_options(parser: Arguments, port: int) -> None:
    """Add the options that both commands take."""
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="run folder written by mmi fit")
    add("--checkpoint", metavar="NAME", help="best, last, step-N or a folder; default: best if there is one, else last")
    add("--weights", choices=("trained", "ema"), default="trained", help="as trained (default), or running averages")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add(
        "--weights-dtype", choices=("float32", "bfloat16", "nf4"), help="hold the language model's weights in this form"
    )
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: reached from this machine only)")
    add("--port", type=int, default=port, help=f"port to listen at; 0 takes a free one ({port})")
    add("--token-file", metavar="FILE", help=f"file with a token that must be shown; or set {TOKEN_VARIABLE}")
    add("--new-token", action="store_true", help="make up such a token and print it")
    add(
        "--safety-checker", metavar="DIR", help="folder of a diffusers safety checker that looks at every drawn picture"
    )
    add("--embed-prompt", action="store_true", help="write the whole conversation into each PNG, not only its hash")
    add("--wording", default="{question}", metavar="TEXT", help="what a user's text is put into (default: {question})")


def add_limits(parser: Arguments) -> None:
    """Add an option for every limit, named as the field of ``Limits`` is."""
    group = parser.add_argument_group("limits")
    for name, (default, meaning) in _LIMITS.items():
        option = "--max-" + name.replace("_", "-")
        group.add_argument(option, dest=name, type=int, default=default, metavar="N", help=f"{meaning} ({default})")


_LIMITS = {
    "body_bytes": (32 * 2**20, "bytes of a request, or of an upload"),
    "json_bytes": (4 * 2**20, "bytes of a request without its pictures"),
    "text_characters": (200_000, "characters of all texts of a request"),
    "picture_pixels": (40_000_000, "pixels of a picture"),
    "pictures": (32, "pictures in the messages of a request"),
    "new_tokens": (512, "tokens of each text of an answer"),
    "new_images": (4, "pictures drawn for an answer"),
    "sampling_steps": (250, "sampling steps of a picture"),
    "body_seconds": (30, "seconds a request may take to arrive"),
    "request_seconds": (300, "seconds a request may take, waiting included"),
    "queue_length": (32, "requests that wait"),
    "per_client": (16, "requests of one address that wait or are worked on"),
    "kept_sessions": (16, "conversations whose state is kept for their next turn"),
    "kept_bytes": (4 * 2**30, "bytes of memory those hold together"),
}


def read_limits(options: argparse.Namespace) -> Limits:
    """Return the limits of a command line."""
    from mmi.serving.limits import Limits

    return Limits(**{name: getattr(options, name) for name in _LIMITS})


def read_token(options: argparse.Namespace) -> str | None:
    """Return the token that visitors must show, or None.

    Raises:
        UsageError: If it is too short to be one, or named twice.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if options.new_token and (options.token_file or given):
        raise UsageError(f"--new-token and a token given by --token-file or {TOKEN_VARIABLE} exclude each other.")
    if options.new_token:
        return secrets.token_urlsafe(24)
    where = TOKEN_VARIABLE
    if options.token_file:
        where = options.token_file
        given = Path(options.token_file).read_text(encoding="utf-8").strip()
    if given is not None and (len(given) < _MIN_TOKEN or not all(c.isalnum() or c in "-._~" for c in given)):
        raise UsageError(f"the token of {where} is no token; expected {_MIN_TOKEN} or more of A-Z, a-z, 0-9 and -._~")
    return given


def load_answerer(options: argparse.Namespace, limits: Limits) -> tuple[Answerer, GenerationSettings]:
    """Load the model and return what answers with it, and the run's own settings.

    Raises:
        UsageError: If an option does not fit.
    """
    if "{question}" not in options.wording:
        raise UsageError(f'--wording is "{options.wording}"; expected a text with {{question}}.')

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.commands.generate import choose_device
    from mmi.inference import Generator, generation_settings
    from mmi.serving.answering import Answerer
    from mmi.serving.safety import load_safety_checker

    folder = RunFolder(Path(options.run))
    checkpoint = folder.find_checkpoint(options.checkpoint or BEST_OR_LAST)
    settings = generation_settings(folder.path)
    device = choose_device(options.device)
    checker = load_safety_checker(Path(options.safety_checker), device) if options.safety_checker else None
    generator = Generator.load(
        options.run,
        str(checkpoint),
        device=device,
        weights_dtype=options.weights_dtype,
        weights=options.weights,
    )
    return Answerer(generator, limits, checker), settings


def provenance_of(options: argparse.Namespace, answerer: Answerer) -> Provenance:
    """Return what drawn pictures say of where they come from."""
    from mmi.serving.pngs import Provenance

    return Provenance(answerer.generator, options.weights, options.weights_dtype, embed_prompt=options.embed_prompt)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: If the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        own = socket.socket(family, socket.SOCK_STREAM)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind((host, port))
        own.listen(128)
    except (OSError, OverflowError) as error:
        raise UsageError(f"can't listen at {host}:{port} ({error}); choose another --host or --port.") from None
    return own


def url_of(own: socket.socket) -> str:
    """Return the address of a listening socket for people."""
    host, port = own.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warn_of_strangers(host: str, token: str | None) -> None:
    """Say what it means to listen beyond this machine."""
    from mmi.serving.access import is_loopback

    if is_loopback(host):
        return
    told = f"warning: {host} can be reached from other machines, and what is sent is not encrypted"
    who = "; anyone who reaches it may use the model: set a token (--new-token)" if token is None else ""
    print(f"{told}{who}. Put a proxy with TLS before it.", file=sys.stderr)


def safety_sentence(options: argparse.Namespace) -> str:
    """Say whether drawn pictures are checked."""
    if options.safety_checker:
        return f"Safety checker: {Path(options.safety_checker).name}; what it flags is held back."
    return "No safety checker: every drawn picture is shown as it is."


def serve(app: Any, own: socket.socket, limits: Limits) -> None:
    """Serve an application until the process is told to stop."""
    import uvicorn

    # A stop from outside ends the process like one from the keyboard: what is to be deleted is deleted.
    signal.signal(signal.SIGTERM, _stop)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses of visitors and what they ask are nobody's business
        server_header=False,
        limit_concurrency=limits.queue_length + 64,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[own])


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)
