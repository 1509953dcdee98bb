"""`python -m helium_agents.cli`: the same as `helium`."""

from helium_agents.cli import main

if __name__ == "__main__":
    main()
