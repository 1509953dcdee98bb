"""What guesses won, in words that say where and why."""

from __future__ import annotations

from helium_agents.cli.explain_guesses import as_dict, in_words
from helium_agents.diagnose.guesses import GuessedSite, OracleGap
from helium_agents.trace import TracedRun

WRONG = GuessedSite("critic", "Is it good?", 20, 10, 10, {"histogram": 20})
SILENT = GuessedSite("solve", "", 32, 0, 0, {}, {"nobody": 28, "not shared": 2, "off": 2})
EARLY = {"is_used": True, "saved_s": 3.2, "wasted_tokens": 0}
GIVEN_UP = {"is_used": False, "saved_s": 0.0, "wasted_tokens": 1024}


def test_all_of_it() -> None:
    run = TracedRun(speculated=[EARLY, GIVEN_UP])
    gap = OracleGap(21.1, 18.0, 13.7, 20, [SILENT, WRONG])
    assert in_words(run, gap).split("\n") == [
        "speculation: 1 call computed early, for 3.2 s before they were asked; "
        "1 for nothing (1,024 tokens)",
        "  won: about 3.1 s of 7.4 s that right guesses could win",
        "  20 rows together: 21 s without guesses, 18 s as it was, 14 s if all were right at once",
        "  wrong: 10 of 20 guessed calls: 10 of 20 at critic ('Is it good?') "
        "(by what came there before)",
        "  nothing early: 32 of 32 calls at solve: nobody guesses free text: give predict= (28); "
        "share=False: what equal calls come to is not one answer (2); otherwise (2)",
    ]
    found = as_dict(gap)
    assert found is not None and round(found["won_s"], 1) == 3.1
    assert found["sites"][0]["reasons"]["nobody"] == 28


def test_nothing_to_win_and_nothing_told() -> None:
    assert in_words(TracedRun(), OracleGap(2.0, 2.0, 2.0, 1, [])) == (
        "  right guesses could win nothing of the 2.0 s of 1 row together"
    )
    assert in_words(TracedRun(), None) == "" and as_dict(None) is None
