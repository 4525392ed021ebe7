"""From a grey film to the tensor that the models read: one recipe for the worker and for training."""
