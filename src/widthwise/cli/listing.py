"""`widthwise list`: every name there is."""

from widthwise.cli.app import Json, app, print_json


@app.command(name="list")
def list_(name: str | None = None, *, json_: Json = False) -> None:
    """Print the layers, scalings, learners, limits, instruments and data sets, or describe one.

    For example

      widthwise list
      widthwise list GradientDescent

    Args:
        name: what to describe: how it is written, with its settings and their meaning.
        json_: print all of them as JSON.
    """
    from widthwise.catalogue import catalogue, describe

    if name is not None and not json_:
        print(describe(name))
    elif json_:
        print_json(catalogue())
    else:
        for kind, entries in catalogue().items():
            print(kind, *(f"  {x['name']:<16} {x['what']}" for x in entries), sep="\n")
