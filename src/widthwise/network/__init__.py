"""What a network is: layers composed with `>>` and `+`, each read twice."""

from widthwise.network.attention import MultiHeadAttention as MultiHeadAttention
from widthwise.network.attention import SelfAttention as SelfAttention
from widthwise.network.branches import Concatenate as Concatenate
from widthwise.network.branches import Product as Product
from widthwise.network.conv import Conv as Conv
from widthwise.network.conv import ConvLocal as ConvLocal
from widthwise.network.conv import ConvTranspose as ConvTranspose
from widthwise.network.dense import Dense as Dense
from widthwise.network.dense import Readout as Readout
from widthwise.network.layer import AbstractLayer as AbstractLayer
from widthwise.network.layer import Chain as Chain
from widthwise.network.layer import Identity as Identity
from widthwise.network.layer import Sum as Sum
from widthwise.network.layer import Weight as Weight
from widthwise.network.moments import AbstractMoments as AbstractMoments
from widthwise.network.moments import Moments as Moments
from widthwise.network.moments import Tangent as Tangent
from widthwise.network.nonlinear import *  # noqa: F403  the module is the registry
from widthwise.network.normalise import Dropout as Dropout
from widthwise.network.normalise import LayerNorm as LayerNorm
from widthwise.network.pool import AveragePool as AveragePool
from widthwise.network.pool import Flatten as Flatten
from widthwise.network.pool import GlobalAveragePool as GlobalAveragePool
from widthwise.network.pool import GlobalSumPool as GlobalSumPool
from widthwise.network.pool import MaxPool as MaxPool
from widthwise.network.pool import SumPool as SumPool
from widthwise.network.positions import Crop as Crop
from widthwise.network.positions import PositionMatrix as PositionMatrix
from widthwise.network.positions import Resize as Resize
from widthwise.network.reader import Unflatten as Unflatten
from widthwise.network.signal import Signal as Signal
from widthwise.network.signal import Size as Size
from widthwise.network.usual import usual_network as usual_network
