"""Network: encoders, clinical fusion, heads, loss, and the bundle that stores them."""
