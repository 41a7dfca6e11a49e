"""Datasets: official layouts in, a verified cache out, and what training is handed of it."""
