"""`session.map`: rows read ahead, an item open for each, and results in order."""
