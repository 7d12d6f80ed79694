"""What every Transformer is made of."""
