"""The mean-field limit: what muP networks become at infinite width under gradient descent."""

from widthwise.limits.mean_field.limit import DynamicalMeanField as DynamicalMeanField
