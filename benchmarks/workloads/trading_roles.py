"""Who works on a stock in `benchmarks.workloads.trading`, what they are told and what they read."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.workloads.texts import briefing

SYSTEM_WORDS, MARKET_SYSTEM_WORDS = 140, 570


@dataclass(frozen=True)
class Source:
    """A document that an analyst reads.

    Args:
        title: Its first line.
        kind: A kind of text of `benchmarks.workloads.sentences`.
        num_words: Of its text.
        is_daily: Whether it is another one every day.
        is_of_market: Whether all stocks have the same one.
    """

    title: str
    kind: str
    num_words: int
    is_daily: bool = False
    is_of_market: bool = False


@dataclass(frozen=True)
class Desk:
    """An analyst: reads documents one by one, and reports on them all.

    Args:
        name: Of its report.
        system: Its system prompt.
        task: What it is to extract from each document.
        sources: The documents.
    """

    name: str
    system: str
    task: str
    sources: tuple[Source, ...]


DESKS = (
    Desk(
        "Fundamentals",
        briefing(
            "You are the analyst of fundamentals at a trading firm. You read what companies file "
            "and find out what a company is worth and whether it can pay its debts.",
            SYSTEM_WORDS,
        ),
        "Extract from the filing below what bears on the value of the company: growth, margins, "
        "cash, debt. Give the figures with their periods. Leave out everything else.",
        (
            Source("Company profile", "filing", 80),
            Source("Income statement", "filing", 80),
            Source("Balance sheet", "filing", 80),
            Source("Cash flow statement", "filing", 80),
        ),
    ),
    Desk(
        "Market",
        briefing(
            "You are the analyst of the market at a trading firm. You read prices, volumes and "
            "indicators, choose those that complement each other, and find out where the price is "
            "likely to go.",
            MARKET_SYSTEM_WORDS,
        ),
        "Extract from the data below what bears on the trend of the price: levels, momentum, "
        "volatility, volume. Give the figures with their days. Leave out everything else.",
        (
            Source("Prices and volumes", "market", 100, is_daily=True),
            Source("Indicators", "market", 100, is_daily=True),
        ),
    ),
    Desk(
        "News",
        briefing(
            "You are the analyst of news at a trading firm. You read what the press writes about a "
            "company and about the world, and find out what could move its price.",
            SYSTEM_WORDS,
        ),
        "Extract from the news below what could move the price of the stock within weeks, with its "
        "date and its source. Leave out everything else.",
        (
            Source("World news", "news", 70, is_daily=True, is_of_market=True),
            Source("News of the sector", "news", 70, is_of_market=True),
            Source("News of the company, today", "news", 70, is_daily=True),
            Source("News of the company, this week", "news", 70),
            Source("News of the company, earlier", "news", 70),
        ),
    ),
    Desk(
        "Social",
        briefing(
            "You are the analyst of social media at a trading firm. You read what people post "
            "about a company, and find out what the public thinks and how that changes.",
            SYSTEM_WORDS,
        ),
        "Extract from the posts below what they say about the company and its stock, and how many "
        "agree. Leave out everything else.",
        (
            Source("Posts of today", "social", 70, is_daily=True),
            Source("Comments of today", "social", 70, is_daily=True),
            Source("Posts of the week", "social", 70),
        ),
    ),
)

RESEARCHERS = {
    "The bull": briefing(
        "You are the bull among the researchers of a trading firm. You argue for buying the stock, "
        "from its growth, its strengths and the signs in its favour.",
        SYSTEM_WORDS,
    ),
    "The bear": briefing(
        "You are the bear among the researchers of a trading firm. You argue against buying the "
        "stock, from its risks, its weaknesses and the signs against it.",
        SYSTEM_WORDS,
    ),
}

RESEARCH_MANAGER = briefing(
    "You manage the researchers of a trading firm. You weigh what the bull and the bear have "
    "argued, take a side, and make a plan for the traders.",
    SYSTEM_WORDS,
)

TRADERS = tuple(
    briefing(f"You are the {{reader}} {style} trader of a trading firm. {habit}", SYSTEM_WORDS)
    for style, habit in (
        ("momentum", "You follow strong trends, enter late and leave at the first doubt."),
        ("value", "You buy what is cheap for what it earns, and can wait for years."),
        ("event", "You trade around news, results and decisions, for days at most."),
        ("contrarian", "You buy what others sell in fear, and sell what they buy in greed."),
    )
)
"""What fills the slot `{reader}` tells two traders of one style apart."""

RISK_ANALYSTS = {
    "The bold analyst": briefing(
        "You are the bold one among the risk analysts of a trading firm. You speak for large "
        "positions where the reward is worth it, and against missed chances.",
        SYSTEM_WORDS,
    ),
    "The careful analyst": briefing(
        "You are the careful one among the risk analysts of a trading firm. You speak for the "
        "safety of the capital, for small positions and early exits.",
        SYSTEM_WORDS,
    ),
    "The neutral analyst": briefing(
        "You are the neutral one among the risk analysts of a trading firm. You weigh reward "
        "against loss, and speak for what holds up in most cases.",
        SYSTEM_WORDS,
    ),
}

JUDGE = briefing(
    "You are the judge of the risk debate at a trading firm. You read a trader's decision and what "
    "the risk analysts said about it, and approve, change or reject it.",
    SYSTEM_WORDS,
)

FUND_MANAGER = briefing(
    "You are the manager of a fund. You read the rulings on the decisions of all traders, and give "
    "the one order that the fund carries out.",
    SYSTEM_WORDS,
)
