"""`helium cache stats`, `ls` and `show`: how much a memo holds, its entries, one of them whole."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helium_agents.cli.cache_memo import (
    cache_command,
    count_entries,
    entries,
    operator_option,
    reading,
    tell,
)
from helium_agents.cli.options import POSITIVE
from helium_agents.cli.report import table
from helium_agents.cli.units import age, date, size
from helium_agents.errors import DecodingError, InputError

if TYPE_CHECKING:
    from helium_agents.diagnose.provenance import Provenance
    from helium_agents.memo.store import BrowsableStore, EntryInfo

SHORT_KEY = 12
_UNKNOWN = "(what was asked is not known)"


@cache_command("helium cache stats --memo memo")
def stats(memo: Path, as_json: bool) -> None:
    """Say how much a memo holds."""
    with reading(memo) as store:
        held = store.stats()
    held_bytes = f"{size(held.num_bytes)} of at most {size(held.max_bytes)}"
    lines = [f"{memo}: {count_entries(held.num_entries)}, {held_bytes}"]
    if held.oldest_s is not None and held.newest_s is not None:
        lines.append(f"oldest of {date(held.oldest_s)}, newest of {date(held.newest_s)}")
    width = max(map(len, held.num_by_label), default=0)
    for label, of_label in sorted(held.bytes_by_label.items(), key=lambda it: (-it[1], it[0])):
        lines.append(f"  {label:<{width}}  {held.num_by_label[label]:>9,}  {size(of_label):>10}")
    tell(
        memo,
        "\n".join(lines),
        as_json=as_json,
        entries=held.num_entries,
        bytes=held.num_bytes,
        max_bytes=held.max_bytes,
        oldest_s=held.oldest_s,
        newest_s=held.newest_s,
        by_label={
            label: {"entries": number, "bytes": held.bytes_by_label[label]}
            for label, number in sorted(held.num_by_label.items())
        },
    )


@cache_command(
    "helium cache ls --memo memo",
    "helium cache ls --memo memo --operator expert --contains 'annual report'",
)
@operator_option
@click.option(
    "--contains",
    "text",
    metavar="TEXT",
    help="Only where it is in what is kept of a message or an argument: 200 characters.",
)
@click.option(
    "--limit", type=POSITIVE, metavar="N", default=20, show_default=True, help="How many at most."
)
def ls(memo: Path, operator: str | None, text: str | None, limit: int, as_json: bool) -> None:
    """List what a memo holds, the newest first."""
    with reading(memo) as store:
        found = list(islice(entries(store, operator=operator, text=text), limit + 1))
    has_more, found = len(found) > limit, found[:limit]
    lines = [_columns(entry, call) for entry, call in found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        f"{key}  {old:>{widths[1]}}  {held:>{widths[2]}}  {name:<{widths[3]}}  {words}".rstrip()
        for key, old, held, name, words in lines
    ]
    tell(
        memo,
        "\n".join(texts) or ("No entry." if operator is text is None else "No such entry."),
        as_json=as_json,
        entries=[_as_dict(entry, call) for entry, call in found],
        has_more=has_more,
    )
    if has_more and not as_json:
        click.echo(f"The newest {limit:,}; there are more (see --limit).", err=True)


@cache_command("helium cache show --memo memo 3f2ab6c0d1e2")
@click.argument("prefix", metavar="KEY")
def show(memo: Path, prefix: str, as_json: bool) -> None:
    """Show what a call asked, as far as it is kept, and what was answered.

    KEY is the beginning of an entry's key, as `helium cache ls` prints it.
    """
    from pydantic_core import to_jsonable_python

    from helium_agents.diagnose.provenance import read_provenance

    with reading(memo) as store:
        info = _find(store, prefix)
        entry = store.find(info.key)
    call = read_provenance(entry.provenance) if entry else None
    answer = _answer(entry.value if entry else b"")
    parts = [table(_about(info, call))]
    for message in () if call is None else call.messages:
        parts.append(f"{_heading(message.role)}\n{message.content}")
    choices = answer.get("choices", ())
    for number, choice in enumerate(choices, 1):
        more = f" {number} of {len(choices)}" if len(choices) > 1 else ""
        end = ", cut off at max_tokens" if choice["finish_reason"] == "length" else ""
        tokens = f"{choice['tokens']:,} tokens after {answer['prompt_tokens']:,} of prompt"
        said = [choice["reasoning"] or "", choice["text"]]
        said += [f"{call['name']}({call['arguments']})" for call in choice["tool_calls"]]
        text = "\n".join(filter(None, said))
        parts.append(f"{_heading(f'answer{more}')} ({tokens}{end})\n{text}")
    for name in ("value", "error", "alias_of"):
        if name in answer:
            parts.append(f"{_heading(name.replace('_', ' '))}\n{answer[name]}")
    fields = {**_as_dict(info, call), "provenance": to_jsonable_python(call), "answer": answer}
    tell(memo, "\n\n".join(parts), as_json=as_json, **fields)


def caller_name(call: Provenance | None) -> str:
    """The operator that made a call, without its module; empty where there is none."""
    return "" if call is None or call.caller is None else call.caller.partition(":")[2]


def _find(store: BrowsableStore, prefix: str) -> EntryInfo:
    prefix = prefix.lower()
    found = [entry for entry in store.entries() if entry.key.hex().startswith(prefix)]
    if not prefix or not found:
        raise InputError(f"no entry's key begins with {prefix!r}: see helium cache ls")
    if len(found) > 1:
        keys = ", ".join(entry.key.hex()[: max(SHORT_KEY, len(prefix) + 4)] for entry in found[:5])
        raise InputError(f"several keys begin with {prefix!r} ({keys}): give more of it")
    return found[0]


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
    from helium_agents.diagnose.provenance import MODEL_PART

    model = call.settings["model"]
    apart = ("model", "schema", "tools")
    sampling = ", ".join(f"{name}={x}" for name, x in call.settings.items() if name not in apart)
    return [
        ("model", f"{model.text} ({model.digest[:SHORT_KEY]})"),
        *(("", f"{part.removeprefix(MODEL_PART)}: {it}") for part, it in call.made_of.items()),
        ("sampling", sampling),
        *((name, str(call.settings[name])) for name in apart[1:] if name in call.settings),
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
        {
            "text": it.text,
            "tokens": len(it.token_ids),
            "finish_reason": it.finish_reason,
            "reasoning": it.reasoning,
            "tool_calls": [call._asdict() for call in it.tool_calls],
        }
        for it in record.answer.choices
    ]
    return {"prompt_tokens": record.answer.prompt_tokens, "choices": choices}


def _heading(text: str) -> str:
    return click.style(text, bold=True)
