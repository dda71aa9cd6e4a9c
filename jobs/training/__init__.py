"""Trainers and studies as processes beside Spark."""
