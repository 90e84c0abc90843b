"""One training loop for every task: schedule, durable checkpoints, signals, several processes."""
