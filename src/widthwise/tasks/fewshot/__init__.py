"""Few-shot learning of handwritten characters: MAML of the linear network, at every width."""

from widthwise.tasks.fewshot.drawings import Drawings as Drawings
from widthwise.tasks.fewshot.drawings import read_drawings as read_drawings
from widthwise.tasks.fewshot.episodes import Part as Part
from widthwise.tasks.fewshot.episodes import split as split
from widthwise.tasks.fewshot.finding import finding_of as finding_of
from widthwise.tasks.fewshot.kernel import LinearKernel as LinearKernel
from widthwise.tasks.fewshot.kernel import ReluKernel as ReluKernel
from widthwise.tasks.fewshot.linear import LinearNetwork as LinearNetwork
from widthwise.tasks.fewshot.setting import FewShot as FewShot
from widthwise.tasks.fewshot.setting import Numbers as Numbers
from widthwise.tasks.fewshot.setting import numbers_for as numbers_for
from widthwise.tasks.fewshot.study import Study as Study
from widthwise.tasks.fewshot.train import MetaRun as MetaRun
from widthwise.tasks.fewshot.train import meta_train as meta_train
