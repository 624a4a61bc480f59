"""The Adam limit: what lazy networks become at infinite width under Adam."""

from widthwise.limits.adam.limit import AdamLimit as AdamLimit
