"""What a rule may ask of a network: costs, gradients, and what the next layers read."""
