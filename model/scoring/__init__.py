"""Around the lists that model/predict.py makes: the moment on disk, the rules of the house, and reasons."""
