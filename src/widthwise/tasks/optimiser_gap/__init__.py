"""Does Adam, rather than features that move, explain what kernels lack? Measured on one data set.

>>> from widthwise.tasks.optimiser_gap import OptimiserGap, finding_of
>>> study = OptimiserGap(width=256, seeds=2)
>>> found = study.run(data, folder)  # doctest: +SKIP
>>> print(finding_of(found))  # doctest: +SKIP
"""

from widthwise.tasks.optimiser_gap.finding import finding_of as finding_of
from widthwise.tasks.optimiser_gap.study import OptimiserGap as OptimiserGap
from widthwise.tasks.optimiser_gap.study import Tuned as Tuned
