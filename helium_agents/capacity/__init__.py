"""Capacity questions: how long a traced run would take on other engines, or in another order."""
