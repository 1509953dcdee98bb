"""Other frameworks' programs on ours: each package of this one needs its own extra."""
