"""Networks in plain torch whose `forward` reads like the equations."""
