"""Every instrument: on runs with a limit, with an open cell, with one width, and on none."""

import json
import math

import numpy as np
import pytest
from found import concrete, made

import widthwise as ww
from widthwise import measure
from widthwise.data import from_arrays
from widthwise.reporting.result import plain

everyone = pytest.mark.parametrize(
    "instrument", [made(kind) for kind in concrete(measure, measure.AbstractInstrument)], ids=repr
)
NET = ww.Dense() >> ww.Relu() >> ww.Readout()
LEARNER = ww.GradientDescent(steps=3, lr=0.1)


@pytest.fixture(scope="module")
def trained():
    """Runs of four kinds on a few rows."""
    rng = np.random.default_rng(0)
    data = from_arrays(rng.normal(size=(12, 3)), rng.normal(size=12), task="regression", test=4)
    kinds = {
        "limit": (ww.NTK(), LEARNER, (4, 8, 16, math.inf)),
        "open": (ww.MuP(), LEARNER, (4, 8, math.inf)),
        "one": (ww.MuP(), LEARNER, (4,)),
        "infinite": (ww.NTK(), ww.Posterior(noise=0.1), (math.inf,)),
        "none": (ww.MuP(), ww.Posterior(kernel="ntk"), (math.inf,)),
    }
    return {
        name: ww.Family(NET, scaling, learner, widths, seeds=2).train(data, progress=False)
        for name, (scaling, learner, widths) in kinds.items()
    }


@everyone
@pytest.mark.parametrize("kind", ["limit", "open", "one", "infinite", "none"])
def test_it_answers_in_plain_json_and_one_paragraph(instrument, kind, trained):
    finding = instrument(trained[kind])
    assert finding.instrument == type(instrument).__name__
    assert finding.title and finding.sentence.endswith(".") and "\n" not in finding.sentence
    text = json.dumps(plain(finding.to_json()), allow_nan=False)
    assert json.loads(text)["title"] == finding.title
    for row in finding.table.rows:
        assert len(row) == len(finding.table.columns)
    for panel in finding.panels:
        for series in panel.series:
            assert len(series.x) == len(series.y) > 0
