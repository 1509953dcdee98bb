"""The order of calls apart from the engine: what an order costs, and how far off the best it is."""
