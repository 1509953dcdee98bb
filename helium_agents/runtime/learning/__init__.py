"""What the rows of a workflow ask, learned from this run and from earlier ones."""
