"""Data: feature stores and their formats, folds, scaling, conditions, noise, and the Lightning data modules."""
