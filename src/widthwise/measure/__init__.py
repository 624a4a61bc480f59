"""Instruments: runs in, findings out. One file each."""

from widthwise.measure.agreement import Agreement as Agreement
from widthwise.measure.base import AbstractInstrument as AbstractInstrument
from widthwise.measure.base import Finding as Finding
from widthwise.measure.base import Panel as Panel
from widthwise.measure.base import Series as Series
from widthwise.measure.base import Table as Table
from widthwise.measure.consistency import Consistency as Consistency
from widthwise.measure.movement import FeatureMovement as FeatureMovement
from widthwise.measure.renormalisation import KernelRenormalisation as KernelRenormalisation
