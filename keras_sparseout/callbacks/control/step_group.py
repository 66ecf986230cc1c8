"""The layers that share one control inside the training step."""
