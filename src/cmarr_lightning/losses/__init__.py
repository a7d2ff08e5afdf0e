"""The three losses of CM-ARR as functions of tensors."""
