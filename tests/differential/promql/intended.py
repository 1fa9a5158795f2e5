"""Differences from Prometheus that are meant. Each has its row in intended.md."""


def intended(question, first, second):
    """The name of the intended difference that explains two answers, or None."""
    return None
