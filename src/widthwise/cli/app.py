"""The command line: parse, call, show. What it imports at the top decides how fast help starts."""

import json
import os
import sys
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

app = App(
    name="widthwise",
    help="""Infinite-width neural networks: one network at every width, infinity among them.

For example

  widthwise compare                              # scikit-learn's digits
  widthwise compare houses.csv --target price    # your own table
  widthwise fit houses.csv --target price        # one member, saved ...
  widthwise predict new.csv                      # ... and used
  widthwise list                                 # all names

Exit codes: 0 done; 2 bad input, said in one sentence; 130 interrupted.""",
    help_format="plaintext",  # leaves the examples as they are written
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main says what was kept
)


def _whole(kind: Any, tokens: Any) -> int:
    """A whole number; the parser's own reading would round 1.5."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number.") from None


Whole = Annotated[int, Parameter(converter=_whole)]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Target = Annotated[list[str] | None, Parameter(negative="")]


def rows_of(asked: dict[str, Any]):
    from widthwise.data import load

    named = {k: asked[k] for k in ("target", "task", "train", "test", "seed") if k in asked}
    if isinstance(target := named.get("target"), list) and len(target) == 1:
        named["target"] = target[0]  # messages then speak of one column
    return load(asked.get("data", "digits"), **named)


def told(rows: Any) -> str:
    """A data set in a line, then what was done to it."""
    shape = str(rows).removeprefix("Data(").removesuffix(")")
    return "\n".join([f"Data {shape}.", *(f"- {note}" for note in rows.notes)])


def say(sentence: str) -> None:
    print(sentence, flush=True)


def silent(sentence: str) -> None:
    """Says nothing: standard output is for the JSON."""


def print_json(found: Any) -> None:
    from widthwise.reporting.result import plain

    print(json.dumps(plain(found), indent=1, allow_nan=False))


def main(words: list[str] | None = None) -> None:
    """Runs the command line; every mistake ends in one sentence and a non-zero exit code."""
    from widthwise.refusal import advice_of, sentence_of

    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        _stop(advice_of(error), BAD_INPUT)
    except KeyboardInterrupt as stop:
        _stop(str(stop) or "Interrupted: nothing was written.", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `widthwise list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        _stop(sentence, BAD_INPUT)


def _stop(sentence: str, code: int) -> NoReturn:
    print(f"widthwise: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(code)
