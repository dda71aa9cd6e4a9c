"""From a model to lists that may be seen: which model, which users, what a batch must satisfy, and its publication."""
