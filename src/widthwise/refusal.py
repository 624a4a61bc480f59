"""Which errors are a user's to mend, and the one sentence each is told in."""


def sentence_of(error: Exception) -> str | None:
    """What a user did wrong, in words; None for a bug, whose traceback is then shown."""
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}."
    if isinstance(error, MemoryError) or "Out of memory" in str(error):  # NumPy's, and JAX's
        ours = str(error) if _is_ours(error) else ""
        return ours or "Not enough memory: use a smaller width, or fewer rows."
    ours = isinstance(error, ValueError | ImportError) and _is_ours(error)
    return str(error) if ours else None


def _is_ours(error: Exception) -> bool:
    """Whether widthwise raised it and not a library below, which speaks of our variables."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    home = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return home.split(".")[0] == "widthwise"


def advice_of(error: Exception) -> str:
    """What the parser of the command line refuses, its advice drawn into the sentence."""
    text = str(error)
    advice = {
        "Unused Tokens": "These words belong to no option",
        ". Did you": "; did you",
        "? Available": "; available",
        ". Available": "; available",
    }
    for apart, joined in advice.items():
        text = text.replace(apart, joined)
    return text
