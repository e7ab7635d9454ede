"""The parts of the documents that are generated from the code: tables of arguments, of commands and of their options.

``python -m tests.generated`` rewrites every document; a test fails while one differs.  A table stands between
``<!-- generated: NAME -->`` and ``<!-- end -->``.  Links into the repository, in the README and its translations, begin
with the URL in pyproject.toml, because PyPI shows the README outside the repository.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from benchmarks.__main__ import SUBJECTS
from tim_async import Attempt, Batch, EndpointStats, Finding, Lookup, RetryPolicy, TIMClient, doctor, webhooks
from tim_async._codes import CODES, RETRIED
from tim_async.blocking import Portal
from tim_async.cli.app import cli
from tim_async.config import VARIABLES
from tim_async.emulator import Emulator, EndpointReport
from tim_async.quota import QuotaReport, RedisQuota
from tim_async.regions import ALIASES, REGIONS
from tim_async.telemetry._metrics import COUNTERS, METRICS

from .documents import PATHS, ROOT, TRANSLATIONS, Document

COMMAND = "python -m tests.generated"
REPOSITORY: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a Markdown table."""
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def described(subject: Any) -> dict[str, str]:
    """Return the entries of a docstring's section "Args:" or "Attributes:", by name, in Markdown."""
    section = re.search(
        r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", inspect.getdoc(subject) or "", re.MULTILINE | re.DOTALL
    )
    if section is None:
        raise ValueError(f"{subject!r} describes no arguments")
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1], re.MULTILINE)
    return {name: " ".join(text.replace("``", "`").split()) for name, text in entries}


def arguments(subject: Callable[..., Any]) -> str:
    """Make the table of a class's or a function's arguments, with their defaults and descriptions."""
    texts = described(subject)
    parameters = {name: one for name, one in inspect.signature(subject).parameters.items() if name != "self"}
    if parameters.keys() != texts.keys():
        raise ValueError(f"{subject!r}: the docstring describes {list(texts)}, the signature has {list(parameters)}")
    shown = {
        name: f"**{name}"
        if one.kind is inspect.Parameter.VAR_KEYWORD
        else name
        if one.default is inspect.Parameter.empty
        else f"{name}={one.default!r}"
        for name, one in parameters.items()
    }
    return table(("argument", "meaning"), ((f"`{shown[name]}`", text) for name, text in texts.items()))


USES = {"AsyncIterator": "async for … in ", "Outcomes": "async with "}
"""The syntax in which a result is used, by the declared return type."""


def methods() -> str:
    """Make the table of the methods of a client, of ``tim.batch`` and of ``tim.lookup``."""
    rows = []
    for prefix, kind in (("tim.", TIMClient), ("tim.batch.", Batch), ("tim.lookup.", Lookup)):
        for name, method in vars(kind).items():
            if name.startswith("_") or not inspect.isfunction(method):
                continue
            given = list(inspect.signature(method).parameters.values())[1:]
            bare = [one.replace(annotation=inspect.Parameter.empty) for one in given]
            call = f"{prefix}{name}{inspect.Signature(bare)}"
            summary = (inspect.getdoc(method) or "").split("\n\n")[0]
            return_type = str(inspect.signature(method).return_annotation).partition("[")[0]
            prefix_of_use = "await " if inspect.iscoroutinefunction(method) else USES.get(return_type, "")
            rows.append((f"`{prefix_of_use}{call}`", " ".join(summary.replace("``", "`").split())))
    return table(("call", "what it does"), rows)


def attributes(subject: Any) -> str:
    """Make the table of a record's attributes."""
    return table(("attribute", "meaning"), ((f"`{name}`", text) for name, text in described(subject).items()))


def regions() -> str:
    """Make the table of the regions, with their short names and hosts."""
    short = {region: name for name, region in ALIASES.items()}
    rows = [(name, short[name], *hosts) for name, hosts in REGIONS.items()]
    return table(("region", "short name", "host", "backup host"), ([f"`{cell}`" for cell in row] for row in rows))


def codes() -> str:
    """Make the table of the known codes: exception, reaction, meaning and remedy."""
    rows = [
        (str(number), f"`{code.kind}`", RETRIED[code.reaction], f"{code.meaning}  {code.remedy}")
        for number, code in sorted(CODES.items())
    ]
    return table(("code", "exception", "reaction", "meaning and remedy"), rows)


def environment() -> str:
    """Make the table of the credentials' environment variables, as ``tim-async --help`` describes them."""
    lines = re.findall(r"^  (TIM_[\w=]+(?:, TIM_\w+)*) +(\S.*)$", cli.epilog or "", re.MULTILINE)
    helped = set(re.findall(r"TIM_\w+", " ".join(names for names, _ in lines)))
    if helped != set(VARIABLES):
        raise ValueError(f"tim-async --help describes {helped}, the client reads {VARIABLES}")
    return table(("variable", "meaning"), ((re.sub(r"(TIM_[\w=]+)", r"`\1`", names), text) for names, text in lines))


