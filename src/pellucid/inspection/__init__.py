"""Looking inside: what a model does step by step, and what that costs."""
