"""Studies with a training loop of their own: word vectors, few-shot learning, optimisers."""
