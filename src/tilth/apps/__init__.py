"""Applications: each a small package on the verbs."""
