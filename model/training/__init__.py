"""Training: labels and windows, the loop and its checkpoints, the encoder and the ranker. model/train.py runs it."""
