"""Makes a query that shows a difference smaller: its parts, asked for alone, until none of them differs."""

import re

OPEN, CLOSE = "([{", ")]}"


def parts(text):
    """Texts within brackets, calls, sides of operators, and the text without one of its modifiers or matchers."""
    stack, found = [], set()
    quote = None
    for at, c in enumerate(text):
        if quote:
            quote = None if c == quote and text[at - 1] != "\\" else quote
        elif c in "\"'`":
            quote = c
        elif c in OPEN:
            stack.append(at)
        elif c in CLOSE and stack:
            start = stack.pop()
            if c == ")":
                found.add(text[start + 1 : at])
                found.update(pieces(text[start + 1 : at]))
                word = re.search(r"[a-z_]+( (by|without) \([^()]*\) )?$", text[:start])
                if word:
                    found.add(text[word.start() : at + 1])
    found.update(pieces(text))
    for pattern in (r" offset -?\w+", r" @ (start\(\)|end\(\)|[\d.]+)", r"\{[^{}]*\}", r" (by|without|on|ignoring) \([^()]*\)", r" group_(left|right) ?\([^()]*\)", r" bool\b", r" group_(left|right)\b"):
        for match in re.finditer(pattern, text):
            found.add(text[: match.start()] + text[match.end() :])
    # A number for a part.
    for match in re.finditer(r"\[[^\[\]]*\]", text):
        if match[0] != "[5m]":
            found.add(text[: match.start()] + "[5m]" + text[match.end() :])
    return sorted((part.strip() for part in found if part.strip() and len(part) < len(text)), key=len)


def pieces(text):
    """A list's elements, and what stands on both sides of an operator, outside of brackets."""
    depth, start, quote = 0, 0, None
    for at, c in enumerate(text):
        if quote:
            quote = None if c == quote and text[at - 1] != "\\" else quote
        elif c in "\"'`":
            quote = c
        elif c in OPEN:
            depth += 1
        elif c in CLOSE:
            depth -= 1
        elif depth == 0 and c == ",":
            yield text[start:at]
            start = at + 1
        elif depth == 0 and c == " ":
            yield text[:at]
            yield text[at:]
    yield text[start:]


def smallest(question, differs, tries_max=300):
    tries = 0
    while True:
        for part in parts(question.text):
            tries += 1
            if tries > tries_max:
                return question
            other = question.with_text(part)
            if differs(other):
                question = other
                break
        else:
            return question
