"""A traced run as a page for the browser: calls and times, what was shared and what was lost."""
