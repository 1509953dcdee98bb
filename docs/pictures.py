"""Draws the pictures of the concepts page.

    python docs/pictures.py

Each is a function below; its lines are lists of boxes, arrows and words with coordinates in pixels.
The files in docs/images are what this writes, which a test checks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).parent / "images"

# fill and stroke; they are told apart by words too
_COLOURS = {
    "plain": ("#f3f4f6", "#9ca3af"),
    "computed": ("#dbeafe", "#2563eb"),
    "known": ("#fef3c7", "#b45309"),
    "shared": ("#dcfce7", "#15803d"),
    "lost": ("#fee2e2", "#b91c1c"),
}


class Picture:
    """Boxes, arrows and words on a white card.

    Args:
        width: In pixels.
        height: In pixels.
        title: What is seen, for those who cannot see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}" '
            'font-family="system-ui, sans-serif" font-size="13" fill="#111827">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#4b5563"/></marker>'
            "</defs>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def box(self, x: float, y: float, w: float, h: float, text: str, kind: str = "plain") -> None:
        """A rectangle with words in its middle; a line break begins a new line."""
        fill, stroke = _COLOURS[kind]
        self._lines.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )
        words = text.split("\n")
        for number, line in enumerate(words):
            above = y + h / 2 + 4.5 + 16 * (number - (len(words) - 1) / 2)
            self.words(x + w / 2, above, line, anchor="middle")

    def words(
        self, x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False
    ) -> None:
        """Words whose base line begins (or has its middle or end) at a point."""
        weight = ' font-weight="600"' if bold else ""
        self._lines.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> None:
        """From a point to another one."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._lines.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#4b5563" '
            f'stroke-width="1.3" marker-end="url(#end)"{dashes}/>'
        )

    def svg(self) -> str:
        """The file."""
        return "\n".join([*self._lines, "</svg>"]) + "\n"


def plan() -> Picture:
    """Two rows with one question become one plan."""
    it = Picture(720, 300, "Two rows with equal questions: eight calls are asked, four computed")
    it.words(20, 28, "What the rows ask: 8 model calls", bold=True)
    it.words(440, 28, "What is computed: 4", bold=True)
    for row, x in (("row 1", 20), ("row 3", 220)):
        it.words(x, 58, f"{row}: the same question")
        for number, role in enumerate(("doctor", "parent", "coach")):
            it.box(x + 60 * number, 76, 54, 34, role)
            it.arrow(x + 60 * number + 27, 110, x + 87, 168)
        it.box(x + 32, 170, 110, 34, "summary")
    it.arrow(404, 142, 436, 142)
    for number, role in enumerate(("doctor", "parent", "coach")):
        it.box(446 + 80 * number, 76, 70, 34, role, "computed")
        it.arrow(446 + 80 * number + 35, 110, 561, 168)
    it.box(506, 170, 110, 34, "summary", "computed")
    it.arrow(561, 204, 520, 246)
    it.arrow(561, 204, 602, 246)
    it.box(480, 248, 74, 30, "row 1", "shared")
    it.box(568, 248, 74, 30, "row 3", "shared")
    it.words(20, 246, "Equal calls have equal keys.")
    it.words(20, 264, "A summary of equal answers is an equal call, too.")
    return it


def one_key() -> Picture:
    """What becomes of a call, by its key."""
    it = Picture(720, 250, "A call's key is looked up in the memo, then among calls in flight")
    it.box(20, 92, 150, 66, "a call: operator,\nversion, arguments,\nmodel, sampling")
    it.arrow(170, 125, 204, 125)
    it.box(206, 104, 70, 42, "its key")
    answers = (
        (20, "past: was it\never answered?", "the memo\nhas the answer", "known"),
        (94, "present: is it\nbeing answered?", "single flight:\njoin it", "shared"),
        (168, "future: will\nit be asked?", "speculation:\nrun it early", "computed"),
    )
    for y, question, answer, kind in answers:
        it.arrow(276, 125, 312, y + 30)
        it.box(314, y, 200, 60, question)
        it.arrow(514, y + 30, 538, y + 30)
        it.box(540, y, 160, 60, answer, kind)
    it.words(20, 216, "None of them: the engine computes it,")
    it.words(20, 234, "and the memo keeps it.")
    return it


def prefixes() -> Picture:
    """Prompts as a tree of what they share."""
    it = Picture(720, 232, "Six prompts that share a system prompt, and three by three a document")
    it.words(
        20,
        28,
        "Each prompt is read from left to right; what lies to the left is shared.",
        bold=True,
    )
    it.box(20, 44, 120, 168, "system prompt\n400 tokens\ncomputed once", "shared")
    for number, name in enumerate(("A", "B")):
        y = 44 + 86 * number
        it.box(146, y, 330, 82, f"document {name}, 2,000 tokens, computed once", "shared")
        for question in range(3):
            text = f"question {3 * number + question + 1}: 20 tokens"
            it.box(482, y + 28 * question, 218, 26, text, "computed")
    return it


def policies() -> Picture:
    """All rows open, or those that fit."""
    it = Picture(720, 330, "With all rows open the cache loses prefixes; with two open it does not")
    it.words(
        20, 28, "A KV cache that holds two documents, four rows with three calls each", bold=True
    )
    it.words(20, 58, "everything open")
    it.words(20, 196, "two rows open")
    for row in range(4):
        y = 68 + 24 * row
        it.words(20, y + 16, f"row {row + 1}")
        for call in range(3):
            kind = "computed" if call == 0 else "lost"
            x = 70 + 200 * call + 46 * row
            it.box(x, y, 36, 20, "doc", kind)
            it.box(x + 37, y, 10, 20, "", "plain")
    for row in range(4):
        y = 206 + 24 * row
        it.words(20, y + 16, f"row {row + 1}")
        start = 70 + 46 * (row % 2) + 190 * (row // 2)
        it.box(start, y, 36, 20, "doc", "computed")
        for call in range(3):
            it.box(start + 37 + (0 if call == 0 else 20 + 26 * call), y, 10, 20, "", "plain")
    it.arrow(70, 312, 700, 312)
    it.words(70, 326, "time")
    it.box(470, 214, 36, 20, "doc", "computed")
    it.words(514, 229, "a document is computed")
    it.box(470, 242, 36, 20, "doc", "lost")
    it.words(514, 257, "computed again: it was lost")
    it.box(483, 270, 10, 20, "", "plain")
    it.words(514, 285, "a question and its answer")
    return it


def durability() -> Picture:
    """When a row is finished, and what a kill leaves."""
    it = Picture(720, 190, "An answer is committed to the memo before its row is written")
    it.words(
        20, 28, "A row is given to you, and written, after its answers are on disk.", bold=True
    )
    steps = (
        ("answer\ncomputed", "computed"),
        ("memo, run log:\ncommitted", "known"),
        ("map yields\nthe row", "plain"),
        ("whole line in\nanswers.jsonl.part", "plain"),
        ("at the end\nanswers.jsonl", "shared"),
    )
    for number, (text, kind) in enumerate(steps):
        it.box(20 + 140 * number, 48, 128, 54, text, kind)
        if number:
            it.arrow(9 + 140 * number, 75, 20 + 140 * number, 75)
    it.words(
        20,
        132,
        "Killed before the commit: that answer is computed again. Killed after it: never again.",
    )
    it.words(
        20,
        152,
        "--resume reads the lines that are there, and takes the answers of the others from the",
    )
    it.words(20, 170, "memo and the run log; unseeded samples keep the answers that they had.")
    return it


PICTURES: tuple[Callable[[], Picture], ...] = (plan, one_key, prefixes, policies, durability)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for draw in PICTURES:
        (FOLDER / f"{draw.__name__}.svg").write_text(draw().svg(), "utf-8")


if __name__ == "__main__":
    main()
