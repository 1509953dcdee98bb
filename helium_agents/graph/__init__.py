"""What was asked for: fingerprints, nodes and refs, the trace, the logical plan."""
