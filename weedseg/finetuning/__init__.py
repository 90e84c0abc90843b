"""Fine-tuning on few labels: losses, task, run."""