def walk(
    group: click.Group, context: click.Context, *, into: bool = True
) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield the commands of a group and, with ``into``, of its subgroups."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            if into:
                yield from walk(command, inner)
        else:
            yield inner, command


def top() -> click.Context:
    """Return the context of ``tim-async`` itself."""
    return click.Context(cli, info_name="tim-async", **cli.context_settings)


def commands(found: Iterable[tuple[click.Context, click.Command]]) -> str:
    """Make the table of some commands: arguments and purpose."""
    rows = []
    for context, command in found:
        words = [argument.make_metavar(context) for argument in command.params if isinstance(argument, click.Argument)]
        rows.append((f"`{' '.join([context.command_path, *words])}`", command.get_short_help_str(limit=200)))
    return table(("command", "what it does"), rows)


def options(found: Iterable[tuple[click.Context, click.Command]]) -> str:
    """Make the table of several commands' options: one row for each option, with its commands."""
    users: dict[tuple[str, str], list[str]] = {}
    listed = list(found)
    for context, command in listed:
        for option in command.get_params(context):
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            if record is not None and "--help" not in option.opts:
                users.setdefault(record, []).append(command.name or "")
    rows = []
    for (names, text), users_of_option in users.items():
        shown = "all" if len(users_of_option) == len(listed) else ", ".join(f"`{name}`" for name in users_of_option)
        rows.append((f"`{names}`", " ".join(text.split()), shown))
    return table(("option", "meaning", "commands"), rows)


def _single() -> Iterator[tuple[click.Context, click.Command]]:
    return walk(cli, top(), into=False)


def _migrations() -> Iterator[tuple[click.Context, click.Command]]:
    outer = top()
    migrate = cli.get_command(outer, "migrate")
    assert isinstance(migrate, click.Group)
    return walk(migrate, click.Context(migrate, info_name="migrate", parent=outer))


def metrics() -> str:
    """Make the table of the metrics of `tim_async.telemetry`, with both names."""
    rows = []
    for metric in METRICS:
        counter = "_total" if metric in COUNTERS else ""
        labels = ", ".join(metric.labels)
        rows.append((f"`{metric.prometheus}{counter}`", f"`{metric.name}`", labels, metric.meaning))
    return table(("Prometheus", "OpenTelemetry", "labels", "meaning"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "TIMClient": lambda: arguments(TIMClient),
    "TIMClient.with_options": lambda: arguments(TIMClient.with_options),
    "RetryPolicy": lambda: arguments(RetryPolicy),
    "RedisQuota": lambda: arguments(RedisQuota),
    "Portal": lambda: arguments(Portal),
    "environment": environment,
    "regions": regions,
    "codes": codes,
    "QuotaReport": lambda: attributes(QuotaReport),
    "Attempt": lambda: attributes(Attempt),
    "Finding": lambda: attributes(Finding),
    "doctor": lambda: arguments(doctor),
    "EndpointStats": lambda: attributes(EndpointStats),
    "Event": lambda: attributes(webhooks.Event),
    "MsgReport": lambda: attributes(webhooks.MsgReport),
    "ReadReceipt": lambda: attributes(webhooks.ReadReceipt),
    "MsgReceipt": lambda: attributes(webhooks.MsgReceipt),
    "Emulator": lambda: arguments(Emulator.__init__),
    "EndpointReport": lambda: attributes(EndpointReport),
    "RequestOverLimit": lambda: attributes(webhooks.RequestOverLimit),
    "commands": lambda: commands(_single()),
    "options": lambda: options(_single()),
    "migrate commands": lambda: commands(_migrations()),
    "metrics": metrics,
    "benchmarks": lambda: table(("subject", "measures"), ((f"`{name}`", text) for name, text in SUBJECTS.items())),
    "migrate options": lambda: options(_migrations()),
}
"""The tables, by the name in their markers."""


def rewritten(document: Document) -> str:
    """Return a document's text with its tables, and its links into the repository, up to date.

    Raises:
        KeyError: a marker names no table.
    """
    text = re.sub(
        r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}",
        document.text,
        flags=re.DOTALL,
    )
    return (
        re.sub(r"https://github\.com/[\w.-]+/[\w.-]+(?=/blob/main/)", REPOSITORY, text)
        if document.name in ("README.md", *TRANSLATIONS)
        else text
    )


def main() -> None:
    """Rewrite every document that differs, and print its name."""
    for path in PATHS:
        document = Document.read(path)
        text = rewritten(document)
        if text != document.text:
            path.write_text(text, encoding="utf-8")
            print(f"rewrote {document.name}")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
