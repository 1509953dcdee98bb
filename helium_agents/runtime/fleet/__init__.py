"""A session's engines: kept alive, started again, and one of several chosen for a request."""
