"""Trading: analysts, researchers, traders, risk analysts and a fund manager work on a stock.

As published, the eight traders are four, each twice: what they and the risk debates after them do
is the same twice over, 32 of the 88 calls. A second day repeats the first with some documents new
and the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import Answer, listed, texts_of, two_rounds
from benchmarks.workloads.texts import prose
from benchmarks.workloads.trading_roles import (
    DESKS,
    FUND_MANAGER,
    JUDGE,
    RESEARCH_MANAGER,
    RESEARCHERS,
    RISK_ANALYSTS,
    TRADERS,
    Desk,
    Source,
)
from helium_agents import Prompt, llm, operator, prompt, system, user

EXTRACT = """{task}

Stock: {stock}

{document}"""

REPORT = """Write your report on the stock from what you have extracted.

Stock: {stock}

{extracts}"""

# What everybody after the analysts reads comes first, what only one of them reads comes last.
FILE = """Stock: {stock}

{reports}"""

ARGUE = """{file}

Give your strongest arguments."""

ANSWER_OTHERS = """The others said:
{others}

Answer them, and keep or change your view."""

PLAN = """{file}

First round:
{firsts}

Second round:
{seconds}

Take a side and make a plan."""

DECIDE = """{file}

The plan of research: {plan}

Decide whether to buy, hold or sell, and how much."""

ASSESS = """{file}

The trader decided: {decision}"""

RULE = """{file}

The trader decided: {decision}

First round:
{firsts}

Second round:
{seconds}

Approve the decision, change it or reject it."""

ORDER = """{file}

{rulings}

Give the order."""

EXTRACT_TOKENS, REPORT_TOKENS = 32, 48
ARGUMENT_TOKENS, PLAN_TOKENS = 48, 64
DECISION_TOKENS, RISK_TOKENS, RULING_TOKENS, ORDER_TOKENS = 32, 32, 48, 64

_NAMES = (
    *("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Hazel", "Juniper", "Larch", "Maple"),
    *("Oak", "Pine", "Rowan", "Spruce", "Willow", "Yew"),
)
_TRADES = ("Software", "Energy", "Medical", "Foods", "Motors", "Freight", "Chemicals", "Bank")


@dataclass(frozen=True)
class StockRow:
    """A stock on a day.

    Args:
        name: Of the company.
        documents: For each desk those that its analyst reads.
        is_distinct: Whether traders of one style differ.
    """

    name: str
    documents: tuple[tuple[str, ...], ...]
    is_distinct: bool


@operator
async def trade(row: StockRow) -> list[str]:
    """Come to an order for a stock."""
    reports = {
        f"{desk.name} report": _report(desk, row.name, documents)
        for desk, documents in zip(DESKS, row.documents, strict=True)
    }
    file = prompt(FILE, stock=row.name, reports=listed(reports))
    plan = _plan(file)
    readers = ("first", "second" if row.is_distinct else "first")
    systems = [trader.format(reader=reader) for reader in readers for trader in TRADERS]
    rulings = {
        f"Ruling {number}": _ruling(file, plan, briefed)
        for number, briefed in enumerate(systems, start=1)
    }
    order = prompt(ORDER, file=file, rulings=listed(rulings))
    return await texts_of([llm(system(FUND_MANAGER), user(order), max_tokens=ORDER_TOKENS)])


def _report(desk: Desk, stock: str, documents: tuple[str, ...]) -> Answer:
    extracts = {}
    for source, document in zip(desk.sources, documents, strict=True):
        extract = prompt(EXTRACT, task=desk.task, stock=stock, document=document)
        messages = system(desk.system), user(extract)
        extracts[source.title] = llm(*messages, max_tokens=EXTRACT_TOKENS)
    report = prompt(REPORT, stock=stock, extracts=listed(extracts))
    return llm(system(desk.system), user(report), max_tokens=REPORT_TOKENS)


def _plan(file: Prompt) -> Answer:
    """The manager's, after the bull and the bear have debated."""
    argue = user(prompt(ARGUE, file=file))
    openings = {name: (system(briefed), argue) for name, briefed in RESEARCHERS.items()}
    firsts, seconds = two_rounds(openings, ANSWER_OTHERS, ARGUMENT_TOKENS)
    plan = prompt(PLAN, file=file, firsts=listed(firsts), seconds=listed(seconds))
    return llm(system(RESEARCH_MANAGER), user(plan), max_tokens=PLAN_TOKENS)


def _ruling(file: Prompt, plan: Answer, briefed: str) -> Answer:
    """The judge's on a trader's decision, after the risk analysts have debated it."""
    decide = prompt(DECIDE, file=file, plan=plan)
    decision = llm(system(briefed), user(decide), max_tokens=DECISION_TOKENS)
    assess = user(prompt(ASSESS, file=file, decision=decision))
    openings = {name: (system(text), assess) for name, text in RISK_ANALYSTS.items()}
    firsts, seconds = two_rounds(openings, ANSWER_OTHERS, RISK_TOKENS)
    rule = prompt(
        RULE, file=file, decision=decision, firsts=listed(firsts), seconds=listed(seconds)
    )
    return llm(system(JUDGE), user(rule), max_tokens=RULING_TOKENS)


def _rows(inputs: Inputs) -> list[StockRow]:
    return [
        StockRow(
            name=_name(item),
            documents=tuple(
                tuple(_document(desk, source, item, inputs) for source in desk.sources)
                for desk in DESKS
            ),
            is_distinct=inputs.is_distinct,
        )
        for item in range(inputs.num_items)
    ]


def _name(item: int) -> str:
    """Another one for each stock: the wood, the trade, and a number once all pairs are used."""
    rest, wood = divmod(item, len(_NAMES))
    series, trade = divmod(rest, len(_TRADES))
    name = f"{_NAMES[wood]} {_TRADES[(trade + wood) % len(_TRADES)]}"
    return f"{name} {series + 1}" if series else name


def _document(desk: Desk, source: Source, item: int, inputs: Inputs) -> str:
    whose = "market" if source.is_of_market else f"stock {item}"
    day = inputs.day if source.is_daily else 1
    text = prose(source.kind, source.num_words, inputs.seed, whose, day, desk.name, source.title)
    return f"{source.title}\n{text}"


WORKLOADS = (Workload("trading", trade, _rows, num_items=16, has_duplicates=True, num_warm_days=1),)
