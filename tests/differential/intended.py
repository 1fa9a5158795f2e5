"""The differences that are meant: each has a name, the sentence of which stands in intended.md, and a predicate."""


def gnocchi_fails(step, theirs, ours):
    """Gnocchi stops with an exception; Orzo answers."""
    return theirs.status in (0, 500, 502) and 200 <= ours.status < 500


INTENDED = {
    "gnocchi-fails": gnocchi_fails,
}


def intended(step, theirs, ours):
    """The name of the intended difference that this is, or None."""
    for name, applies in INTENDED.items():
        if applies(step, theirs, ours):
            return name
    return None
