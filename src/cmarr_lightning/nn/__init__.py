"""Building blocks in plain torch: encoders, the uncertainty component, flows, fusion and heads."""
