"""The temporal model: network, trainer, scorer. Knows nothing of Spark."""
