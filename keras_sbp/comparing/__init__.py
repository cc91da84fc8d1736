"""How two networks are compared: on which inputs, and how closely."""
