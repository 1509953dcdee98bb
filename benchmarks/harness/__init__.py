"""What measures: one engine and one server, every system on every workload, and the bound."""
