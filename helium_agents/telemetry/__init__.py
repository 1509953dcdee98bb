"""Who watches: events and what listens to them."""
