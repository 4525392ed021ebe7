"""From tensors to calibrated probabilities: bundles, the two runtimes, and the engine that batches in front of them."""
