"""The command ``explain``, which explains error codes without a call or credentials."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from tim_async._codes import CODES, DOCUMENT, RETRIED

from .failures import FAILED
from .output import examples, json_option, say, show, show_json


def _complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a prefix to the known codes, with their meanings."""
    return [
        CompletionItem(str(number), help=code.meaning)
        for number, code in sorted(CODES.items())
        if str(number).startswith(incomplete)
    ]


@click.command(
    short_help="Explain error codes.",
    epilog=examples(
        "tim-async explain 70009",
        "tim-async explain 10007 10010 90992",
        "tim-async explain 60021 --json",
    ),
)
@click.argument("codes", metavar="CODE...", nargs=-1, required=True, type=int, shell_complete=_complete)
@json_option
@click.pass_context
def explain(ctx: click.Context, codes: tuple[int, ...], as_json: bool) -> None:
    """Explain each CODE of the service: meaning, remedy, exception, and whether the call is retried.

    Makes no call.  Exit code 1 if a code is unknown.
    """
    codes = tuple(dict.fromkeys(codes))
    known = {number: CODES[number] for number in codes if number in CODES}
    if as_json:
        show_json(
            {
                str(number): {
                    "exception": known[number].kind,
                    "reaction": known[number].reaction.value,
                    "meaning": known[number].meaning,
                    "remedy": known[number].remedy,
                }
                if number in known
                else None
                for number in codes
            }
        )
    for place, (number, code) in enumerate(() if as_json else known.items()):
        heading = f"{number}  {code.kind}, {RETRIED[code.reaction]}"
        show("\n" * bool(place) + f"{heading}\n  {code.meaning}\n  {code.remedy}")
    unknown = [str(number) for number in codes if number not in known]
    if unknown:
        say(f"Unknown: {', '.join(unknown)}.  See the vendor's list: {DOCUMENT}")
        ctx.exit(FAILED)
