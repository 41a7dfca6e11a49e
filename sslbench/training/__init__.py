"""The training loop and what it is made of: schedules, moving averages, precision, checkpoints."""
