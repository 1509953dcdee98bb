"""Why was this not remembered, and what is this entry: provenance, explained misses, replays."""
