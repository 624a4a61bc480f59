"""The pi-limit of networks whose gradients are projected."""
