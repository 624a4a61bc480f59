"""The mean-field limit under Adam: one hidden layer whose features learn."""

from widthwise.limits.adam_mean_field.limit import AdamMeanField as AdamMeanField
