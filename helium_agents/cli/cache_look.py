"""`helium cache ls` and `helium cache show`: the entries of a memo, and one of them whole."""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helium_agents.cli.cache_entries import entries, operator_option, row_options, select
from helium_agents.cli.cache_store import memo_option, reading
from helium_agents.cli.options import POSITIVE, debug_option, examples, json_option
from helium_agents.cli.report import table
from helium_agents.cli.units import age, date, size
from helium_agents.errors import DecodingError, InputError

if TYPE_CHECKING:
    from helium_agents.diagnose.provenance import Provenance
    from helium_agents.memo.store import BrowsableStore, EntryInfo

SHORT_KEY = 12
_UNKNOWN = "(what was asked is not known)"


@click.command(
    epilog=examples(
        "helium cache ls --memo memo",
        "helium cache ls --memo memo --operator expert --contains 'annual report'",
        "helium cache ls --memo memo --workflow flow.py:answer --input rows.jsonl --row 3",
    )
)
@memo_option
@operator_option
@row_options
@click.option(
    "--contains",
    "text",
    metavar="TEXT",
    help="Only where it is in what is kept of a message or an argument: 200 characters.",
)
@click.option(
    "--limit", type=POSITIVE, metavar="N", default=20, show_default=True, help="How many at most."
)
@json_option
@debug_option
def ls(memo: Path, limit: int, as_json: bool, **wanted: Any) -> None:
    """List what a memo holds, the newest first.

    With --row, calls count that were computed for the row. A call that several rows made was
    computed for one of them.
    """
    selection = select(**wanted)
    with reading(memo) as store:
        found = list(islice(entries(store, selection), limit + 1))
    has_more, found = len(found) > limit, found[:limit]
    if as_json:
        listed = [_as_dict(entry, call) for entry, call in found]
        click.echo(json.dumps({"memo": str(memo), "entries": listed, "has_more": has_more}))
        return
    if not found:
        click.echo("No entry." if selection.is_everything else "No such entry.")
    lines = [_columns(entry, call) for entry, call in found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for key, old, num_bytes, name, words in lines:
        _, age_width, size_width, name_width, _ = widths
        columns = f"{old:>{age_width}}  {num_bytes:>{size_width}}  {name:<{name_width}}"
        click.echo(f"{key}  {columns}  {words}".rstrip())
    if has_more:
        click.echo(f"The newest {limit:,}; there are more (see --limit).", err=True)


@click.command(epilog=examples("helium cache show --memo memo 3f2ab6c0d1e2"))
@memo_option
@click.argument("prefix", metavar="KEY")
@json_option
@debug_option
def show(memo: Path, prefix: str, as_json: bool) -> None:
    """Show what a call asked, as far as it is kept, and what was answered.

    KEY is the beginning of an entry's key, as `helium cache ls` prints it.
    """
    from helium_agents.diagnose.provenance import read_provenance

    with reading(memo) as store:
        entry = _find(store, prefix)
        whole = store.find(entry.key)
    call = read_provenance(whole.provenance) if whole else None
    answer = _answer(whole.value if whole else b"")
    if as_json:
        asked = _plain(call)
        click.echo(json.dumps({**_as_dict(entry, call), "facts": asked, "answer": answer}))
        return
    click.echo(table(_about(entry, call)))
    for message in () if call is None else call.messages:
        click.echo(f"\n{_heading(message.role)}\n{message.content}")
    for number, choice in enumerate(answer.get("choices", ())):
        more = f" {number + 1} of {len(answer['choices'])}" if len(answer["choices"]) > 1 else ""
        end = ", cut off at max_tokens" if choice["finish_reason"] == "length" else ""
        tokens = f"{choice['tokens']:,} tokens after {answer['prompt_tokens']:,} of prompt"
        click.echo(f"\n{_heading(f'answer{more}')} ({tokens}{end})\n{choice['text']}")
    for name in ("value", "error", "alias_of"):
        if name in answer:
            click.echo(f"\n{_heading(name.replace('_', ' '))}\n{answer[name]}")


def caller_name(call: Provenance | None) -> str:
    """The operator that made a call, without its module; empty where there is none."""
    return "" if call is None or call.caller is None else call.caller.partition(":")[2]


# --- finding -----------------------------------------------------------------------------------


def _find(store: BrowsableStore, prefix: str) -> EntryInfo:
    prefix = prefix.lower()
    found = [entry for entry in store.entries() if entry.key.hex().startswith(prefix)]
    if not prefix or not found:
        raise InputError(f"no entry's key begins with {prefix!r}: see helium cache ls")
    if len(found) > 1:
        keys = ", ".join(entry.key.hex()[: max(SHORT_KEY, len(prefix) + 4)] for entry in found[:5])
        raise InputError(f"several keys begin with {prefix!r} ({keys}): give more of it")
    return found[0]


# --- showing -----------------------------------------------------------------------------------


def _as_dict(entry: EntryInfo, call: Provenance | None) -> dict[str, Any]:
    return {
        "key": entry.key.hex(),
        "label": entry.label,
        "caller": None if call is None else call.caller,
        "created_s": entry.created_s,
        "bytes": entry.num_bytes,
        "item": None if call is None else call.item,
        "asked": None if call is None else call.first_words(),
    }


def _columns(entry: EntryInfo, call: Provenance | None) -> tuple[str, ...]:
    caller = caller_name(call)
    return (
        entry.key.hex()[:SHORT_KEY],
        age(time.time() - entry.created_s),
        size(entry.num_bytes),
        f"{entry.label} in {caller}" if caller else entry.label,
        _UNKNOWN if call is None else call.first_words(),
    )


def _about(entry: EntryInfo, call: Provenance | None) -> list[tuple[str, str]]:
    caller = caller_name(call)
    stored = f"{date(entry.created_s)}, {age(time.time() - entry.created_s)} ago"
    lines = [
        ("key", entry.key.hex()),
        ("label", f"{entry.label}, called by {caller}" if caller else entry.label),
        ("stored", f"{stored}, {size(entry.num_bytes)}"),
    ]
    if call is None:
        return [*lines, ("asked", _UNKNOWN)]
    if call.row is not None:
        lines.append(("row", f"item {call.item}, digest {call.row}"))
    about = _about_model_call if call.kind == "llm" else _about_operator_call
    return lines + about(call)


def _about_model_call(call: Provenance) -> list[tuple[str, str]]:
    model, schema = call.settings["model"], call.settings.get("schema")
    sampling = ", ".join(
        f"{name}={each}" for name, each in call.settings.items() if name not in ("model", "schema")
    )
    return [
        ("model", f"{model.text} ({model.digest[:SHORT_KEY]})"),
        *(("", f"{name}: {value}") for name, value in call.made_of.items()),
        ("sampling", sampling),
        *([("schema", str(schema))] if schema is not None else []),
    ]


def _about_operator_call(call: Provenance) -> list[tuple[str, str]]:
    arguments = [f"{name} = {each}" for name, each in call.arguments.items()]
    return [
        *((name, str(each)) for name, each in call.settings.items()),
        *zip(["arguments", *[""] * len(arguments)], arguments, strict=False),
    ]


def _answer(data: bytes) -> dict[str, Any]:
    """What an entry holds, as JSON values."""
    from helium_agents.runtime.record import AliasRecord, ValueRecord, read_record

    try:
        record = read_record(data)
    except DecodingError as error:
        return {"error": f"it cannot be shown here: {error}"}
    if isinstance(record, AliasRecord):
        return {"alias_of": record.key.hex()}
    if isinstance(record, ValueRecord):
        return {"value": repr(record.value)}
    choices = [
        {"text": it.text, "tokens": len(it.token_ids), "finish_reason": it.finish_reason}
        for it in record.answer.choices
    ]
    return {"prompt_tokens": record.answer.prompt_tokens, "choices": choices}


def _plain(provenance: Provenance | None) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(provenance)


def _heading(text: str) -> str:
    return click.style(text, bold=True)
