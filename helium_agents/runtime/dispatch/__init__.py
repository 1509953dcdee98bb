"""Which of the requests that are ready goes to its engine next."""
