"""Worked examples: what is shown to a model before the question that counts.

A small model does what it has seen done, and little of what it is told: with no example it talks
about the text, with three or four it answers from it. Which ones it saw decides what it gets right,
so readers who saw different ones do not all make the same mistakes.
"""

from __future__ import annotations

from typing import NamedTuple


class Worked(NamedTuple):
    """A text, what it is about, a question about it, and the answer."""

    text: str
    topic: str
    question: str
    answer: str | int


MILL = Worked(
    "The mill at Oakham was built by Thomas Reed. It has two wheels.\n"
    "Workers: 5\nSacks a week: 300",
    "a mill",
    "Who built the mill?",
    "Thomas Reed",
)

HOTEL = Worked(
    "The Queen's Arms is a hotel in Leeds. It was closed in March because of a fire.\n"
    "Rooms: 48\nCooks: 3",
    "a hotel",
    "Why was the hotel closed?",
    "because of a fire",
)

GOATS = Worked(
    "Anna Lind has a farm near Bergen. She sells cheese.\nCows: 48\nGoats: 64",
    "a farm",
    "How many goats are there?",
    64,
)

MILK = Worked(
    "The farm of Anna Lind lies near Bergen. She sold her cows because of the price of milk.\n"
    "Goats: 64\nPigs: 9",
    "a farm",
    "Why did she sell her cows?",
    "because of the price of milk",
)

SWANS = Worked(
    "Lake Orr has clear water. Swans nest on the eastern shore.\nBoats: 7\nIslands: 31",
    "a lake",
    "Where do swans nest?",
    "on the eastern shore",
)

DOOR = Worked(
    "The Blue Door is a café in Lyon. It opens at six in the evening.\nTables: 14\nCups: 90",
    "a café",
    "When does the café open?",
    "at six in the evening",
)

SHIPS = Worked(
    "The museum shows old ships. It was founded by Mary Holt.\nRooms: 12\nGuards: 20",
    "a museum",
    "What does the museum show?",
    "old ships",
)
