"""The mean-field limit: what muP networks become at infinite width under gradient descent."""

from widthwise.limits.mean_field.fluctuations import fluctuations as fluctuations
from widthwise.limits.mean_field.fluctuations import initial_fluctuations as initial_fluctuations
from widthwise.limits.mean_field.limit import DynamicalMeanField as DynamicalMeanField
