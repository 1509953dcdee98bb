"""Pure functions over plans; knows the graph, no asyncio and no I/O."""
