"""x."""


def inspect_parts(*a):
    return None


def headlines(f):
    return []
